"""tools/benchmark.py backbone and tools/roadmap.py: what they measure and how they reckon."""
import json

import pytest
import torch
from networks import randomize, relative_error
from tool_runs import must_run
from torch import nn

from convnext_dense import ConvNeXt
from convnext_dense.benchmark import backbone, peers, timing
from convnext_dense.benchmark.roadmap import count_macs
from convnext_dense.errors import UserError


def test_macs_by_closed_form():
    """ConvNeXt-T at 64x96, stage by stage: 49 C + 8 C^2 per position and block, stem 48 C, downsampling 4 C C'."""
    depths, dims = (3, 3, 9, 3), (96, 192, 384, 768)
    expected, before = 0, 12  # the stem is a 4x4 patch of 3 channels: four times 12 inputs
    for i, (depth, dim) in enumerate(zip(depths, dims, strict=True)):
        positions = (64 >> i + 2) * (96 >> i + 2)
        expected += positions * (4 * before * dim + depth * (49 * dim + 8 * dim * dim))
        before = dim
    with torch.device('meta'):
        assert count_macs(ConvNeXt('tiny'), 64, 96) == expected
    assert count_macs(ConvNeXt('tiny'), 64, 96) == expected, 'and through the CPU kernels of our own'


def test_rounds_are_interleaved():
    calls = []
    times = timing.interleaved_times({name: lambda name=name: calls.append(name) for name in 'ab'}, rounds=3, warmup=1)
    assert calls == ['a', 'b', 'a', 'b', 'a', 'b', 'a', 'b'] and [len(t) for t in times.values()] == [3, 3]


def test_peak_memory_counts_bytes_held_at_once():
    def step():
        first = torch.empty(1000, dtype=torch.float32)
        del first
        return torch.empty(500), torch.empty(700)
    assert backbone.peak_memory(step, 'cpu') == 4 * (500 + 700)


def test_a_peer_that_computes_something_else_is_refused():
    a, b = torch.ones(3), torch.ones(3) * 1.01
    with pytest.raises(ValueError, match='timm differs from ours by 1.0e-02'):
        backbone.check_same('timm', [b], [a], torch.float32)


def test_float32_is_computed_without_tf32_and_the_flags_come_back(monkeypatch):
    """On Ampere and newer, cuDNN's default TF32 would make the naive peer's 1x1 convolutions fail the check."""
    backends = torch.backends.cudnn, torch.backends.cuda.matmul
    seen = []

    class Net(nn.Module):
        def forward(self, x):
            seen.append([backend.allow_tf32 for backend in backends])
            return [x]
    monkeypatch.setattr(backbone, 'SIDE', 8)
    setting = backbone.BackboneSetting(size=(4, 4), rounds=1, memory=False)
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = True
        backbone.run_group(setting, {'ours': Net(), 'peer': Net()}, torch.float32, 'forward', 1)
        assert len(seen) >= 6 and not any(map(any, seen))
        assert all(backend.allow_tf32 for backend in backends)
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_peers_pass_the_check_on_a_gpu():
    setting = backbone.BackboneSetting(size=(64, 64), rounds=1, device='cuda', dtypes=('float32',), memory=False)
    assert {row['name'] for row in backbone.benchmark_backbone(setting)['rows']} >= {'ours', 'naive'}


def test_peers_have_our_weights():
    """Every peer's maps at a small size, all tensors random: a wrong name or layout would show."""
    torch.manual_seed(0)
    ours = randomize(ConvNeXt('tiny', output_norm=False)).eval()
    x = torch.randn(1, 3, 64, 64)
    found = peers.build_peers(ours, 'tiny')
    assert set(found) == set(peers.PEERS)
    with torch.no_grad():
        expected = ours(x)
        for name, peer in found.items():
            assert all(relative_error(a, b) < 1e-5 for a, b in zip(peer(x), expected, strict=True)), name


def test_bad_settings_are_one_clear_sentence():
    with pytest.raises(UserError, match="sizes tiny, small, base, large, not 'atto'"):
        backbone.benchmark_backbone(backbone.BackboneSetting(arch='atto'))
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match='--device cuda needs a GPU'):
            backbone.benchmark_backbone(backbone.BackboneSetting(device='cuda'))


@pytest.mark.slow
def test_backbone_benchmark_runs_every_peer_and_reckons_right(tmp_path):
    out = tmp_path / 'result.json'
    finished = must_run('benchmark', 'backbone', '--size', 64, 64, '--rounds', 1, '--dtypes', 'float32',
                        '--groups', 'forward', 'forward+backward', '--threads', 1, '--json', out)
    result = json.loads(out.read_text())
    for group in ('forward', 'forward+backward'):
        rows = [row for row in result['rows'] if row['group'] == group]
        floors = {row['layout']: row['median_ms'] for row in rows if row['name'] == 'floor'}
        rows = [row for row in rows if row['name'] != 'floor']
        others = [row for row in rows if not row['name'].startswith('ours')]
        assert {row['name'] for row in others} == set(peers.PEERS)
        fastest = min(row['median_ms'] for row in others)
        for row in rows:
            assert row['of_fastest_peer'] == pytest.approx(row['median_ms'] / fastest)
            assert row['of_floor'] == pytest.approx(row['median_ms'] / floors['torch'])
            assert row['of_fastest_floor'] == pytest.approx(row['median_ms'] / min(floors.values()))
            assert row['peak_mb'] > 0 and row['error'] < 1e-5
    assert 'forward+backward, float32' in finished.out


@pytest.mark.slow
def test_ours_needs_no_more_memory_than_any_peer(figure):
    """Allocations of one ConvNeXt-T forward pass at 256x256, which do not depend on the machine's speed."""
    ours = ConvNeXt('tiny', output_norm=False, layer_scale_init_value=0.5).eval()
    image = torch.randn(1, 3, 256, 256)

    def peak(net: nn.Module) -> float:
        step = backbone.inference_step(net, image)
        step()
        return backbone.peak_memory(step, 'cpu') / 1e6
    found = {'ours': peak(ours)} | {name: peak(net) for name, net in peers.build_peers(ours, 'tiny').items()}
    figure('peak MB of a ConvNeXt-T forward pass at 256x256: ' + ', '.join(f'{k} {v:.1f}' for k, v in found.items()))
    assert found['ours'] <= min(found.values())


def test_roadmap_tool_prints_every_step():
    table = must_run('roadmap').out
    assert '| resnet50 | 25.56 | 4.09 | 78.82 |' in table
    assert '| separate_downsampling | 28.58 | 4.46 | 81.97 |' in table
