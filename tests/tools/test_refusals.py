"""Places that cannot be written, output that nobody reads, --help without torch, Ctrl-C while a command starts."""
import importlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tool_runs import ROOT, kill, launch, run_tool

from convnext_dense.checkpoints.converting import TABLES
from convnext_dense.cli import COMMANDS, running
from convnext_dense.models import REGIMES
from convnext_dense.projects import choose
from convnext_dense.visualization import draw

NAMES = [name for names in COMMANDS.values() for name in names]
HEAVY = ('torch', 'mmengine', 'mmcv', 'mmdet', 'mmseg', 'matplotlib')
READ_ONLY = Path('/sys/kernel')  # whoever runs the tests, root included, can create nothing there


def command_line(name: str, run, shapes) -> tuple:
    data = ('--data-root', run.data_root)
    return {
        'convert_dataset': (shapes / 'coco', READ_ONLY / 'out', '--from', 'coco'),
        'check_dataset': (shapes / 'coco', '--json', READ_ONLY / 'out.json', '--workers', 0),
        'browse_dataset': (run.config, *data, '--number', 1, '--out', READ_ONLY / 'out.png'),
        'make_shapes': ('--out', READ_ONLY / 'out', '--train', 1, '--val', 1),
        'train': (run.config, *data, '--work-dir', READ_ONLY / 'out'),
        'test': (run.config, run.checkpoint, *data, '--work-dir', READ_ONLY / 'out'),
        'report': (run.work_dir, '--checkpoint', run.checkpoint, '--out', READ_ONLY / 'out.html'),
        'predict': (run.work_dir, shapes / 'ade/images/validation', '--out', READ_ONLY / 'out'),
        'convert_checkpoint': (run.checkpoint, READ_ONLY / 'out.pth'),
    }[name]


@pytest.mark.skipif(not READ_ONLY.is_dir(), reason=f'no {READ_ONLY} here')
@pytest.mark.parametrize('name', ['convert_dataset', 'check_dataset', 'browse_dataset', 'make_shapes', 'train', 'test',
                                  'report', 'predict', 'convert_checkpoint'])
def test_a_place_that_cannot_be_written_is_one_sentence(name, trained, shapes):
    run = trained('seg')
    before = sorted(run.work_dir.rglob('*'))
    line = run_tool(name, *command_line(name, run, shapes), cwd=run.cwd).error
    assert str(READ_ONLY) in line and ('cannot be' in line or 'cannot write' in line), line
    assert '.part' not in line
    assert sorted(run.work_dir.rglob('*')) == before  # the report refuses before it evaluates


def test_errors_name_commands_as_the_user_called_this_one(tmp_path, monkeypatch, capsys):
    """Beside `python tools/X.py` there is `convnext-dense X`; a sentence names the way that was used."""
    assert 'a work dir of tools/train.py or tools/test.py' in run_tool('report', tmp_path).error
    for words, expected in ((['report', str(tmp_path)], 'a work dir of convnext-dense train or convnext-dense test'),
                            (['predict', '--help'], '  convnext-dense predict CONFIG.py CHECKPOINT INPUT')):
        monkeypatch.setattr(sys, 'argv', ['convnext-dense', *words])
        with pytest.raises(SystemExit):
            importlib.import_module('convnext_dense.cli').main()
        printed = capsys.readouterr()
        assert expected in printed.out + printed.err and 'tools/' not in printed.out + printed.err


@pytest.mark.parametrize('split', ['train', 'val'])
def test_wrong_class_names_of_a_preview_are_one_sentence(split, trained, shapes):
    option = f'{split}_dataloader.dataset.metainfo=dict(classes=("ring", "box", "tent"))'
    line = run_tool('browse_dataset', trained('det').config, '--data-root', shapes / 'coco', '--split', split,
                    '--cfg-options', option).error
    assert '3 of the 3 classes' in line and 'ring' in line and 'circle, square, triangle' in line


def test_a_reader_that_goes_away_ends_a_command_quietly(monkeypatch, capfd):
    def print_to_nobody():
        raise BrokenPipeError(32, 'Broken pipe')
    monkeypatch.setattr(sys, 'argv', ['convnext-dense model_info'])
    monkeypatch.setattr(sys, 'stdout', open(os.devnull, 'w'))
    with pytest.raises(SystemExit) as stopped:
        running.run_tool(print_to_nobody)
    assert stopped.value.code == 141 and capfd.readouterr().err == ''


def test_help_needs_neither_torch_nor_the_mm_packages(tmp_path):
    """All commands' --help in processes that cannot import them."""
    source = f'import sys; sys.modules.update(dict.fromkeys({HEAVY}))\n' \
             'sys.argv = sys.orig_argv = ["convnext-dense"]\n' \
             'import io, contextlib, convnext_dense.cli as cli\n' \
             f'for name in {NAMES}:\n' \
             '    sys.argv = ["convnext-dense", name, "--help"]\n' \
             '    text = io.StringIO()\n' \
             '    try:\n' \
             '        with contextlib.redirect_stdout(text): cli.main()\n' \
             '    except SystemExit as done: print(name, done.code, text.getvalue().splitlines()[0])\n'
    done = subprocess.run([sys.executable, '-c', source], text=True, capture_output=True, cwd=tmp_path,
                          env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert done.stderr == ''
    shown = re.findall(r'^(\w+) 0 usage: convnext-dense (\w+)', done.stdout, re.M)
    assert [name for name, _ in shown] == NAMES and all(name == used for name, used in shown)


def test_data_is_made_and_converted_without_torch(tmp_path):
    """In a process that cannot import torch and the MM packages, which take seconds."""
    source = f'import sys; sys.modules.update(dict.fromkeys({HEAVY}))\n' \
             'sys.argv = sys.orig_argv = ["convnext-dense", *sys.argv[1:]]\n' \
             'import convnext_dense.cli as cli\n' \
             'cli.main()\n'
    for words in (['make_shapes', '--out', 'shapes', '--train', '2', '--val', '1'],
                  ['convert_dataset', 'shapes/coco', 'yolo', '--to', 'yolo'],
                  ['convert_dataset', 'yolo', 'again']):
        done = subprocess.run([sys.executable, '-c', source, *words], text=True, capture_output=True, cwd=tmp_path,
                              env={**os.environ, 'PYTHONPATH': str(ROOT)})
        assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / 'again').rglob('*.jpg'))) == 3


def test_words_on_a_command_line_are_those_of_the_package():
    """Repeated in `cli`, because the modules that define them need torch."""
    cli = {name: importlib.import_module(f'convnext_dense.cli.{name}') for name in NAMES}
    assert cli['convert_checkpoint'].FORMATS == tuple(TABLES)
    assert cli['roadmap'].REGIMES == tuple(REGIMES)
    assert cli['new_project'].STARTS == choose.STARTS
    assert set(cli['new_project'].MODELS) == {*choose.DEFAULT_MODEL.values(), *choose.MODELS['det'],
                                              *choose.MODELS['seg']}
    assert cli['new_project'].ARCHITECTURES == tuple(choose.BASES['det']) == tuple(choose.BASES['seg'])
    assert (cli['predict'].HIDEABLE, cli['predict'].COLOUR_BY) == (draw.HIDEABLE, draw.COLOUR_BY)


@pytest.mark.parametrize('words, expected', [
    (['tran'], r"error: convnext-dense has no command 'tran': did you mean train( or \w+)?\?"),
    (['check-data'], r"error: .* 'check-data': did you mean check_dataset or check_\w+\?"),
    (['xyzzy'], "error: convnext-dense has no command 'xyzzy': convnext-dense --help lists all")])
def test_an_unknown_command_is_answered_with_the_nearest(words, expected, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['convnext-dense', *words])
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module('convnext_dense.cli').main()
    assert stopped.value.code == 2 and re.fullmatch(expected, capsys.readouterr().err.strip())


@pytest.mark.parametrize('name, near', [
    ('mask-rcnn_convnext-t', 'mask-rcnn_convnext-t-in1k_fpn_8xb2-amp-ms-crop-3x_coco.py'), ('zzz.py', None)])
def test_a_wrong_config_is_answered_with_few_names(name, near):
    line = run_tool('model_info', name).error
    assert len(re.findall(r'configs/\w+/', line)) <= 3 and (near is None or near in line)
    assert near or 'configs of the package (docs/recipes.md)' in line


@pytest.mark.slow
@pytest.mark.parametrize('seconds', [0.15, 0.6, 2])
def test_ctrl_c_while_a_command_starts(seconds, tmp_path):
    """Imports take seconds; an interrupt among them is one line, too."""
    log = tmp_path / 'log'
    process = launch([sys.executable, ROOT / 'tools/model_info.py',
                      'det/mask-rcnn_convnext-t-in1k_fpn_8xb2-amp-ms-crop-3x_coco.py'], log, tmp_path)
    try:
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGINT)
        code = process.wait(60)
    finally:
        kill(process)
    if seconds > 0.5:  # before, python itself may not have begun to run ours
        assert 'Traceback' not in log.read_text() and code == 130
        assert log.read_text().splitlines()[-1] == 'interrupted'


def test_ctrl_c_while_an_import_swallows_exceptions(tmp_path):
    """As extension modules of torch do, where an exception of python's is lost or ends the process with an abort."""
    log = tmp_path / 'log'
    process = launch([sys.executable, '-c', f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from convnext_dense.cli import running
def prepare():
    print('importing', flush=True)
    try:
        time.sleep(60)
    except BaseException:
        pass
running.convnext_dense.prepare = prepare
running.run_tool(lambda: print('ran on'))
"""], log, tmp_path)
    try:
        while 'importing' not in log.read_text() and process.poll() is None:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(30) == 130
    finally:
        kill(process)
    assert log.read_text().splitlines() == ['importing', 'interrupted']
