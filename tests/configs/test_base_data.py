"""Every base data set reads a folder of its layout: classes, labels and masks of the first training and test sample."""
import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from rows import ROOT

from convnext_dense.mm.panoptic import id2rgb

HEIGHT, WIDTH = 48, 64
BOX = [8, 8, 32, 24]  # x, y, width, height of the one object
RNG = np.random.default_rng(0)


def image(file) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), RNG.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))


def labels(file, values: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), values)


def coco_json(file, names, chosen: str, **image_info) -> None:
    """One image with one object of the class ``chosen``; category ids have gaps, as COCO's."""
    x, y, w, h = BOX
    categories = [dict(id=2 * index + 1, name=name, frequency='f', image_count=1, instance_count=1, synset=name)
                  for index, name in enumerate(names)]
    category = categories[list(names).index(chosen)]['id']
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(dict(
        images=[dict(id=7, height=HEIGHT, width=WIDTH, neg_category_ids=[], not_exhaustive_category_ids=[],
                     **image_info)],
        annotations=[dict(id=1, image_id=7, category_id=category, bbox=BOX, area=w * h, iscrowd=0,
                          segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]])],
        categories=categories)))


def coco(root, names) -> None:
    for split in ('train', 'val'):
        image(root / f'{split}2017/0.jpg')
        coco_json(root / f'annotations/instances_{split}2017.json', names, 'dog', file_name='0.jpg')


def coco_panoptic(root, names) -> None:
    """A dog on grass-merged."""
    ids = np.full((HEIGHT, WIDTH), 300)
    ids[8:32, 8:40] = 70000
    categories = [dict(id=index + 1, name=name, isthing=int(index < 80)) for index, name in enumerate(names)]
    number = {category['name']: category['id'] for category in categories}
    for split in ('train', 'val'):
        image(root / f'{split}2017/0.jpg')
        labels(root / f'annotations/panoptic_{split}2017/0.png', id2rgb(ids)[..., ::-1])
        segments = [dict(id=each, category_id=number[name], iscrowd=0, area=int((ids == each).sum()), bbox=box)
                    for each, name, box in ((70000, 'dog', BOX), (300, 'grass-merged', [0, 0, WIDTH, HEIGHT]))]
        (root / f'annotations/panoptic_{split}2017.json').write_text(json.dumps(dict(
            images=[dict(id=7, file_name='0.jpg', height=HEIGHT, width=WIDTH)], categories=categories,
            annotations=[dict(image_id=7, file_name='0.png', segments_info=segments)])))


def cityscapes_det(root, names) -> None:
    for split in ('train', 'val'):
        image(root / f'leftImg8bit/{split}/ulm/ulm_0_leftImg8bit.png')
        coco_json(root / f'annotations/instancesonly_filtered_gtFine_{split}.json', names, 'bus',
                  file_name='ulm/ulm_0_leftImg8bit.png', segm_file='ulm/ulm_0_gtFine_instanceIds.png')


def lvis(root, names) -> None:
    for split in ('train', 'val'):
        image(root / f'{split}2017/0.jpg')
        coco_json(root / f'annotations/lvis_v1_{split}.json', names, 'zebra',
                  coco_url=f'http://images.cocodataset.org/{split}2017/0.jpg')


def objects365(root, names) -> None:
    for split in ('train', 'val'):
        image(root / f'{split}/patch0/0.jpg')
        coco_json(root / f'annotations/zhiyuan_objv2_{split}.json', names, 'Lamp',
                  file_name='images/v2/patch0/0.jpg')


def cityscapes_seg(root, names) -> None:
    values = np.full((HEIGHT, WIDTH), 255, np.uint8)
    values[:, :40], values[:, 40:50] = 0, 18
    for split in ('train', 'val'):
        image(root / f'leftImg8bit/{split}/ulm/ulm_0_leftImg8bit.png')
        labels(root / f'gtFine/{split}/ulm/ulm_0_gtFine_labelTrainIds.png', values)


def pascal_context(root, names) -> None:
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    values[:, :40], values[:, 40:50] = 1, 59
    image(root / 'JPEGImages/0.jpg')
    labels(root / 'SegmentationClassContext/0.png', values)
    (root / 'ImageSets/SegmentationContext').mkdir(parents=True)
    for split in ('train', 'val'):
        (root / f'ImageSets/SegmentationContext/{split}.txt').write_text('0\n')


# base: (writer, classes, labels of the object or pixels)
DET = {'coco_detection': (coco, 80, 'dog'), 'coco_rtmdet': (coco, 80, 'dog'), 'coco_rtmdet_ins': (coco, 80, 'dog'),
       'coco_panoptic': (coco_panoptic, 133, 'dog'), 'cityscapes_instance': (cityscapes_det, 8, 'bus'),
       'lvis_v1_instance': (lvis, 1203, 'zebra'), 'objects365v2_detection': (objects365, 365, 'Lamp')}
SEG = {'cityscapes_512x1024': (cityscapes_seg, 19, {0, 18, 255}),
       'pascal_context_480x480': (pascal_context, 60, {0, 1, 59}),
       'pascal_context_59_480x480': (pascal_context, 59, {255, 0, 58})}


def read(task: str, base: str, writer, count: int, root) -> list:
    """The training and the test data set on a written folder, by the base's own settings."""
    cfg = Config.fromfile(ROOT / f'configs/{task}/_base_/{base}.py')
    scope = {'det': 'mmdet', 'seg': 'mmseg'}[task]
    init_default_scope(scope)
    built, written = [], False
    for loader in ('train_dataloader', 'val_dataloader'):
        dataset = leaf = cfg[loader].dataset
        while 'dataset' in leaf:
            leaf = leaf.dataset
        names = DATASETS.get(f'{scope}.{leaf.type}').METAINFO['classes']
        assert len(names) == count
        if not written:
            writer(root, names)
            written = True
        leaf.data_root = str(root)
        built.append(DATASETS.build(dataset))
    return built


@pytest.mark.parametrize('base', DET)
def test_detection(base, tmp_path):
    writer, count, name = DET[base]
    if writer is lvis:
        pytest.importorskip('lvis')
    train, val = read('det', base, writer, count, tmp_path)
    np.random.seed(0)
    assert len(train) == (8 if 'cityscapes' in base else 1) and len(val) == 1
    sample, label = val[0]['data_samples'], list(val.metainfo['classes']).index(name)
    assert sample.gt_instances.labels.tolist() == [label] and sample.ori_shape == (HEIGHT, WIDTH)
    # annotations come after Resize in tests, and keep the coordinates of the image
    assert sample.gt_instances.bboxes.tensor.tolist() == [[BOX[0], BOX[1], BOX[0] + BOX[2], BOX[1] + BOX[3]]]
    found = [train[0]['data_samples'] for _ in range(4)]  # mosaics and large jitter may cut the object away
    assert {each for item in found for each in item.gt_instances.labels.tolist()} == {label}
    if 'detection' not in base and base != 'coco_rtmdet':
        for item in found:
            assert len(item.gt_instances.masks) == len(item.gt_instances.labels)
            assert (item.gt_instances.masks.height, item.gt_instances.masks.width) == item.img_shape
    if base == 'coco_panoptic':
        grass = list(val.metainfo['classes']).index('grass-merged')
        assert set(found[0].gt_sem_seg.sem_seg.unique().tolist()) <= {label, grass, 255}


@pytest.mark.parametrize('base', SEG)
def test_segmentation(base, tmp_path):
    writer, count, values = SEG[base]
    train, val = read('seg', base, writer, count, tmp_path)
    np.random.seed(0)
    assert len(train) == len(val) == 1
    found = val[0]['data_samples'].gt_sem_seg.data
    assert found.shape == (1, HEIGHT, WIDTH) and set(found.unique().tolist()) == values
    crop = next(step.crop_size for step in train.pipeline.transforms if hasattr(step, 'crop_size'))
    assert crop == ((512, 1024) if 'cityscapes' in base else (480, 480))
    for _ in range(3):
        sample = train[0]
        labels = sample['data_samples'].gt_sem_seg.data
        assert set(labels.unique().tolist()) <= values and labels.shape[1:] == sample['inputs'].shape[1:]
        assert all(side <= limit for side, limit in zip(labels.shape[1:], crop, strict=True))
        assert sample['inputs'].dtype == torch.uint8
