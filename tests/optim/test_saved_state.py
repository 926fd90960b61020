"""What continues from a checkpoint: the loss scaler to the bit, and no optimizer's state under another parameter."""
import copy

import pytest
import torch
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from convnext_dense.errors import UserError
from convnext_dense.optim.saved_state import check_saved_state

STEPS, OVERFLOW = 12, 4  # of a run; where its loss is infinite, as happens in fp16
BATCHES = torch.randn(STEPS, 8, 4, generator=torch.Generator().manual_seed(0))


def build():
    """A model, and a wrapper that scales losses, which ours on a CPU would not: fp16 becomes float32 there."""
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    wrapper = OPTIM_WRAPPERS.build(dict(
        type='MixedPrecisionOptimWrapper', dtype='float32', clip_grad=dict(max_norm=1.0),
        optimizer=torch.optim.AdamW(model.parameters(), lr=0.01)))
    wrapper.loss_scaler = torch.amp.GradScaler('cpu', init_scale=2.0 ** 10, growth_interval=3)
    return model, wrapper


def train(model, wrapper, first: int, last: int) -> list[tuple]:
    """Scale, growth tracker and parameters after each step."""
    states = []
    for number in range(first, last):
        factor = torch.inf if number == OVERFLOW else 1.0
        wrapper.update_params(model(BATCHES[number]).square().mean() * factor)
        scaler = wrapper.loss_scaler.state_dict()
        states.append((scaler['scale'], scaler['_growth_tracker'], *(param.tolist() for param in model.parameters())))
    return states


def test_the_loss_scaler_continues_to_the_bit(tmp_path):
    """From any step: scale, growth tracker and parameters of every later step are those of a run that never stopped."""
    whole = train(*build(), 0, STEPS)
    assert {tracker for _, tracker, *_ in whole} == {0, 1, 2}, 'the tracker must matter'
    assert len({scale for scale, *_ in whole}) > 2 and any(a[0] > b[0] for a, b in zip(whole, whole[1:], strict=False))
    for stop in range(1, STEPS):
        model, wrapper = build()
        train(model, wrapper, 0, stop)
        torch.save(dict(state_dict=model.state_dict(), optimizer=wrapper.state_dict()), tmp_path / 'checkpoint.pth')
        saved = torch.load(tmp_path / 'checkpoint.pth', weights_only=True)
        model, wrapper = build()
        model.load_state_dict(saved['state_dict'])
        wrapper.load_state_dict(saved['optimizer'])
        assert train(model, wrapper, stop, STEPS) == whole[stop:], f'stopped after {stop}'


def optimizer(groups: list[dict[str, tuple[int, ...]]], steps: int = 1) -> torch.optim.Optimizer:
    """With groups of parameters by name and shape, and the check that `DenseRunner` adds."""
    torch.manual_seed(0)
    built = torch.optim.AdamW([dict(params=[nn.Parameter(torch.randn(shape)) for shape in group.values()],
                                    param_names=list(group), lr=0.1 * (number + 1))
                               for number, group in enumerate(groups)])
    built.register_load_state_dict_pre_hook(check_saved_state)
    for _ in range(steps):
        for group in built.param_groups:
            for param in group['params']:
                param.grad = torch.randn(param.shape)
        built.step()
    return built


GROUPS = [dict(stem=(3, 2), norm=(3,)), dict(stage=(3, 2))]


def test_its_own_state_is_taken():
    saved, new = optimizer(GROUPS, steps=3), optimizer(GROUPS, steps=0)
    new.load_state_dict(copy.deepcopy(saved.state_dict()))
    one, other = saved.state_dict()['state'], new.state_dict()['state']
    assert all(torch.equal(one[number][key], other[number][key]) for number in one for key in one[number])
    assert one.keys() == other.keys() == {0, 1, 2}


@pytest.mark.parametrize('groups, words', [
    ([dict(stem=(3, 2)), dict(norm=(3,)), dict(stage=(3, 2))], '3 parameters in 2 group.s., this run has 3 in 3'),
    ([dict(stage=(3, 2), norm=(3,)), dict(stem=(3, 2))], 'other parameters in group 0 than this run .stem.'),
    ([dict(stem=(3, 2), norm=(3,)), dict(stage=(2, 3))], r'exp_avg of shape \(3, 2\) for parameter 2, whose shape is'),
    ([dict(stem=(3, 2), norm=(3,)), dict(stage=(3, 2), head=(4,))], 'in 2 group.s., this run has 4 in 2'),
])
def test_the_state_of_another_grouping_is_refused(groups, words):
    """The second has the shapes and sizes of the saved one: torch would swap two parameters' moments silently."""
    saved, new = optimizer(GROUPS), optimizer(groups, steps=0)
    with pytest.raises(UserError, match=words):
        new.load_state_dict(saved.state_dict())
    assert not new.state
