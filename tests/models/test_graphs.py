"""torch.compile, torch.export, ONNX and the memory layout: what the network looks like to the machine."""
import io
import os
import re
import subprocess
import sys

import pytest
import torch
from networks import gradients, loss_of, relative_error, small
from torch.export import Dim, export

from convnext_dense.benchmark.timing import exact_float32

V1_V2 = pytest.mark.parametrize('options', [{}, dict(use_grn=True)], ids=['v1', 'v2'])
DYNAMIC = dict.fromkeys((0, 2, 3), getattr(Dim, 'DYNAMIC', None))
needs_dynamic = pytest.mark.skipif(not hasattr(Dim, 'DYNAMIC'), reason='exporting dynamic sizes needs torch 2.6')


@pytest.mark.slow
@pytest.mark.parametrize('options, backend', [({}, 'aot_eager'), (dict(use_grn=True), 'inductor')], ids=['v1', 'v2'])
def test_compiled_as_one_graph_in_inference_and_training(options, backend):
    """Inductor's code, which takes a minute to compile, for V2 alone: its blocks have all that V1's have."""
    net = small(**options, **(dict(layer_scale_init_value=0.5) if backend == 'inductor' else {}))
    compiled = torch.compile(net, fullgraph=True, backend=backend)
    x = torch.randn(2, 3, 100, 164)
    with torch.no_grad():
        for a, b in zip(compiled(x), net(x), strict=True):
            assert relative_error(a, b) < 1e-5
    expected = gradients(net, x)
    net.zero_grad(set_to_none=True)
    loss_of(compiled(x)).backward()
    for name, param in net.named_parameters():
        assert relative_error(param.grad, expected[name]) < 1e-5, name


@needs_dynamic
@V1_V2
def test_exported_program_works_at_other_sizes(options):
    net = small(**options).eval()
    program = export(net, (torch.randn(2, 3, 100, 164),), dynamic_shapes={'x': DYNAMIC})
    operators = {str(node.target) for node in program.graph.nodes if node.op == 'call_function'}
    assert not any('convnext_dense' in name or 'mkldnn' in name for name in operators), 'standard operators only'
    for shape in ((1, 3, 64, 128), (3, 3, 224, 200)):
        x = torch.randn(shape)
        for a, b in zip(program.module()(x), net(x), strict=True):
            assert relative_error(a, b.detach()) < 1e-5


@pytest.mark.slow
@needs_dynamic
@V1_V2
def test_onnx_runtime_computes_the_same(options):
    onnxruntime = pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    net = small(**options).eval()
    program = torch.onnx.export(net, (torch.randn(2, 3, 100, 164),), dynamo=True, dynamic_shapes=(DYNAMIC,))
    buffer = io.BytesIO()
    program.save(buffer)
    session = onnxruntime.InferenceSession(buffer.getvalue(), providers=['CPUExecutionProvider'])
    for shape in ((1, 3, 64, 128), (3, 3, 224, 200)):
        x = torch.randn(shape)
        found = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        with torch.no_grad():
            for a, b in zip(found, net(x), strict=True):
                assert relative_error(torch.from_numpy(a), b) < 1e-5


def test_jit_trace_counts_standard_operators():
    """mmengine's complexity analysis traces: it must meet operators that it knows."""
    net = small().eval()
    graph = str(torch.jit.trace(net, torch.randn(1, 3, 64, 64), check_trace=False).inlined_graph)
    assert 'aten::linear' in graph and 'mkldnn' not in graph and 'convnext_dense::' not in graph


def map_copies(net, x, backward: bool) -> list[str]:
    """Copies of (N, C, H, W) maps that the profiler sees, as 'operator shape'."""
    with torch.profiler.profile(record_shapes=True) as profile:
        maps = net(x)
        if backward:  # gradients as a channels-last head sends them; those of a mean are strided with zeros
            torch.autograd.backward(maps, [torch.randn_like(m) for m in maps])
    return [f'{event.name} {event.input_shapes[0]}' for event in profile.events()
            if event.name in ('aten::copy_', 'aten::clone', 'aten::contiguous')
            and event.input_shapes and len(event.input_shapes[0]) == 4 and event.input_shapes[0][0] == len(x)]


@V1_V2
def test_profiler_sees_no_layout_copy(options, figure):
    """From the stem to the outputs, forward: the image's own conversion to channels-last and nothing else."""
    net = small(**options, channels_last=True)
    x = torch.randn(5, 3, 64, 96)  # five samples: no weight has a leading dimension of five
    with torch.no_grad():
        found = set(map_copies(net, x, backward=False))
        assert 'aten::copy_ [5, 3, 64, 96]' in found, 'the profiler sees copies'
        assert found <= {f'{op} [5, 3, 64, 96]' for op in ('aten::copy_', 'aten::clone', 'aten::contiguous')}
        channels_last = x.contiguous(memory_format=torch.channels_last)
        copies = [line for line in map_copies(net, channels_last, backward=False) if 'contiguous' not in line]
    figure(f'layout copies of maps in a channels-last forward pass {options}: {len(copies)}')
    assert copies == []


def test_profiler_sees_no_layout_copy_in_training():
    """Backward: only the zero padding that the depthwise weight gradient starts from, one per block."""
    net = small(channels_last=True)
    x = torch.randn(5, 3, 64, 96).contiguous(memory_format=torch.channels_last)
    copies = [line for line in map_copies(net, x, backward=True) if line.startswith('aten::copy_')]
    assert len(copies) == sum(net.depths)


REORDERS = '''
import torch
from convnext_dense.models import ConvNeXt
net = ConvNeXt(dict(depths=[1, 1, 1, 1], channels=[16, 32, 48, 64]), channels_last=True).eval()
x = torch.randn(5, 3, 64, 96).contiguous(memory_format=torch.channels_last)
with torch.no_grad():
    net(x)
'''


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason='this PyTorch has no oneDNN')
def test_onednn_reorders_no_map():
    """Below PyTorch: oneDNN's own log shows reorders of weights only (five samples lead every map's shape)."""
    result = subprocess.run([sys.executable, '-c', REORDERS], env={**os.environ, 'ONEDNN_VERBOSE': '1'},
                            capture_output=True, text=True, check=True)
    lines = [line.split(',') for line in result.stdout.splitlines() if line.startswith('onednn_verbose,')]
    lines = [line for line in lines if 'exec' in line]
    assert sum('convolution' in line for line in lines) == 8, 'the log is there: four depthwise, four others'
    shapes = [field for line in lines if 'reorder' in line for field in line if re.fullmatch(r'\d+(x\d+)+', field)]
    assert shapes and not any(shape.startswith('5x') for shape in shapes)


IMPORTS = '''
import importlib.abc, sys
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('mmdet', 'mmseg', 'mmpretrain', 'mmcv', 'torchvision', 'timm', 'transformers'):
            raise ImportError(f'{name} is blocked')
sys.meta_path.insert(0, Blocker())
import torch, types
package = types.ModuleType('convnext_dense')  # models and optim alone, without the package's own preparations
package.__path__ = [FOLDER]
sys.modules['convnext_dense'] = package
from convnext_dense import models, optim
models.ConvNeXt(dict(depths=[1, 1, 1, 1], channels=[8, 8, 8, 8]))(torch.randn(1, 3, 32, 32))
models.RoadmapNet('depthwise')
third = {name.split('.')[0] for name in sys.modules} & {'mmdet', 'mmseg', 'mmpretrain', 'mmcv', 'torchvision'}
assert not third, third
'''


def test_models_and_optim_import_torch_and_mmengine_only(repo_root):
    code = IMPORTS.replace('FOLDER', repr(str(repo_root / 'convnext_dense')))
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@V1_V2
def test_gpu_computes_what_the_cpu_does(options):
    net = small(**options, channels_last=True)
    x = torch.randn(2, 3, 100, 164)
    expected = [m.detach() for m in net(x)], gradients(net, x)
    net.cuda()
    with exact_float32():
        for a, b in zip(net(x.cuda()), expected[0], strict=True):
            assert relative_error(a.cpu(), b) < 1e-5 and a.is_contiguous(memory_format=torch.channels_last)
        for name, grad in gradients(net, x.cuda()).items():
            assert relative_error(grad.cpu(), expected[1][name]) < 1e-4, name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_gpu_half_precision_is_close_and_copies_no_map(dtype):
    net = small().cuda()
    x = torch.randn(5, 3, 64, 96, device='cuda').contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = net(x)
        with torch.autocast('cuda', dtype):
            for a, b in zip(net(x), expected, strict=True):
                assert relative_error(a.float(), b) < (0.05 if dtype == torch.bfloat16 else 0.01)
        half = small(channels_last=True).cuda().to(dtype)
        copies = [line for line in map_copies(half, x.to(dtype), backward=False) if 'contiguous' not in line]
    assert copies == []
