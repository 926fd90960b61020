"""AP is the same to the last bit for one, two and three gloo processes, whatever share each has."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from coco_cases import indexed, random_case

from convnext_dense.evaluation.coco_eval import evaluate

RANK = Path(__file__).with_name('coco_rank.py')


def evaluate_with(ranks: int, images: int, folder: Path, batch: int = 1, round_up: bool = True) -> list[dict]:
    """What each of the processes found."""
    folder.mkdir()
    settings = (ranks, images, batch, int(round_up), folder)
    processes = [subprocess.Popen([sys.executable, RANK, *map(str, (rank, *settings))], cwd=folder,
                                  env={**os.environ, 'OMP_NUM_THREADS': '1'}) for rank in range(ranks)]
    assert [process.wait(timeout=300) for process in processes] == [0] * ranks
    assert not (folder / '.dist_test').exists(), 'results went through files in the working directory'
    return [json.loads((folder / f'{rank}.json').read_text()) for rank in range(ranks)]


def check(found: list[dict], images: int) -> None:
    content, detections = random_case(3, images=images, objects=6, found=15)
    first, *others = found
    for kind in ('bbox', 'segm'):
        alone = evaluate(indexed(content), detections, kind, max_dets=[100, 300, 1000])
        assert json.dumps(first['exact'][kind]) == json.dumps(alone.stats()), kind  # as text, where nan equals nan
    assert len(first['metrics']) > 15
    assert all(json.dumps(other['metrics']) == json.dumps(first['metrics']) for other in others)
    assert all(other['exact'] == {} for other in others), 'only rank 0 computes'


@pytest.mark.slow
def test_two_processes_with_unequal_shares(tmp_path):
    found = evaluate_with(2, 5, tmp_path / 'padded')
    assert [one['seen'] for one in found] == [3, 3], 'one image is seen twice'
    check(found, 5)


@pytest.mark.slow
@pytest.mark.parametrize('ranks, images, batch, round_up', [(3, 7, 2, False), (3, 2, 1, False)])
def test_any_number_of_processes(tmp_path, ranks, images, batch, round_up):
    found = evaluate_with(ranks, images, tmp_path / 'run', batch, round_up)
    if ranks > images:
        assert found[-1]['seen'] == 0, 'one process has no image'
    check(found, images)
