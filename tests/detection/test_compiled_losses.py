"""The whole training step of a detector as one compiled graph: the same losses and gradients, and few graphs."""
from types import SimpleNamespace

import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import HOOKS
from test_static_step import build, cases, image, pair, random_boxes, same_samples, small_config, step

from convnext_dense.engine.compiled_losses import compile_losses
from convnext_dense.models.compiling import graphs_made


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['mask', 'cascade'])
def test_losses_and_gradients_stay_and_objects_make_no_graphs(kind, monkeypatch):
    """Batches of one size without objects, with one, with 500 and with regions to ignore are two graphs at most.

    The second is for more objects than samples, whose masks are taken apart first.
    """
    same_samples(monkeypatch)
    _, model = pair(kind)
    batches = [pseudo_collate(cases()[case]) for case in ('some', 'crowd', 'none and one', 'many', 'none at all')]
    batches.append(pseudo_collate([image(random_boxes(count, seed=3), range(count)) for count in (40, 7)]))
    expected = [step(model, batch) for batch in batches]
    assert compile_losses(model, backend='aot_eager')
    first, sizes = graphs_made(), set()
    for batch, (losses, gradients) in zip(batches, expected, strict=True):
        found, found_gradients = step(model, batch)
        sizes.add(tuple(model.data_preprocessor(batch, training=True)['inputs'].shape))
        assert found.keys() == losses.keys() and found_gradients.keys() == gradients.keys()
        for name, value in losses.items():
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
        largest = max(value.norm() for value in gradients.values())
        for name, value in gradients.items():  # rounding may switch a ReLU, which moves a gradient by up to 1e-4
            assert (found_gradients[name] - value).norm() <= 1e-3 * max(value.norm(), 1e-3 * largest), name
    print(f'{kind}: {graphs_made() - first} graphs for {len(batches)} batches of {len(sizes)} sizes')
    assert graphs_made() - first <= 2 * len(sizes)


@pytest.mark.parametrize('static, parts, compiled', [
    (True, None, 'the whole step'), (False, None, 'backbone, neck, rpn_head'), (True, ['neck'], 'neck')])
def test_the_hook_compiles_what_has_fixed_shapes(static, parts, compiled, capsys):
    cfg = small_config('mask')
    if not static:
        cfg.rpn_head.type, cfg.roi_head.type = 'Float32RPNHead', 'StandardRoIHead'
    model = build(cfg)
    keys = list(model.state_dict())
    HOOKS.build(dict(type='CompileHook', parts=parts)).before_train(SimpleNamespace(model=model))
    assert f'torch.compile: {compiled}; the first' in capsys.readouterr().out
    assert ('loss' in vars(model)) == (compiled == 'the whole step') and list(model.state_dict()) == keys
