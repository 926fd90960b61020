"""The published data pipelines on real images: what comes out is counted, against pycocotools and the files."""
import json
from collections import Counter

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope
from pycocotools.coco import COCO
from rows import ROWS, config_path

from convnext_dense.config import load_config

MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])  # RGB, as the rows say
T_DET, T_SEG, XL_SEG = (next(row for row in ROWS if row['name'] == name) for name in (
    'mask-rcnn_convnext-t-in1k', 'upernet_convnext-t-in1k_ade20k-512x512',
    'upernet_convnext-xl-in22k_ade20k-640x640'))


def build(row: dict, real_data, loader: str) -> tuple[Config, object]:
    """A row's config and its data set on the real subset."""
    root = real_data / ('coco' if row['task'] == 'det' else 'ade/ADEChallengeData2016')
    cfg = load_config(str(config_path(row)), data_root=str(root))
    init_default_scope(cfg.default_scope)
    return cfg, DATASETS.build(cfg[loader].dataset)


@pytest.fixture(scope='module')
def train_json(real_data) -> dict:
    return json.loads((real_data / 'coco/annotations/instances_train2017.json').read_text())


def test_detection_filter_keeps_what_the_rule_says(real_data, train_json):
    """Images with at least one annotation and a shorter side of at least 32 pixels; every image of val."""
    annotated = {annotation['image_id'] for annotation in train_json['annotations']}
    kept = {image['id'] for image in train_json['images']
            if image['id'] in annotated and min(image['width'], image['height']) >= 32}
    assert len(kept) < len(train_json['images'])  # the subset has images without objects: the rule is at work
    _, train = build(T_DET, real_data, 'train_dataloader')
    assert {train.get_data_info(i)['img_id'] for i in range(len(train))} == kept
    _, val = build(T_DET, real_data, 'val_dataloader')
    coco = COCO(real_data / 'coco/annotations/instances_val2017.json')
    assert [val.get_data_info(i)['img_id'] for i in range(len(val))] == coco.getImgIds()


def test_detection_training_samples(real_data, train_json):
    """Sizes that only the published scales can give; every object of an uncropped image, and its mask and label."""
    cfg, train = build(T_DET, real_data, 'train_dataloader')
    coco = COCO(real_data / 'coco/annotations/instances_train2017.json')
    label_of = {cat_id: i for i, cat_id in enumerate(sorted(coco.getCatIds()))}
    shorts, policies, flips = set(), Counter(), Counter()
    np.random.seed(0)
    for i in range(len(train)):
        info = train.get_data_info(i)
        sample = train[i]['data_samples']
        instances, ignored = sample.gt_instances, sample.ignored_instances
        (h, w), (h0, w0) = sample.img_shape, sample.ori_shape
        assert max(h, w) <= 1333 and len(instances.masks) == len(instances.bboxes) == len(instances.labels)
        assert instances.masks.masks.shape[1:] == (h, w)
        # the scale factor is the last resize's, so it leads from the image to the sample only without a crop
        scale_w, scale_h = sample.scale_factor
        whole = abs(w0 * scale_w - w) < 1 and abs(h0 * scale_h - h) < 1
        policies[whole] += 1
        flips[sample.flip_direction if sample.flip else None] += 1
        if max(h, w) < 1333:
            shorts.add(min(h, w))
        if whole:
            real = [a for a in coco.imgToAnns[info['img_id']] if a['bbox'][2] >= 1 and a['bbox'][3] >= 1]
            expected = Counter(label_of[a['category_id']] for a in real if not a['iscrowd'])
            assert Counter(instances.labels.tolist()) == expected
            assert len(ignored) == sum(a['iscrowd'] for a in real)
            ratio = h * w / (h0 * w0)
            area = sum(a['area'] for a in real if not a['iscrowd']) * ratio
            drawn = instances.masks.masks.sum()
            assert drawn == pytest.approx(area, rel=0.1, abs=2000)
    assert shorts <= set(range(480, 801, 32)), shorts
    assert len(shorts) == 11  # every scale occurred
    # 3.5 standard deviations of a fair coin in some 200 images: policies are equally likely, flips horizontal
    assert abs(policies[True] / len(train) - 0.5) < 0.12, policies
    assert set(flips) == {None, 'horizontal'} and abs(flips[None] / len(train) - 0.5) < 0.12, flips


def test_detection_batch_is_normalised_and_padded(real_data):
    """RGB, published mean and deviation, zero padding at the right and bottom to a multiple of 32."""
    cfg, val = build(T_DET, real_data, 'val_dataloader')
    init_default_scope('mmdet')
    preprocess = MODELS.build(cfg.model.data_preprocessor)
    for i in range(0, len(val), 40):
        sample = val[i]
        batch = preprocess(dict(inputs=[sample['inputs']], data_samples=[sample['data_samples']]))['inputs'][0]
        raw = cv2.imread(sample['data_samples'].img_path)
        h0, w0 = raw.shape[:2]
        scale = min(1333 / max(h0, w0), 800 / min(h0, w0))
        w, h = int(w0 * scale + 0.5), int(h0 * scale + 0.5)
        assert batch.shape == (3, -(-h // 32) * 32, -(-w // 32) * 32)
        resized = cv2.resize(raw, (w, h), interpolation=cv2.INTER_LINEAR)[..., ::-1]
        expected = torch.from_numpy(((resized - MEAN) / STD).transpose(2, 0, 1)).float()
        torch.testing.assert_close(batch[:, :h, :w], expected, rtol=0, atol=1e-5)
        assert batch[:, h:].abs().sum() == batch[:, :, w:].abs().sum() == 0


@pytest.mark.parametrize('row', [T_SEG, XL_SEG], ids=lambda row: row['name'])
def test_segmentation_labels_and_test_size(row, real_data):
    """Label 0 becomes 255, k becomes k - 1, at the image's own size; the image is resized to fit the test scale."""
    cfg, val = build(row, real_data, 'val_dataloader')
    assert len(val) == 9
    width, height = row['test']['scale']
    for i in range(len(val)):
        sample = val[i]['data_samples']
        raw = cv2.imread(sample.seg_map_path, cv2.IMREAD_UNCHANGED)
        counts = Counter(raw.flatten().tolist())
        expected = Counter({(255 if label == 0 else label - 1): n for label, n in counts.items()})
        assert Counter(sample.gt_sem_seg.data.flatten().tolist()) == expected
        assert sample.ori_shape == raw.shape
        h0, w0 = raw.shape
        scale = min(width / max(h0, w0), height / min(h0, w0))
        assert sample.img_shape == (int(h0 * scale + 0.5), int(w0 * scale + 0.5))


@pytest.mark.parametrize('row', [T_SEG, XL_SEG], ids=lambda row: row['name'])
def test_segmentation_training_crops(row, real_data):
    """After the data preprocessor every crop is full size, no class fills over 75 %, labels are 0..149 or 255."""
    cfg, train = build(row, real_data, 'train_dataloader')
    assert len(train) == 6
    preprocess = MODELS.build(cfg.model.data_preprocessor)
    np.random.seed(0)
    crop, seen = row['crop'], set()
    for i in range(len(train)):
        raw = cv2.imread(str(train.get_data_info(i)['seg_map_path']), cv2.IMREAD_UNCHANGED)
        allowed = {255 if label == 0 else label - 1 for label in np.unique(raw).tolist()}
        for _ in range(4):
            sample = train[i]
            labels = sample['data_samples'].gt_sem_seg.data
            assert set(labels.unique().tolist()) <= allowed
            seen |= set(labels.unique().tolist())
            assert max(sample['inputs'].shape[1:]) <= crop
            batch = preprocess(dict(inputs=[sample['inputs']] * 2, data_samples=[sample['data_samples']] * 2), True)
            assert batch['inputs'].shape == (2, 3, crop, crop)
            padded = batch['data_samples'][0].gt_sem_seg.data
            h, w = labels.shape[1:]
            assert padded.shape == (1, crop, crop) and torch.equal(padded[:, :h, :w], labels)
            assert bool((padded[:, h:] == 255).all() and (padded[:, :, w:] == 255).all())
            image = sample['inputs'].float().numpy()[::-1].transpose(1, 2, 0)  # BGR to RGB
            expected = torch.from_numpy(((image - MEAN) / STD).transpose(2, 0, 1)).float()
            torch.testing.assert_close(batch['inputs'][0][:, :h, :w], expected, rtol=0, atol=1e-5)
    assert len(seen - {255}) > 20 and max(seen - {255}) <= 149


def test_multi_scale_views_are_ratios_of_the_test_scale(real_data):
    """Six scales, each plain and flipped, of 2048x512 times the ratio (mmseg 1's own port scales the raw image)."""
    from mmengine.dataset import Compose
    cfg, val = build(T_SEG, real_data, 'val_dataloader')
    info = val.get_data_info(0)
    views = Compose(cfg.tta_pipeline)(info)
    h0, w0 = cv2.imread(info['img_path']).shape[:2]
    sizes = [tuple(image.shape[1:]) for image in views['inputs']]
    expected = []
    for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75):
        scale = min(2048 * ratio / max(h0, w0), 512 * ratio / min(h0, w0))
        expected += [(int(h0 * scale + 0.5), int(w0 * scale + 0.5))] * 2
    assert sizes == expected
    assert [sample.flip for sample in views['data_samples']] == [False, True] * 6
    plain, flipped = views['inputs'][:2]
    assert torch.equal(plain.flip(-1), flipped)
