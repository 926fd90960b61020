"""FastUPerHead equals mmseg's UPerHead with the same weights."""
import io
import random

import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from mmseg.models.decode_heads import UPerHead
from mmseg.registry import MODELS
from torch.export import Dim, export

from convnext_dense.benchmark.backbone import peak_memory
from convnext_dense.segmentation.uper_head import FastUPerHead

NORMS = (dict(type='BN'), dict(type='SyncBN'), dict(type='GN', num_groups=1), None)


def random_case(seed):
    """Arguments of a head, and sizes of its maps: mostly halved and rounded down, sometimes rounded up."""
    draw = random.Random(seed)
    levels = 2 + seed % 4
    channels = [draw.randint(2, 6) for _ in range(levels)]
    sizes = [(draw.randint(17, 45), draw.randint(17, 45))]
    up = draw.randint(0, 1)
    for _ in range(levels - 1):
        sizes.append(tuple((side + up) // 2 for side in sizes[-1]))
    kwargs = dict(in_channels=channels, in_index=list(range(levels)), channels=draw.choice((4, 6, 8)), num_classes=3,
                  pool_scales=draw.choice(((1, 2, 3, 6), (2, 5), (1,))), norm_cfg=NORMS[seed // 4 % 4],
                  align_corners=draw.random() < 0.5, dropout_ratio=0.0)
    return kwargs, sizes


def build_pair(kwargs, dtype=torch.float32):
    """mmseg's head and ours with equal weights; norms with statistics and factors of some use."""
    torch.manual_seed(0)
    stock, ours = (MODELS.build(dict(type=kind, **kwargs)) for kind in ('UPerHead', 'FastUPerHead'))
    assert type(stock) is UPerHead and type(ours) is FastUPerHead
    for head in (stock, ours):
        revert_sync_batchnorm(head)  # SyncBN trains on GPUs only
    torch.nn.init.normal_(stock.conv_seg.weight)
    for module in stock.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(0, 0.1)
    ours.load_state_dict(stock.state_dict())
    return stock.to(dtype), ours.to(dtype)


def inputs_of(kwargs, sizes, batch=4, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(batch, c, *size, generator=generator, dtype=torch.float64).to(dtype)
            for c, size in zip(kwargs['in_channels'], sizes, strict=True)]


def relative_error(found, expected):
    return ((found.double() - expected.double()).abs().max() / expected.double().abs().max().clamp(min=1e-30)).item()


def run(head, maps, call=None):
    """Scores, gradients of maps and parameters, and buffers after the pass; ``call`` stands in for the head."""
    maps = [m.clone().requires_grad_() for m in maps]
    scores = (head if call is None else call)(maps)
    scores.backward(torch.randn(scores.shape, generator=torch.Generator().manual_seed(2)).to(scores))
    results = {f'map {i}': m.grad for i, m in enumerate(maps)}
    results |= {name: parameter.grad for name, parameter in head.named_parameters()}
    return dict(scores=scores.detach(), **results, **dict(head.named_buffers()))


@pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])
@pytest.mark.parametrize('seed', range(32))
def test_values_gradients_and_statistics_are_mmsegs(seed, training):
    kwargs, sizes = random_case(seed)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
        stock, ours = (head.train(training) for head in build_pair(kwargs, dtype))
        maps = inputs_of(kwargs, sizes, dtype=dtype)
        expected, found = run(stock, maps), run(ours, maps)
        assert found.keys() == expected.keys()
        for name in expected:
            assert relative_error(found[name], expected[name]) < tolerance, name


def test_state_dict_is_mmsegs():
    kwargs, _ = random_case(0)
    stock, ours = build_pair(kwargs)
    assert [(k, v.shape) for k, v in ours.state_dict().items()] == [(k, v.shape) for k, v in stock.state_dict().items()]
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in stock.named_parameters()]


def test_unfused_is_mmsegs_own_computation():
    kwargs, sizes = random_case(2)
    stock, ours = build_pair(kwargs)
    ours.fused = False
    maps = inputs_of(kwargs, sizes)
    with torch.no_grad():
        assert torch.equal(ours(maps), stock(maps))


def test_convolutions_of_another_kind_are_refused():
    kwargs, _ = random_case(0)
    with pytest.raises(ValueError, match="plain convolutions, and conv_cfg gives Conv2dAdaptivePadding.*'UPerHead'"):
        MODELS.build(dict(type='FastUPerHead', **kwargs, conv_cfg=dict(type='Conv2dAdaptivePadding')))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_autocast_is_as_exact_as_mmsegs(dtype):
    """Distance of scores under autocast to float64, root mean square over five heads."""
    errors = {0: 0.0, 1: 0.0}
    for seed in range(5):
        kwargs, sizes = random_case(seed)
        heads, exact = build_pair(kwargs), build_pair(kwargs, torch.float64)[0].eval()
        maps = inputs_of(kwargs, sizes)
        with torch.no_grad():
            expected = exact([m.double() for m in maps])
            for index, head in enumerate(heads):
                with torch.autocast('cpu', dtype):
                    scores = head.eval()(maps)
                assert scores.dtype == dtype
                errors[index] += ((scores.double() - expected).pow(2).mean() / expected.pow(2).mean()).sqrt().item()
    assert errors[1] < 1.2 * errors[0]


def test_peak_memory_is_below_mmsegs():
    kwargs, _ = random_case(2)
    kwargs |= dict(in_channels=[16, 32, 64, 128], channels=32, norm_cfg=dict(type='BN'), pool_scales=(1, 2, 3, 6))
    stock, ours = build_pair(kwargs)
    maps = inputs_of(kwargs, [(128 >> i, 128 >> i) for i in range(4)], batch=2)
    maps = [m.contiguous(memory_format=torch.channels_last) for m in maps]

    @torch.no_grad()
    def forward(head):
        head.eval()(maps)

    for step in (forward, lambda head: head.train()(maps).sum().backward()):
        theirs, mine = (peak_memory(lambda head=head, step=step: step(head), 'cpu') for head in (stock, ours))
        assert mine < 0.8 * theirs


DYNAMIC = [dict.fromkeys((0, 2, 3), getattr(Dim, 'DYNAMIC', None))] * 4
needs_dynamic = pytest.mark.skipif(not hasattr(Dim, 'DYNAMIC'), reason='exporting dynamic sizes needs torch 2.6')


@pytest.fixture
def head_and_maps():
    """A head of four levels in eval mode, and a function that makes its maps for an image's size."""
    kwargs, _ = random_case(2)
    ours = build_pair(kwargs)[1].eval()
    return ours, lambda *size: inputs_of(kwargs, [(size[0] >> i, size[1] >> i) for i in range(4)], batch=2)


@pytest.mark.slow
@needs_dynamic
def test_exported_program_works_at_other_sizes(head_and_maps):
    head, maps_of = head_and_maps
    program = export(head, (maps_of(40, 56),), dynamic_shapes=(DYNAMIC,))
    for size in ((40, 56), (67, 51), (136, 300)):
        with torch.no_grad():
            assert relative_error(program.module()(maps_of(*size)), head(maps_of(*size))) < 1e-5


@pytest.mark.slow
@needs_dynamic
@pytest.mark.parametrize('dynamic', [False, True])
def test_onnx_runtime_computes_the_same(head_and_maps, dynamic):
    onnxruntime = pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    head, maps_of = head_and_maps
    program = torch.onnx.export(head, (maps_of(40, 56),), dynamo=True,
                                dynamic_shapes=(DYNAMIC,) if dynamic else None)
    buffer = io.BytesIO()
    program.save(buffer)
    session = onnxruntime.InferenceSession(buffer.getvalue(), providers=['CPUExecutionProvider'])
    for size in ((40, 56), (67, 51)) if dynamic else ((40, 56),):
        maps = maps_of(*size)
        names = [node.name for node in session.get_inputs()]
        found = session.run(None, dict(zip(names, [m.numpy() for m in maps], strict=True)))[0]
        with torch.no_grad():
            assert relative_error(torch.from_numpy(found), head(maps)) < 1e-5


@pytest.mark.slow
def test_compiled_as_one_graph_in_training(head_and_maps):
    """In float64: batch norm of a pooled 1x1 map is too ill-conditioned for a tight tolerance in float32."""
    head, maps_of = head_and_maps
    head, maps = head.double().train(), [m.double() for m in maps_of(40, 56)]
    expected = run(head, maps)
    head.zero_grad(set_to_none=True)
    found = run(head, maps, torch.compile(head, fullgraph=True, backend='aot_eager'))
    for name in expected:
        if name not in dict(head.named_buffers()):  # statistics moved twice
            assert relative_error(found[name], expected[name]) < 1e-10, name


@pytest.mark.slow
def test_one_compiled_graph_for_any_size(head_and_maps):
    head, maps_of = head_and_maps
    compiled = torch.compile(head, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for size in ((40, 56), (67, 51)):
            assert relative_error(compiled(maps_of(*size)), head(maps_of(*size))) < 1e-5
            torch.compiler.set_stance('fail_on_recompile')
    torch.compiler.set_stance('default')
