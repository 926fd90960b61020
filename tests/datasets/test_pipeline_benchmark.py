"""tools/benchmark.py pipeline compares what it times, and says so when the results differ."""
import copy
import json
import subprocess
import sys
from statistics import median

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData

from convnext_dense.benchmark.pipeline import RECIPES, check_same
from convnext_dense.errors import UserError


def sample() -> dict:
    packed = DetDataSample(metainfo=dict(img_shape=(4, 5), flip=False))
    packed.gt_instances = InstanceData(bboxes=HorizontalBoxes(torch.tensor([[0.0, 1, 2, 3]])), labels=torch.tensor([3]),
                                       masks=BitmapMasks(np.eye(4, 5, dtype=np.uint8)[None], 4, 5))
    return dict(inputs=torch.zeros(3, 4, 5, dtype=torch.uint8), data_samples=packed)


def change_input(sample):
    sample['inputs'][1, 2, 3] = 1


def change_type(sample):
    sample['inputs'] = sample['inputs'].int()


def change_box(sample):
    sample['data_samples'].gt_instances.bboxes.tensor[0, 2] += 1e-6


def change_label(sample):
    sample['data_samples'].gt_instances.labels[0] = 4


def change_mask(sample):
    sample['data_samples'].gt_instances.masks.masks[0, 0, 4] = 1


def change_meta(sample):
    sample['data_samples'].set_metainfo(dict(flip=True))


def drop_labels(sample):
    del sample['data_samples'].gt_instances.labels


@pytest.mark.parametrize('change, part', [
    (change_input, 'inputs'), (change_type, 'inputs'), (change_box, 'bboxes'), (change_label, 'labels'),
    (change_mask, 'masks'), (change_meta, 'flip'), (drop_labels, 'keys')])
def test_any_difference_is_named(change, part):
    check_same(sample(), sample(), 'here')
    other = copy.deepcopy(sample())
    change(other)
    with pytest.raises(UserError, match=f'here.*{part}'):
        check_same(sample(), other, 'here')


@pytest.mark.parametrize('options, sentence', [
    (['--rounds', '0'], '--rounds must be at least 1'), (['--data', 'nowhere'], 'nowhere.*does not exist'),
    (['--threads', '2'], 'measured in one thread')])
def test_wrong_arguments_are_named(options, sentence, tmp_path, monkeypatch):
    from convnext_dense.cli import benchmark
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=sentence):
        benchmark.main(['pipeline', *options])
    torch.set_num_threads(1)


@pytest.mark.slow
def test_the_tool_prints_every_ratio(real_data, repo_root, tmp_path):
    command = [sys.executable, repo_root / 'tools/benchmark.py', 'pipeline', '--data', real_data, '--samples', 20,
               '--json', 'out.json']
    done = subprocess.run(list(map(str, command)), cwd=tmp_path, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    print('\n' + done.stdout)
    rows = json.loads((tmp_path / 'out.json').read_text())['recipes']
    assert [f'{row["config"]}.py' for row in rows] == [name.rpartition('/')[2] for name in RECIPES]
    assert len(rows) == len(RECIPES)
    for row in rows:
        assert len(row['ratios']) == 5 and f'| {median(row["ratios"]):.2f} |' in done.stdout
        assert sum(time for _, time in row['ours_steps']) == pytest.approx(row['ours_ms'], rel=0.3)
        assert [name.removeprefix('Fast') for name, _ in row['ours_steps']] == [name for name, _ in row['stock_steps']]
