"""The recipes' training pipelines on real images equal mmdet's and mmseg's own transforms, bit for bit."""
import os
import warnings

import cv2
import pytest
from mmengine.registry import DATASETS, DefaultScope
from samples import Pair

from convnext_dense.config import load_config
from convnext_dense.datasets.transforms import STOCK, stock_pipeline

COCO, ADE = 'coco', 'ade/ADEChallengeData2016'
SEEDS = int(os.environ.get('CONVNEXT_DENSE_SEEDS', 2))  # of each real image; 5 take four minutes
RECIPES = {'multi-scale crop': ('det/mask-rcnn_convnext-t-in1k_fpn_8xb2-amp-ms-crop-3x_coco.py', COCO),
           'large-scale jitter': ('det/mask-rcnn_convnextv2-b-fcmae_fpn_8xb4-amp-lsj-3x_coco.py', COCO),
           'ADE20K at 512': ('seg/upernet_convnext-t-in1k_8xb2-amp-160k_ade20k-512x512.py', ADE),
           'ADE20K at 640': ('seg/upernet_convnext-b-in22k_8xb2-amp-160k_ade20k-640x640.py', ADE)}


def load(name: str, real_data):
    """A recipe's pair of training pipelines, and every sample of both splits, images without objects included."""
    config, folder = RECIPES[name]
    cfg = load_config(config, data_root=str(real_data / folder))
    infos = []
    with DefaultScope.overwrite_default_scope(cfg.default_scope), warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)  # mmseg's, about reduce_zero_label
        for loader in (cfg.train_dataloader, cfg.val_dataloader):
            settings = {key: value for key, value in loader.dataset.items() if key not in ('filter_cfg', 'pipeline')}
            dataset = DATASETS.build(dict(settings, pipeline=[]))
            infos += [dataset.get_data_info(index) for index in range(len(dataset))]
        pipeline = cfg.train_dataloader.dataset.pipeline
        return Pair(cfg.default_scope, stock_pipeline(pipeline), pipeline), infos


def gray(info: dict, folder) -> dict:
    """A sample whose image is a JPEG of one channel."""
    file = folder / f'{len(list(folder.iterdir()))}.jpg'
    cv2.imwrite(str(file), cv2.imread(info['img_path'], cv2.IMREAD_GRAYSCALE))
    return info | dict(img_path=str(file))


def kinds(info: dict) -> set[str]:
    """What is special about an image with objects."""
    objects, found = info.get('instances', []), set()
    if any(one['ignore_flag'] for one in objects):
        found.add('crowd')
    if any(min(one['bbox'][2] - one['bbox'][0], one['bbox'][3] - one['bbox'][1]) < 3 for one in objects):
        found.add('tiny')
    return found or {'plain' if objects else 'empty'}


@pytest.mark.parametrize('name', RECIPES)
def test_equal_on_one_image_of_each_kind(name, real_data, tmp_path):
    pair, infos = load(name, real_data)
    stock, ours = ({type(step).__name__ for step in pipeline.transforms} for pipeline in pair.pipelines)
    assert len(ours & STOCK.keys()) >= 3 and not stock & STOCK.keys()
    chosen = {}
    for info in infos:
        for kind in kinds(info):
            chosen.setdefault(kind, info)
    assert chosen.keys() == ({'crowd', 'tiny', 'plain', 'empty'} if RECIPES[name][1] == COCO else {'empty'})
    for kind, info in [*chosen.items(), ('gray', gray(infos[0], tmp_path))]:
        for seed in range(3):
            pair.check(info, seed, f'{name}, {kind}, seed {seed}')


@pytest.mark.slow
@pytest.mark.parametrize('name', RECIPES)
def test_equal_on_every_image(name, real_data, tmp_path):
    pair, infos = load(name, real_data)
    assert len(infos) == (421 if RECIPES[name][1] == COCO else 15)
    infos += [gray(info, tmp_path) for info in infos[::20]]
    packed = 0
    for index, info in enumerate(infos):
        for seed in range(SEEDS):
            packed += pair.check(info, SEEDS * index + seed, f'{name}, {info["img_path"]}, seed {seed}') is not None
    print(f'\n{name}: {len(infos)} images, {SEEDS} seeds each, {packed} samples, all equal')
    assert packed > 0.8 * SEEDS * len(infos)  # the few others have no object left, in both
