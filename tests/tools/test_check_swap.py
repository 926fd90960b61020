"""Our backbone in stock configs of mmdet and mmseg: the sweep, and the table of it in the docs."""
import importlib
from pathlib import Path

import mmdet
import mmseg
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope

from convnext_dense.benchmark import swap
from convnext_dense.benchmark.swap import parallel, trial
from convnext_dense.benchmark.swap.inputs import make_batch
from convnext_dense.cli.running import run_tool
from convnext_dense.mm.environment import versions

TABLE = Path(__file__).resolve().parents[2] / 'docs/swap.md'
PACKAGES = {'mmdet': mmdet, 'mmseg': mmseg}
# folders whose configs once failed behind our backbone, or whose operators only a compiled mmcv had
ONCE_BROKEN = {'mmseg': ['dmnet', 'psanet', 'fastfcn', 'ocrnet'],
               'mmdet': ['carafe', 'dcn', 'dcnv2', 'guided_anchoring', 'dyhead', 'ddod', 'deformable_detr',
                         'mask2former', 'retinanet', 'cornernet']}


def test_the_table_keeps_the_rows_of_other_folders(tmp_path):
    rows = [trial.Row('mmdet', 'b', 'b.py', 'works', '', 'ResNet'),
            trial.Row('mmdet', 'a', 'a.py', 'not swappable', 'one: two', 'UNet, VGG'),
            trial.Row('mmseg', 'b', '', 'other task', 'has none')]
    swap.write_table(rows, tmp_path / 'swap.md')
    changed = trial.Row('mmdet', 'b', 'c.py', 'fails', 'x', 'ResNet with dcn')
    swap.write_table([changed], tmp_path / 'swap.md')
    assert swap.read_table(tmp_path / 'swap.md') == [rows[1], changed, rows[2]]
    assert '3 folders: 1 not swappable, 1 fails, 1 other task.' in (tmp_path / 'swap.md').read_text()


@pytest.mark.skipif('onedl-mmdetection' in versions(), reason='the table is of mmdet and mmseg, not of their forks')
def test_the_table_in_the_docs_has_every_folder_of_stock_configs():
    folders = {(name, path.parent.name) for name, package in PACKAGES.items()
               for path in (Path(package.__file__).parent / '.mim/configs').glob('*/*.py')}
    assert len(folders) > 130
    assert {(row.package, row.folder) for row in swap.read_table(TABLE)} == {
        (name, folder) for name, folder in folders if folder != '_base_'}


def test_what_does_not_work_has_a_reason_in_the_docs():
    rows = swap.read_table(TABLE)
    assert sum(row.outcome == 'works' for row in rows) > 100
    for row in rows:
        assert row.outcome == 'works' or row.reason, row
        assert row.outcome in ('works', 'not swappable', 'other task', 'needs a package', 'fails in stock'), row


def test_swap_maps_the_channels_of_what_reads_the_maps():
    backbone = dict(type='ResNet', depth=18, num_stages=4, out_indices=(0, 1, 2, 3),
                    init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18'))
    neck = dict(type='FPN', in_channels=[64, 128, 256, 512], out_channels=16, num_outs=5)
    found = swap.swap(ConfigDict(backbone=backbone, neck=neck, bbox_head=dict(in_channels=16)), 'mmdet')
    assert found.backbone == dict(type='ConvNeXt', arch='atto', out_indices=(0, 1, 2, 3))
    assert found.neck == {**neck, 'in_channels': [40, 80, 160, 320]} and found.bbox_head.in_channels == 16

    dilated = {**backbone, 'dilations': (1, 1, 2, 4), 'strides': (1, 2, 1, 1)}  # strides 4, 8, 8, 8
    head = dict(type='DepthwiseSeparableASPPHead', in_channels=512, in_index=3, c1_in_channels=64, channels=128)
    found = swap.swap(ConfigDict(backbone=dilated, decode_head=head,
                                 auxiliary_head=[dict(in_channels=256, in_index=2)]), 'mmseg')
    assert found.decode_head == {**head, 'in_channels': 320, 'c1_in_channels': 40}
    assert found.auxiliary_head[0].in_channels == 160

    with pytest.raises(swap.NotSwappable, match=r'strides \[16, 16\], which are no pyramid'):
        swap.swap(ConfigDict(backbone=dict(type='VisionTransformer', img_size=256, patch_size=16, embed_dims=8,
                                           num_layers=2, num_heads=1, out_indices=(0, 1)), decode_head=head), 'mmseg')


def fake_trial(package, folder, device, amp):
    """What a process of the sweep runs in the next test."""
    if folder == 'hangs':
        torch.multiprocessing.Event().wait()
    if folder == 'crashes':
        importlib.import_module('os')._exit(11)
    return trial.Row(package, folder, 'a.py', trial.WORKS)


def test_a_crash_or_a_hang_does_not_end_the_sweep(monkeypatch):
    monkeypatch.setattr(parallel, 'try_folder', fake_trial)
    names = [('mmdet', name) for name in ('crashes', 'first', 'hangs', 'second')]
    rows = {row.folder: (row.outcome, row.reason) for row in swap.sweep(names, jobs=2, limit=3)}
    assert rows == {'crashes': ('fails', 'its process ended with exit code 11'), 'first': ('works', ''),
                    'hangs': ('fails', 'not done after 3 seconds'), 'second': ('works', '')}


@pytest.mark.parametrize('arguments, message', [
    (['--folder', 'retinanet', 'no_such'], 'error: --folder no_such: mmdet and mmseg have no such folder of configs'),
    (['--jobs', '0'], 'error: --jobs 0: at least one process is needed')])
def test_bad_arguments_are_one_sentence(capsys, arguments, message):
    main = importlib.import_module('convnext_dense.cli.check_swap').main
    with pytest.raises(SystemExit) as stopped:
        run_tool(lambda: main(arguments))
    assert stopped.value.code == 2
    assert capsys.readouterr().err.strip() == message


def test_a_trial_finds_what_is_wrong():
    """A model that works, and others: loss not finite, loss without a gradient, another backbone."""
    loss = dict(type='CrossEntropyLoss')
    head = dict(type='FCNHead', in_channels=320, in_index=3, channels=4, num_convs=1, num_classes=2,
                norm_cfg=dict(type='BN'), loss_decode=loss)
    model = dict(type='EncoderDecoder', backbone=dict(type='ConvNeXt', arch='atto'), decode_head=head,
                 data_preprocessor=dict(type='SegDataPreProcessor', size=(64, 64)), test_cfg=dict(mode='whole'))
    wrong = [
        ('the loss is (nan|inf)', dict(decode_head={**head, 'loss_decode': {**loss, 'loss_weight': float('inf')}})),
        ('stem has no gradient', dict(decode_head={**head, 'loss_decode': {**loss, 'loss_weight': 0.}})),
        ('our backbone is not', dict(backbone=dict(type='ResNet', depth=18), decode_head={**head, 'in_channels': 512}))]
    with DefaultScope.overwrite_default_scope('mmseg'):
        trial.run(ConfigDict(model), 'mmseg')
        for message, change in wrong:
            with pytest.raises(trial.Finding, match=message):
                trial.run(ConfigDict({**model, **change}), 'mmseg')


@pytest.mark.parametrize('with_rpn', [True, False])
def test_proposals_are_for_models_without_an_rpn(with_rpn):
    """mmdet's two-stage detectors predict from proposals that they are given and skip their own RPN."""
    model = torch.nn.Module()
    model.with_roi_head, model.with_rpn = True, with_rpn
    assert all(('proposals' in sample) != with_rpn for sample in make_batch(model, 'mmdet')['data_samples'])


@pytest.mark.parametrize('stock, outcome', [
    (KeyError('a'), 'fails in stock'), (KeyError('b'), 'fails'), (ValueError('a'), 'fails'), (None, 'fails')])
def test_a_fault_of_stock_is_the_same_error_in_stock(monkeypatch, stock, outcome):
    def run(config, scope, device, amp, ours=True):
        if ours or stock:
            raise KeyError('a') if ours else stock
    monkeypatch.setattr(trial, 'run', run)
    monkeypatch.setattr(trial, 'swap', lambda model, package: model)
    row = trial.attempt('mmdet', Path('folder/a.py'), ConfigDict(type='RetinaNet'))
    assert (row.outcome, row.reason) == (outcome, "KeyError: 'a'")


@pytest.mark.slow
@pytest.mark.long
def test_folders_that_once_failed_work(tmp_path):
    out = tmp_path / 'swap.md'
    importlib.import_module('convnext_dense.cli.check_swap').main(
        ['--folder', *ONCE_BROKEN['mmseg'], *ONCE_BROKEN['mmdet'], '--package', 'mmseg', 'mmdet', '--out', str(out)])
    rows = swap.read_table(out)
    assert {row.folder for row in rows} == {*ONCE_BROKEN['mmseg'], *ONCE_BROKEN['mmdet']}
    assert {row.outcome for row in rows} == {'works'}, rows
