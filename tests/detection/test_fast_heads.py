"""Box and mask heads with faster layers give what mmdet's give: values, all gradients, state dicts."""
import pytest
import torch
from mmdet.registry import MODELS
from torch import nn

from convnext_dense.detection.float32_heads import is_matrix_product

MASK = dict(num_convs=2, in_channels=6, conv_out_channels=8, num_classes=5)
HEADS = {
    'mask': ('FCNMaskHead', MASK, 6, 14),
    'mask, 3x up': ('FCNMaskHead', MASK | dict(upsample_cfg=dict(type='deconv', scale_factor=3)), 6, 5),
    'mask of all classes': ('FCNMaskHead', MASK | dict(class_agnostic=True, num_convs=0, in_channels=8), 8, 14),
    'mask, bilinear': ('FCNMaskHead', MASK | dict(upsample_cfg=dict(type='bilinear', scale_factor=2)), 6, 14),
    'mask, normed': ('FCNMaskHead', MASK | dict(norm_cfg=dict(type='BN')), 6, 14),
    'box': ('Shared2FCBBoxHead', dict(in_channels=6, fc_out_channels=32, num_classes=5), 6, 7),
    'box, 4 convolutions': ('ConvFCBBoxHead', dict(num_shared_convs=4, num_shared_fcs=1, in_channels=6,
                                                   conv_out_channels=8, fc_out_channels=32, num_classes=5), 6, 7),
}

FAST = ('mask', 'mask, 3x up', 'mask of all classes', 'mask, normed')


def run(head: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Outputs, and gradients of the input and of all parameters."""
    x = x.clone().requires_grad_()
    outputs = head(x)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    generator = torch.Generator().manual_seed(2)
    weights = [torch.randn(output.shape, generator=generator).to(output) for output in outputs]
    gradients = torch.autograd.grad(outputs, [x, *head.parameters()], weights)
    return [*(output.detach() for output in outputs), *gradients]


@pytest.mark.parametrize('case', HEADS)
@pytest.mark.parametrize('rois', [0, 1, 9])
def test_values_and_gradients_are_mmdets(case, rois):
    kind, options, channels, size = HEADS[case]
    torch.manual_seed(0)
    stock, ours = (MODELS.build(dict(type=name, **options)) for name in (kind, f'Float32{kind}'))
    assert type(stock).__name__ == kind and type(ours).__name__ == f'Float32{kind}'
    for parameter in stock.parameters():
        nn.init.normal_(parameter, std=0.1)
    ours.load_state_dict(stock.state_dict())
    assert list(ours.state_dict()) == list(stock.state_dict())
    stock.eval(), ours.eval()
    if case in FAST:
        ours.upsample.register_forward_hook(lambda *_: pytest.fail('the deconvolution itself was called'))
    x = torch.randn(rois, channels, size, size)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-6)):  # of float64, outputs become float32
        for one, other in zip(run(stock.to(dtype), x.to(dtype)), run(ours.to(dtype), x.to(dtype)), strict=True):
            assert other.shape == one.shape
            if one.numel():
                assert (other - one).abs().max() <= tolerance * one.abs().max().clamp(min=1e-30)


def test_initial_weights_are_drawn_as_mmdets():
    for kind, options, _, _ in (HEADS['mask'], HEADS['box']):
        states = []
        for name in (kind, f'Float32{kind}'):
            torch.manual_seed(3)
            head = MODELS.build(dict(type=name, **options))
            head.init_weights()
            states.append(head.state_dict())
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize('options', [dict(kernel_size=3, stride=2), dict(kernel_size=2, stride=2, padding=1),
                                     dict(kernel_size=2, stride=2, groups=2), dict(kernel_size=2, stride=2, bias=False),
                                     dict(kernel_size=(2, 3), stride=(2, 3))])
def test_other_deconvolutions_are_left_to_torch(options):
    assert is_matrix_product(nn.ConvTranspose2d(4, 4, 2, 2))
    assert not is_matrix_product(nn.ConvTranspose2d(4, 4, **options))
