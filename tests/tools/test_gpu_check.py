"""`make gpu`: limits and table, and on the CPU that every command of it runs."""
import sys

import gpu_check
import pytest
from gpu_check import Step, run_steps, table

from convnext_dense.benchmark.operator_cases import roi_pool_cases
from convnext_dense.benchmark.operators import compare_devices
from convnext_dense.cli import check_ops


def python(code: str) -> list:
    return [sys.executable, '-S', '-c', code]


def test_limits_failures_and_the_table(tmp_path, capsys):
    todo = [Step('good', python('print(\'first\'); print("= 3 passed =")'), 20, gpu_check.last_line),
            Step('bad', python('print("why"); raise SystemExit(3)'), 20, gpu_check.last_line),
            Step('unreadable', python(''), 20, lambda folder, output: {}['missing']),
            Step('slow', python('import time; time.sleep(60)'), 0.5, gpu_check.last_line),
            Step('late', python('print("never")'), 20, gpu_check.last_line)]
    rows = run_steps(todo[:4], tmp_path, 60) + run_steps(todo[4:], tmp_path, 1)
    assert [row['state'] for row in rows] == ['ok', 'failed', 'failed', 'timed out', 'no time left']
    assert [row['text'] for row in rows[:2]] == ['3 passed', 'why'] and "'missing'" in rows[2]['text']
    assert rows[3]['seconds'] < 20
    assert '| good | 0 | ok | 3 passed |' in table(rows) and 'why' in capsys.readouterr().out


def test_result_of_a_training_step():
    output = """header

2 images a step

| images per second | 1.50 | 3.25 |
| waits | 231 | 4 |
stock / ours: median 2.17, 2.00 to 2.30

8 images a step

out of memory"""
    assert gpu_check.training_step(None, output) == \
        '2 images: 2.17x, 3.25 images/s, 4 waits (stock 231); 8 images: out of memory'


def test_result_of_the_operators(capsys):
    rows = [dict(operator='nms', option='offset 0', cases=4, differ=1, largest=0.0, value=0.0),
            dict(operator='roi_align_forward', option='avg tied', cases=4, differ=0, largest=2.5e-6, value=9.0)]
    check_ops.print_table(rows, 'ours on cuda against themselves on the CPU, float32')
    assert gpu_check.operators(None, capsys.readouterr().out) == \
        '2 rows; largest difference 2.5e-06 (roi_align_forward), 1 with other indices'
    same = compare_devices('cpu', (roi_pool_cases,))
    assert len(same) > 0 and all(row['largest'] == row['differ'] == 0 < row['cases'] for row in same)


@pytest.mark.slow
def test_every_command_runs_on_a_cpu(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '-1')
    code = gpu_check.main(['--dry-run', '--out', str(tmp_path), '--limit', '600'])
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines[lines.index('| what | seconds | state | result |') + 2:]]
    assert code == 0 and len(rows) == 9 and all('| ok |' in row for row in rows), rows
    for name, result in (('training step, det', 'waits (stock'), ('training step, seg', 'waits (stock'),
                         ('fused kernels', '0 spill'), ('train, det', 'coco/segm_mAP'), ('train, seg', 'mIoU')):
        assert result in next(row for row in rows if row.startswith(f'| {name}'))
