"""Heads that assign and compute losses in float32 under mixed precision."""
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData

from convnext_dense.optim.float32_losses import Float32Losses, as_float32

HEADS = {'mmdet': ['RetinaHead', 'FCOSHead', 'RTMDetSepBNHead', 'RTMDetInsSepBNHead', 'DINOHead', 'Mask2FormerHead'],
         'mmseg': ['Mask2FormerHead']}


def test_nested_tensors_are_float32_and_nothing_else_changes():
    half, count = torch.ones(2, dtype=torch.float16), torch.tensor([3])
    meta = InstanceData(labels=count)
    found = as_float32(([half, (half.bfloat16(), count)], {'a': half}, meta, None, 'text'))
    assert [found[0][0].dtype, found[0][1][0].dtype, found[1]['a'].dtype] == [torch.float32] * 3
    assert found[0][1][1] is count and found[2] is meta and found[3:] == (None, 'text')


@pytest.mark.parametrize('scope, name', [(scope, name) for scope, names in HEADS.items() for name in names])
def test_the_recipes_heads_have_it_before_the_stock_class(scope, name, repo_root):
    init_default_scope(scope)
    ours, stock = MODELS.get(f'{scope}.Float32{name}'), MODELS.get(f'{scope}.{name}')
    assert ours.__mro__[1:3] == (Float32Losses, stock)
    configs = [Config.fromfile(path) for path in (repo_root / f'configs/{scope[2:]}/_base_').glob('*_convnext*.py')]
    assert f'Float32{name}' in str([config.model for config in configs])


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_matching_masks_needs_it(dtype):
    """Mask2Former's matching cost sums over 12,544 points: fp16 overflows, bf16 keeps three digits."""
    from mmdet.models.task_modules.assigners.match_cost import CrossEntropyLossCost

    class Stock(torch.nn.Linear):
        def loss_by_feat(self, logits, targets):
            return CrossEntropyLossCost(use_sigmoid=True)._binary_cross_entropy(logits, targets)

    class Ours(Float32Losses, Stock):
        pass

    torch.manual_seed(0)
    logits, targets = torch.randn(4, 12544) * 8, (torch.rand(3, 12544) > 0.5).float()
    logits = logits.to(dtype)
    exact = Stock(1, 1).loss_by_feat(logits.float(), targets)
    with torch.autocast('cpu', dtype):
        ours, stock = (kind(1, 1).loss_by_feat(logits, targets) for kind in (Ours, Stock))
    torch.testing.assert_close(ours, exact, rtol=0, atol=0)
    error = (stock.float() - exact).abs().max()
    assert not error < 1e-3  # NaN or infinite in fp16
