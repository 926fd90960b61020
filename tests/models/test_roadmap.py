"""Every step of the roadmap: the reference's FLOPs, and equal outputs with torchvision and ConvNeXt at the ends."""
import json

import pytest
import torch
import torchvision
from mmengine.registry import MODELS
from networks import loss_of, randomize, relative_error

from convnext_dense import ConvNeXt
from convnext_dense.benchmark.roadmap import roadmap_table
from convnext_dense.models import REGIMES, STEPS, RoadmapNet

# Multiply-accumulates (G) at 224x224 with classifier: the project's reference notes, counted on the plain
# reading of each step; the paper prints the same but for the last two, where it counts LayerNorm's work.
GFLOPS = {
    'resnet50': 4.09, 'stage_ratio': 4.53, 'patchify': 4.42, 'depthwise': 2.35, 'width': 5.27,
    'inverted_bottleneck': 4.64, 'move_up_depthwise': 4.07, 'kernel_5': 4.10, 'kernel_7': 4.15, 'kernel_9': 4.21,
    'kernel_11': 4.29, 'gelu': 4.15, 'fewer_activations': 4.15, 'fewer_norms': 4.15, 'layer_norm': 4.15,
    'separate_downsampling': 4.46,
}


def test_flops_of_every_step(figure):
    rows = {row['step']: row for row in roadmap_table()}
    assert list(rows) == list(GFLOPS) == list(STEPS)
    for step, expected in GFLOPS.items():
        figure(f"roadmap {step}: {rows[step]['gflops']:.3f} GFLOPs, reference {expected:.2f}; "
               f"{rows[step]['mparams']:.2f} M parameters")
        assert abs(rows[step]['gflops'] - expected) <= 0.01, step


@pytest.mark.slow
def test_the_larger_regime_has_the_printed_figures(reference_dir, figure):
    """All sixteen FLOPs to 0.01 G and the top-1, which the reference file has from the paper's table."""
    printed = json.loads((reference_dir / 'roadmap_resnet200.json').read_text())['steps']
    rows = roadmap_table(regime='resnet200')
    assert [row['step'] for row in rows] == list(REGIMES['resnet200'])
    for row, expected in zip(rows, printed, strict=True):
        assert expected['step'].split(' ')[0] == row['step']
        figure(f"roadmap {row['step']}, larger regime: {row['gflops']:.3f} GFLOPs, printed {expected['gflops']:.2f}")
        assert round(row['gflops'], 2) == expected['gflops'] and row['paper_top1'] == expected['top1']


def copy_in_order(source: torch.nn.Module, target: torch.nn.Module) -> None:
    """Weights by their order of definition, shapes checked by copy_."""
    ours, theirs = target.state_dict(), source.state_dict()
    assert len(ours) == len(theirs)
    for (name, value), other in zip(ours.items(), theirs.values(), strict=True):
        assert value.shape == other.shape, name
        value.copy_(other)


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('regime, depths', [('resnet50', [3, 4, 6, 3]), pytest.param('resnet200', [3, 24, 36, 3],
                                                                                       marks=pytest.mark.slow)])
def test_first_step_is_torchvisions_resnet(regime, depths, training, figure):
    """In float64: batch norm over the few positions of these small maps would multiply float32's rounding."""
    torch.manual_seed(0)
    net = RoadmapNet(regime, regime=regime).double()
    theirs = torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, depths).double()
    theirs.fc = torch.nn.Identity()
    copy_in_order(theirs, net)
    net.train(training), theirs.train(training)
    x = torch.randn(2, 3, 96, 64).double()
    y = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
    expected = []
    for layer in (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4):
        expected.append(y := layer(y))
    errors = [relative_error(a, b.detach()) for a, b in zip(net(x), expected, strict=True)]
    figure(f'roadmap {regime} against torchvision (training={training}): maps within {max(errors):.1e}')
    # rounding grows through the 66 batch norms of ResNet-200 over batches of a dozen positions
    assert max(errors) < (1e-10 if training and regime == 'resnet200' else 1e-12)


@pytest.mark.parametrize('regime, arch', [('resnet50', 'tiny'),
                                          pytest.param('resnet200', 'base', marks=pytest.mark.slow)])
def test_last_step_is_convnext(regime, arch, figure):
    torch.manual_seed(0)
    net = randomize(RoadmapNet('separate_downsampling', regime=regime))
    convnext = ConvNeXt(arch, layer_scale_init_value=0)
    convnext.load_state_dict(net.state_dict())
    scaled = ConvNeXt(arch, layer_scale_init_value=1.0)  # layer scale of 1 scales nothing
    assert all('gamma' in key for key in scaled.load_state_dict(net.state_dict(), strict=False).missing_keys)
    x = torch.randn(1, 3, 64, 96)
    for a, b, c in zip(net(x), convnext(x), scaled(x), strict=True):
        assert torch.equal(a, b) and relative_error(a, c.detach()) < 1e-6
    figure(f'roadmap separate_downsampling ({regime}) against ConvNeXt {arch} with the same weights: equal')


def test_steps_between_meet_convnext_without_a_stride():
    """Where nothing downsamples, the layer_norm step's blocks are ConvNeXt's: same maps of the first stage."""
    torch.manual_seed(0)
    net = randomize(RoadmapNet('layer_norm', out_indices=(0,)))
    convnext = ConvNeXt('tiny', layer_scale_init_value=0, out_indices=(0,))
    state = convnext.state_dict()
    for value, other in zip(state.values(), net.state_dict().values(), strict=True):
        value.copy_(other.reshape(value.shape))
    x = torch.randn(2, 3, 64, 96)
    assert relative_error(net(x)[0], convnext(x)[0].detach()) < 1e-5


@pytest.mark.parametrize('regime, step', [('resnet50', step) for step in STEPS] + [
    pytest.param('resnet200', step, marks=pytest.mark.slow) for step in ('stage_ratio', 'depthwise', 'kernel_7')])
def test_every_step_is_a_dense_backbone_that_trains_whole(regime, step):
    """Four maps of strides 4 to 32 and the stated channels; every parameter gets a gradient."""
    torch.manual_seed(0)
    net = MODELS.build(dict(type='RoadmapNet', step=step, regime=regime, drop_path_rate=0.1))
    maps = net(torch.randn(2, 3, 64, 96))
    shapes = [(2, dim, 64 // stride, 96 // stride) for dim, stride in zip(net.dims, (4, 8, 16, 32), strict=True)]
    assert [m.shape for m in maps] == shapes
    loss_of(maps).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_drop_path_drops_whole_samples():
    torch.manual_seed(0)
    net = RoadmapNet('move_up_depthwise', drop_path_rate=0.999, out_indices=(0, 1, 2, 3))
    last = net.stages[3][-1].train()
    x = torch.rand(8, 768, 2, 2)
    assert torch.equal(last(x), x), 'ReLU of the shortcut alone'


def test_layer_depth_covers_every_step():
    for step in ('resnet50', 'separate_downsampling'):
        with torch.device('meta'):
            net = RoadmapNet(step)
        ids = {net.get_layer_depth(f'backbone.{name}', 'backbone.')[0] for name, _ in net.named_parameters()}
        number = net.get_layer_depth('decode_head.x', 'backbone.')[1]
        assert min(ids) == 0 and max(ids) < number


def test_unknown_step_is_one_clear_sentence():
    with pytest.raises(ValueError, match="unknown roadmap step 'kernel7' of the regime resnet50; .* first: kernel_7, "):
        RoadmapNet('kernel7')
    with pytest.raises(ValueError, match="unknown roadmap regime 'swin', expected resnet50 or resnet200"):
        RoadmapNet('gelu', regime='swin')
    with pytest.raises(ValueError, match='RoadmapNet needs an input of at least 32x32'):
        RoadmapNet('depthwise')(torch.zeros(1, 3, 16, 64))
