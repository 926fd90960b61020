"""tools/benchmark.py annotations, on a small file."""
import json
import subprocess
import sys

import pytest

from convnext_dense.benchmark.annotations import CLASSES, write_annotations
from convnext_dense.datasets.coco_index import open_index


def test_generated_annotations_are_coco(tmp_path):
    write_annotations(tmp_path / 'ann.json', 5, 4)
    index = open_index(tmp_path / 'ann.json')
    assert len(index) == 5 and index.first.tolist() == [0, 4, 8, 12, 16, 20]
    assert [entry['name'] for entry in index.categories] == list(CLASSES)
    image, annotations = index.annotated(3)
    assert [entry['image_id'] for entry in annotations] == [image['id']] * 4
    assert len({entry['id'] for number in range(5) for entry in index.annotated(number)[1]}) == 20


@pytest.mark.slow
@pytest.mark.long
def test_table(repo_root, tmp_path):
    """mmdet's memory grows with the file, ours does not."""
    command = [sys.executable, 'tools/benchmark.py', 'annotations', '--images', '6000', '--objects', '12', '--workers',
               '1', '--ranks', '1', '--samples', '300', '--json', str(tmp_path / 'result.json')]
    done = subprocess.run(command, cwd=repo_root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'of annotations' in done.stdout and len(done.stdout.splitlines()) == 6
    rows = json.loads((tmp_path / 'result.json').read_text())['rows']
    growth = {name: (sum(row['pss']) - sum(row['without'])) / len(row['pss']) / 2**20 for name, row in rows.items()}
    assert len({row['images'] for row in rows.values()}) == 1
    assert growth['ours'] < 15 < 30 < growth['mmdet']
