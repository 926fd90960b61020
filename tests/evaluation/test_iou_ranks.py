"""The confusion matrix has the same integers for one, two and three gloo processes, with and without padding."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from iou_rank import CLASSES, sample

RANK = Path(__file__).with_name('iou_rank.py')


def evaluate_with(ranks: int, size: int, folder: Path, batch: int = 1, round_up: bool = True) -> list[dict]:
    """What each of the processes found."""
    folder.mkdir()
    command = [sys.executable, RANK]
    processes = [subprocess.Popen([*command, *map(str, (rank, ranks, size, batch, int(round_up), folder / 'meeting',
                                                        folder / f'{rank}.json'))], cwd=folder,
                                  env={**os.environ, 'OMP_NUM_THREADS': '1'}) for rank in range(ranks)]
    assert [process.wait(timeout=300) for process in processes] == [0] * ranks
    return [json.loads((folder / f'{rank}.json').read_text()) for rank in range(ranks)]


def by_loop(size: int) -> list[list[int]]:
    counts = [[0] * CLASSES for _ in range(CLASSES)]
    for index in range(size):
        maps = sample(index)
        for true, found in zip(*(maps[key]['data'].flatten().tolist() for key in ('gt_sem_seg', 'pred_sem_seg')),
                               strict=True):
            if true != 255:
                counts[true][found] += 1
    return counts


def check(found: list[dict], size: int) -> None:
    expected = by_loop(size)
    print(f'\n{len(found)} processes saw {[one["seen"] for one in found]} of {size} samples; mIoU {found[0]["mIoU"]}')
    assert all(one['matrix'] == expected and one['mIoU'] == found[0]['mIoU'] for one in found)


def test_two_processes_with_unequal_shares(tmp_path):
    found = evaluate_with(2, 5, tmp_path / 'padded')
    assert [one['seen'] for one in found] == [3, 3], 'one sample is seen twice'
    check(found, 5)


@pytest.mark.slow
@pytest.mark.parametrize('ranks, size, batch, round_up', [(1, 7, 2, True), (2, 7, 2, True), (3, 7, 1, True),
                                                          (3, 7, 2, True), (3, 7, 1, False), (2, 8, 3, True),
                                                          (3, 2, 1, True), (3, 2, 1, False)])
def test_any_number_of_processes(tmp_path, ranks, size, batch, round_up):
    check(evaluate_with(ranks, size, tmp_path / 'run', batch, round_up), size)
