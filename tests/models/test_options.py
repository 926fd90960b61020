"""Every option of ConvNeXt, and one clear sentence for what does not fit."""
import json

import pytest
import torch
from mmengine.registry import MODELS
from networks import SMALL, gradients, loss_of, relative_error, small
from torch import nn

import convnext_dense
from convnext_dense import ConvNeXt
from convnext_dense.models.convnext import ARCHITECTURES, Block


def image(*size: int) -> torch.Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(1))


def test_registered_once_in_the_root_registry():
    net = MODELS.build(dict(type='ConvNeXt', arch=SMALL, out_indices=(1,)))
    assert type(net) is ConvNeXt is convnext_dense.ConvNeXt


def test_mmpretrain_arguments_mean_the_same_network():
    """The argument list of mmpretrain's dense configs builds what our own defaults build."""
    theirs = dict(arch=SMALL, in_channels=3, stem_patch_size=4, norm_cfg=dict(type='LN2d', eps=1e-6),
                  act_cfg=dict(type='GELU'), linear_pw_conv=False, use_grn=False, drop_path_rate=0.4,
                  layer_scale_init_value=1.0, out_indices=[0, 1, 2, 3], frozen_stages=0,
                  gap_before_final_norm=False, with_cp=False, init_cfg=None)
    torch.manual_seed(0)
    a = ConvNeXt(**theirs).eval()
    torch.manual_seed(0)
    b = ConvNeXt(SMALL, drop_path_rate=0.4, layer_scale_init_value=1.0).eval()
    for x, y in zip(a(image(1, 3, 64, 64)), b(image(1, 3, 64, 64)), strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize('arch', ARCHITECTURES)
def test_named_arch_is_its_dict(arch):
    depths, dims = ARCHITECTURES[arch]
    with torch.device('meta'):
        named, spelled = ConvNeXt(arch), ConvNeXt(dict(depths=list(depths), channels=list(dims)))
    shapes = {key: value.shape for key, value in named.state_dict().items()}
    assert shapes == {key: value.shape for key, value in spelled.state_dict().items()}
    assert [len(stage) for stage in named.stages] == list(depths)
    assert [norm.weight.shape[0] for norm in (named.norm0, named.norm1, named.norm2, named.norm3)] == list(dims)


@pytest.mark.parametrize('out_indices', [(0,), (1, 3), 2, (0, 1, 2, 3)])
@pytest.mark.parametrize('use_grn', [False, True])
def test_out_indices_pick_maps_and_leave_no_parameter_without_gradient(out_indices, use_grn):
    full, part = small(use_grn=use_grn), small(use_grn=use_grn, out_indices=out_indices)
    part.load_state_dict({key: value for key, value in full.state_dict().items() if key in part.state_dict()})
    x = image(2, 3, 64, 96)
    picked = (out_indices,) if isinstance(out_indices, int) else out_indices
    for i, found in zip(picked, part(x), strict=True):
        assert torch.equal(found, full(x)[i])
    assert all(grad is not None and grad.abs().sum() > 0 for grad in gradients(part, x).values())


@pytest.mark.parametrize('frozen', [1, 2, 4])
def test_frozen_stages(frozen):
    net = small(frozen_stages=frozen, drop_path_rate=0.9)
    assert net.train() is net and net.train(True) is net
    grads = gradients(net, image(1, 3, 64, 64))
    for i in range(4):
        parts = (net.downsample_layers[i], net.stages[i])
        assert all(module.training is (i >= frozen) for part in parts for module in part.modules())
        for name, param in net.named_parameters():
            if name.startswith((f'stages.{i}.', f'downsample_layers.{i}.')):
                assert param.requires_grad is (i >= frozen) and (i >= frozen or grads[name] is None)
    assert net.norm0.training and grads['norm0.weight'] is not None


def test_frozen_norms_leave_nothing_to_train():
    net = small(frozen_stages=4, frozen_norms=True).train()
    assert not any(param.requires_grad for param in net.parameters()) and not net.norm3.training
    trained = {name for name, param in small(frozen_norms=True).named_parameters() if not param.requires_grad}
    assert trained == {f'norm{i}.{name}' for i in range(4) for name in ('weight', 'bias')}


def test_frozen_stages_do_not_drop_paths():
    net = small(frozen_stages=4, drop_path_rate=0.9).train()
    x = image(1, 3, 64, 64)
    for a, b in zip(net(x), net.eval()(x), strict=True):
        assert torch.equal(a, b)


def test_drop_path_rises_linearly_over_all_blocks():
    """Official schedule: linspace(0, rate, blocks)."""
    with torch.device('meta'):
        net = ConvNeXt('tiny', drop_path_rate=0.4)
    rates = [block.drop_path for stage in net.stages for block in stage]
    assert rates == pytest.approx([0.4 * i / 17 for i in range(18)], abs=1e-7)


def test_drop_path_is_per_sample_scaled_and_off_in_eval():
    torch.manual_seed(0)
    block = Block(6, drop_path=0.25, layer_scale=0.7)
    x = image(1, 6, 5, 5).expand(400, -1, -1, -1).contiguous(memory_format=torch.channels_last)
    branch = block.eval()(x[:1]) - x[:1]
    steps = (block.train()(x) - x) / branch
    per_sample = steps.flatten(1)
    dropped = per_sample.abs().amax(1) < 1e-3
    assert torch.allclose(per_sample[~dropped], torch.tensor(1 / 0.75), rtol=1e-2)
    assert abs(dropped.float().mean().item() - 0.25) < 0.08


def test_layer_scale_defaults():
    with torch.device('meta'):
        v2 = ConvNeXt('atto', use_grn=True)
        assert all(block.gamma is None and block.grn is not None for stage in v2.stages for block in stage)
        both = ConvNeXt('atto', use_grn=True, layer_scale_init_value=1e-6)
    v1, none = ConvNeXt(SMALL), ConvNeXt(SMALL, layer_scale_init_value=0)
    assert all(torch.equal(block.gamma, torch.full_like(block.gamma, 1e-6)) and block.grn is None
               for stage in v1.stages for block in stage)
    assert all(block.gamma is None for stage in none.stages for block in stage)
    assert all(block.gamma is not None and block.grn is not None for stage in both.stages for block in stage)


def test_initial_weights_are_the_official_ones():
    """Truncated normal of deviation 0.02, cut at 2 (so never, in practice), zero biases."""
    torch.manual_seed(0)
    net = ConvNeXt('atto')
    weights = torch.cat([m.weight.flatten() for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))])
    assert abs(weights.std().item() - 0.02) < 2e-4 and abs(weights.mean().item()) < 1e-4
    assert all((m.bias == 0).all() for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear)))


def test_checkpointing_has_the_same_loss_and_gradients():
    plain, saving = small(), small(with_cp=True)
    saving.load_state_dict(plain.state_dict())
    x = image(2, 3, 64, 64)
    expected = gradients(plain, x)
    for name, grad in gradients(saving, x).items():
        assert relative_error(grad, expected[name]) < 1e-6, name
    assert torch.equal(loss_of(plain(x)), loss_of(saving(x)))


def test_checkpointing_repeats_the_same_drop_path():
    plain, saving = small(drop_path_rate=0.5), small(drop_path_rate=0.5, with_cp=True)
    saving.load_state_dict(plain.state_dict())
    results = []
    for net in (plain, saving):
        torch.manual_seed(3)
        results.append(gradients(net.train(), image(4, 3, 64, 64)))
    assert all(relative_error(results[1][name], grad) < 1e-6 for name, grad in results[0].items()
               if grad.abs().sum() > 0)


def saved_bytes(net: nn.Module, x: torch.Tensor) -> int:
    """Bytes of activations that autograd keeps between forward and backward, each storage once."""
    kept, own = {}, {p.untyped_storage().data_ptr() for p in net.parameters()}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = loss_of(net(x))
    assert loss.requires_grad
    return sum(size for size, _ in kept.values())


def test_checkpointing_keeps_less_memory(figure):
    x = torch.randn(1, 3, 128, 128)
    plain, saving = saved_bytes(small(), x), saved_bytes(small(with_cp=True), x)
    figure(f'with_cp, small network at 128x128: {saving / 1e6:.2f} MB kept for backward, {plain / 1e6:.2f} MB without')
    assert saving < 0.35 * plain


@pytest.mark.parametrize('channels', [1, 4, 12])
def test_any_number_of_input_channels(channels):
    net = small(in_channels=channels)
    assert net(image(1, channels, 64, 64))[0].shape == (1, 8, 16, 16)
    assert gradients(net, image(1, channels, 64, 64))['downsample_layers.0.0.weight'].shape[1] == channels


@pytest.mark.parametrize('height, width', [(32, 32), (33, 47), (100, 131), (95, 64)])
def test_sizes_not_divisible_by_32_round_down(height, width):
    """The rest of an image that fills no cell does not count: same maps as for the cropped image at each stride."""
    net = small().eval()
    x = image(1, 3, height, width)
    maps = net(x)
    assert [m.shape[2:] for m in maps] == [(height // s, width // s) for s in (4, 8, 16, 32)]
    cropped = net(x[:, :, :height // 4 * 4, :width // 4 * 4])
    assert all(torch.equal(a, b) for a, b in zip(maps, cropped, strict=True))


@pytest.mark.parametrize('channels_last', [False, True])
def test_memory_layout_of_the_input_does_not_matter(channels_last):
    net = small(channels_last=channels_last).eval()
    x = image(2, 3, 64, 96)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    for a, b in zip(net(x), net(x.contiguous(memory_format=torch.channels_last)), strict=True):
        assert torch.equal(a, b) and a.is_contiguous(memory_format=layout)


def test_default_maps_suit_heads_that_view_them():
    """As mmseg's DMHead and mmdet's CenterNetHead do; the gradient is the same either way."""
    x, grads = image(2, 3, 64, 96), []
    for channels_last in (False, True):
        net = small(channels_last=channels_last)
        maps = net(x)
        if channels_last:
            with pytest.raises(RuntimeError, match='view size is not compatible'):
                maps[0].view(2, -1)
            maps = [m.contiguous() for m in maps]
        sum(m.view(2, -1).square().sum() for m in maps).backward()
        grads.append([p.grad for p in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_plain_stages_are_what_the_norms_see():
    net = small()
    plain = small(output_norm=False)
    plain.load_state_dict({k: v for k, v in net.state_dict().items() if not k.startswith('norm')})
    x = image(1, 3, 64, 64)
    for i, (stage, normed) in enumerate(zip(plain(x), net(x), strict=True)):
        assert torch.equal(getattr(net, f'norm{i}')(stage), normed)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('options', [{}, dict(use_grn=True)])
def test_autocast_is_close_and_finite_at_published_scales(dtype, options):
    """Channels and activations of V1 and V2 at official initialisation and with trained-size layer scale."""
    torch.manual_seed(0)
    net = ConvNeXt('tiny', **options)
    for block in (block for stage in net.stages for block in stage):
        nn.init.uniform_(block.gamma, 1e-6, 1.0) if block.gamma is not None else nn.init.normal_(block.grn.gamma)
    x = 2.6 * image(1, 3, 64, 64)  # normalised images lie within about 2.6 deviations
    with torch.no_grad():
        exact = net(x)
    with torch.autocast('cpu', dtype):
        maps = net(x)
    grads = torch.autograd.grad(loss_of(m.float() for m in maps), list(net.parameters()))
    assert all(grad.isfinite().all() for grad in grads)
    for found, expected in zip(maps, exact, strict=True):
        assert relative_error(found.float(), expected) < (0.05 if dtype == torch.bfloat16 else 0.01)


LAYER_WISE = ['mask-rcnn_convnext-t-in1k', 'cascade-mask-rcnn_convnext-t-in1k', 'cascade-mask-rcnn_convnext-s-in1k',
              'cascade-mask-rcnn_convnext-b-in22k', 'cascade-mask-rcnn_convnext-xl-in22k']


@pytest.mark.parametrize('name', LAYER_WISE)
def test_layer_depth_is_the_official_rule(name, reference_dir):
    """decay_rate ** (number - 1 - id) against the official constructor's multiplier for every parameter."""
    official = json.loads((reference_dir / 'official_layer_decay.json').read_text())[name]
    recipes = json.loads((reference_dir / 'published_recipes.json').read_text())
    recipe = next(recipe for recipe in recipes if recipe['name'] == name)
    assert recipe['decay_type'] == 'layer_wise'
    with torch.device('meta'):
        net = ConvNeXt(recipe['arch'])
    ours = {f'backbone.{key}' for key, _ in net.named_parameters()}
    assert ours == {key for key in official if key.startswith('backbone.')}
    for key, (multiplier, _) in official.items():
        layer, number = net.get_layer_depth(key, 'backbone.')
        assert number == recipe['num_layers'] + 2
        assert recipe['decay_rate'] ** (number - 1 - layer) == pytest.approx(multiplier, rel=1e-6), key


BAD = {
    'unknown arch': (dict(arch='tiney'), "unknown ConvNeXt arch 'tiney'; known, nearest first: tiny, "),
    'arch keys': (dict(arch=dict(depths=[1, 1, 1, 1])), 'dict\\(depths=\\[...\\], channels=\\[...\\]\\), got'),
    'depths length': (dict(arch=dict(depths=[1, 1], channels=[8] * 4)), "arch\\['depths'\\] must hold four positive"),
    'channels value': (dict(arch=dict(depths=[1] * 4, channels=[8, 0, 8, 8])), "arch\\['channels'\\] must hold four"),
    'index range': (dict(out_indices=(0, 4)), 'out_indices must be rising stage indices from 0 to 3, got \\(0, 4\\)'),
    'index order': (dict(out_indices=(2, 1)), 'out_indices must be rising .* got \\(2, 1\\)'),
    'index twice': (dict(out_indices=(1, 1)), 'out_indices must be rising .* got \\(1, 1\\)'),
    'no index': (dict(out_indices=()), 'out_indices must be rising'),
    'even kernel': (dict(kernel_size=4), 'kernel_size must be odd .* got 4'),
    'norm': (dict(norm_cfg=dict(type='BN')), "norm_cfg can only be the published .* got {'type': 'BN'}"),
    'activation': (dict(act_cfg=dict(type='ReLU')), "act_cfg can only be the published .* got {'type': 'ReLU'}"),
    'pooled': (dict(gap_before_final_norm=True), 'gap_before_final_norm=True pools the feature maps'),
    'rate': (dict(drop_path_rate=1.5), 'drop_path_rate is a probability'),
    'frozen': (dict(frozen_stages=5), 'frozen_stages is a number of stages, 0 to 4, got 5'),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_argument_is_one_clear_sentence(case):
    options, message = BAD[case]
    with pytest.raises(ValueError, match=message) as error:
        ConvNeXt(**{'arch': SMALL, **options})
    assert '\n' not in str(error.value)


def test_nearest_arch_comes_first():
    with pytest.raises(ValueError, match='nearest first: xlarge, large'):
        ConvNeXt('xlarg')


@pytest.mark.parametrize('shape, message', [
    ((1, 4, 64, 64), r'ConvNeXt expects an input of shape \(N, 3, H, W\), got \(1, 4, 64, 64\)'),
    ((3, 64, 64), r'ConvNeXt expects an input of shape \(N, 3, H, W\), got \(3, 64, 64\)'),
    ((1, 3, 64, 31), 'at least 32x32 pixels, one position of its stride-32 feature map, got 64x31'),
])
def test_bad_input_is_one_clear_sentence(shape, message):
    with pytest.raises(ValueError, match=message):
        small()(torch.zeros(shape))
