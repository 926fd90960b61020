"""Samples from shards and from storage equal those from the folder, bit for bit, with 0 and 2 workers."""
import json
import shutil
import warnings

import fsspec
import numpy as np
import pytest
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, DefaultScope
from tool_runs import CONFIGS
from torch.utils.data import DataLoader

from convnext_dense.benchmark.pipeline import check_same
from convnext_dense.cli import check_dataset
from convnext_dense.config import load_config
from convnext_dense.config.data_files import check_files
from convnext_dense.datasets.shard_writing import write_data_shards
from convnext_dense.engine.samples import SeededItems
from convnext_dense.errors import UserError

RECIPES = {'det': 'det/mask-rcnn_convnext-t-in1k_fpn_8xb2-amp-ms-crop-3x_coco.py',
           'seg': 'seg/upernet_convnext-t-in1k_8xb2-amp-160k_ade20k-512x512.py'}
FOLDERS = {'det': 'coco', 'seg': 'ade/ADEChallengeData2016'}


class Keys(list):
    """A sampler: an index and the key of its random numbers, in a shuffled order."""

    def __init__(self, length: int, count: int):
        order = np.random.default_rng(0).permutation(length)[:count].tolist()
        super().__init__((index, (0, 0, 0, position)) for position, index in enumerate(order))


def samples(task: str, root: str, workers: int, count: int, split: str = 'train') -> list:
    """The first samples of a recipe's training pipeline, in a shuffled order, with random crops and flips."""
    cfg = load_config(RECIPES[task], data_root=root)
    with DefaultScope.overwrite_default_scope(cfg.default_scope), warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)  # mmseg's, about reduce_zero_label
        settings = cfg.train_dataloader.dataset if split == 'train' else \
            {**cfg.val_dataloader.dataset, 'pipeline': cfg.train_dataloader.dataset.pipeline, 'test_mode': False}
        dataset = DATASETS.build(settings)
        check_files(dataset)
        dataset.__getitems__ = SeededItems(dataset)
        loader = DataLoader(dataset, 2, sampler=Keys(len(dataset), count), num_workers=workers,
                            collate_fn=pseudo_collate)
        loaded = [dict(inputs=image, data_samples=sample) for batch in loader
                  for image, sample in zip(batch['inputs'], batch['data_samples'], strict=True)]
        return loaded, [info_of(dataset, index) for index in range(len(dataset))]


def info_of(dataset, index: int) -> tuple:
    info = dataset.get_data_info(index)
    return info['img_path'].split('/')[-1], info.get('img_id')


def without_root(sample: dict) -> dict:
    """Metadata holds the path of the file, whose root is the only thing that differs."""
    data_sample = sample['data_samples']
    for key in ('img_path', 'seg_map_path'):
        if isinstance(data_sample.get(key), str):
            data_sample.set_metainfo({key: data_sample.get(key).split('/')[-1]})
    return sample


def compare(task: str, root: str, others: list[str], count: int, all_workers=(0, 2), split: str = 'train') -> int:
    expected, order = samples(task, root, 0, count, split)
    assert len(expected) == count and min(sample['inputs'].float().std() for sample in expected) > 0
    compared = 0
    for other in others:
        for workers in all_workers:
            found, found_order = samples(task, other, workers, count, split)
            assert found_order == order
            for one, same in zip(expected, found, strict=True):
                check_same(without_root(one), without_root(same), f'{other}, {workers} workers')
                compared += 1
    return compared


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('CONVNEXT_DENSE_CACHE', str(tmp_path / 'cache'))


def places(folder, tmp_path) -> list[str]:
    """The folder as shards, behind a URL, and as shards behind a URL."""
    write_data_shards(folder, tmp_path / 'shards', 4_000_000)
    store = fsspec.filesystem('memory')
    for name, source in (('plain', folder), ('shards', tmp_path / 'shards')):
        store.put(str(source), f'/{tmp_path.name}/{name}', recursive=True)
    return [str(tmp_path / 'shards'), f'memory://{tmp_path.name}/plain', f'memory://{tmp_path.name}/shards',
            f'file://{tmp_path}/shards']


@pytest.mark.slow
@pytest.mark.parametrize('task', RECIPES)
def test_real_samples_from_everywhere_equal_the_folders(task, real_data, tmp_path):
    folder = real_data / FOLDERS[task]
    count = 16 if task == 'det' else 6
    assert compare(task, str(folder), places(folder, tmp_path), count) == 4 * 2 * count


def test_generated_samples_from_shards_equal_the_folders(make_shapes, tmp_path):
    folder = make_shapes(12, 6) / 'ade'
    write_data_shards(folder, tmp_path / 'shards', 20_000)
    assert compare('seg', str(folder), [str(tmp_path / 'shards')], 4, (0,)) == 4


def test_a_file_that_shards_lack_is_named_before_training(make_shapes, tmp_path):
    folder = tmp_path / 'data'
    for file in sorted((make_shapes(12, 6) / 'coco').rglob('*')):
        if file.is_file():
            target = folder / file.relative_to(make_shapes(12, 6) / 'coco')
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(file)
    missing = sorted((folder / 'train2017').iterdir())[2]
    missing.unlink()
    write_data_shards(folder, tmp_path / 'shards', 20_000)
    cfg = load_config('tests/tools/tiny_det.py', data_root=str(tmp_path / 'shards'))
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
    with pytest.raises(UserError, match=f'train2017/{missing.name} .* could not be read: it is missing'):
        check_files(dataset)


@pytest.mark.parametrize('task', [pytest.param('det', marks=pytest.mark.slow), 'seg'])
def test_check_dataset_finds_the_same_in_shards_and_behind_a_url(task, make_shapes, tmp_path, capsys):
    folder = tmp_path / 'data'
    shutil.copytree(make_shapes(12, 6) / {'det': 'coco', 'seg': 'ade'}[task], folder)
    images = sorted((folder / {'det': 'train2017', 'seg': 'images/training'}[task]).iterdir())
    images[1].write_bytes(b'')
    images[2].write_bytes(images[2].read_bytes()[:300])
    shutil.copy(images[3], images[4])
    images[5].unlink()
    found = []
    for place in (str(folder), *places(folder, tmp_path)):
        out = tmp_path / 'findings.json'
        with pytest.raises(SystemExit) as ended:
            check_dataset.main([str(CONFIGS[task]), '--data-root', place, '--json', str(out), '--workers', '0'])
        root = place.removeprefix('file://')
        found.append((ended.value.code, out.read_text().replace(place, '').replace(root, '')))
    assert found[1:] == found[:1] * 4 and found[0][0] == 4
    assert {'image-empty', 'image-duplicate'} <= json.loads(found[0][1])['codes'].keys()
    capsys.readouterr()
    with pytest.raises(UserError, match='--fix: .* is not a folder of files on this disk'):
        check_dataset.main([str(CONFIGS[task]), '--data-root', str(tmp_path / 'shards'), '--fix',
                            str(tmp_path / 'fixed'), '--workers', '0'])
    assert not (tmp_path / 'fixed').exists()
