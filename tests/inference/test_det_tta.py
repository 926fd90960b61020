"""Test-time augmentation of detectors against plain inference, mirrored images and merging by hand."""
import cv2
import mmcv
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData
from torchvision.ops import batched_nms

from convnext_dense.config import load_config
from convnext_dense.errors import UserError
from convnext_dense.inference.protocols import use_det_tta, use_soft_nms
from convnext_dense.visualization.predictions import instances_of


def config(tiny, kind: str):
    """The tiny Mask R-CNN, or a Cascade Mask R-CNN made of it."""
    cfg = load_config(str(tiny['det']))
    cfg.model.test_cfg.rcnn.max_per_img = 8
    if kind == 'cascade':
        roi_head = cfg.model.roi_head
        heads = [ConfigDict(roi_head.bbox_head.to_dict(), reg_decoded_bbox=False) for _ in range(3)]
        roi_head.update(type='StaticCascadeRoIHead', num_stages=3, stage_loss_weights=[1, 0.5, 0.25], bbox_head=heads)
        cfg.model.update(type='CascadeRCNN', train_cfg=None)
    return cfg


def build(cfg):
    """(model, test pipeline), with weights that give many confident, different boxes."""
    torch.manual_seed(3)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model).eval()
        pipeline = Compose(cfg.test_dataloader.dataset.pipeline)
    for name, parameter in model.named_parameters():
        if name.endswith(('fc_cls.weight', 'fc_reg.weight', 'conv_logits.weight', 'rpn_reg.weight', 'rpn_cls.weight')):
            torch.nn.init.normal_(parameter, std=0.1 if 'reg' in name else 0.5)
        elif parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return model, pipeline


@torch.no_grad()
def detect(model, pipeline, images):
    infos = [dict(img_path=str(image), img_id=0, instances=[], height=0, width=0) for image in images]
    return [instances_of(sample.pred_instances)
            for sample in model.test_step(pseudo_collate([pipeline(info) for info in infos]))]


def mirrored(image, folder):
    cv2.imwrite(str(folder / image.name), cv2.imread(str(image))[:, ::-1])
    return folder / image.name


@pytest.mark.parametrize('kind', ['mask-rcnn', 'cascade'])
def test_one_view_is_plain_inference(kind, tiny, images):
    plain, augmented = config(tiny, kind), config(tiny, kind)
    use_det_tta(augmented, ratios=[1.0], flip=False)
    expected, found = (detect(*build(cfg), images) for cfg in (plain, augmented))
    largest = 0.0
    for ours, theirs in zip(found, expected, strict=True):
        assert len(ours.labels) == 8 and ours.masks.any()
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=1e-4)
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-6)
        assert (ours.masks != theirs.masks).mean() < 1e-3  # pixels of which the probability is 0.5
        largest = max(largest, np.abs(ours.boxes - theirs.boxes).max())
    print(f'{kind}: {len(images)} images, largest difference of a box coordinate {largest:.1e}')


@pytest.mark.parametrize('kind', ['mask-rcnn', 'cascade'])
def test_flip_of_a_mirrored_image_gives_mirrored_results(kind, tiny, images, tmp_path):
    cfg = config(tiny, kind)
    use_det_tta(cfg, ratios=[1.0])
    model, pipeline = build(cfg)
    for image in images[:2]:
        straight, other = (detect(model, pipeline, [file])[0] for file in (image, mirrored(image, tmp_path)))
        width = straight.masks.shape[2]
        back = np.stack([width - other.boxes[:, 2], other.boxes[:, 1], width - other.boxes[:, 0], other.boxes[:, 3]], 1)
        np.testing.assert_array_equal(straight.labels, other.labels)
        np.testing.assert_allclose(straight.boxes, back, atol=1e-3)
        np.testing.assert_allclose(straight.scores, other.scores, atol=1e-5)
        assert (straight.masks != other.masks[..., ::-1]).mean() < 2e-3
        plain = detect(*build(config(tiny, kind)), [image])[0]
        assert not np.allclose(plain.scores, straight.scores, atol=1e-3)  # the flipped view counts


@torch.no_grad()
def test_merging_by_hand(tiny, images):
    """Two scales, plain and flipped: one NMS over all boxes, mean of the pasted mask probabilities."""
    cfg = config(tiny, 'mask-rcnn')
    use_det_tta(cfg, ratios=[1.0, 1.5])
    found = detect(*build(cfg), [images[0]])[0]

    cfg = config(tiny, 'mask-rcnn')
    cfg.model.test_cfg.rcnn.update(nms=dict(type='nms', iou_threshold=1.0), max_per_img=10**6)
    model, _ = build(cfg)
    image, views, boxes = cv2.imread(str(images[0])), [], []
    for side in (64, 96):
        for flip in (False, True):
            resized = mmcv.imresize(image, (side, side))[:, ::-1 if flip else 1]
            sample = DetDataSample(metainfo=dict(img_shape=(side, side), ori_shape=(64, 64),
                                                 scale_factor=(side / 64, side / 64)))
            inputs = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))
            data = model.data_preprocessor(dict(inputs=[inputs], data_samples=[sample]), False)
            features = model.extract_feat(data['inputs'])
            all_boxes = model.predict(data['inputs'], data['data_samples'])[0].pred_instances
            flipped = torch.stack([64 - all_boxes.bboxes[:, 2], all_boxes.bboxes[:, 1], 64 - all_boxes.bboxes[:, 0],
                                   all_boxes.bboxes[:, 3]], 1)
            boxes.append((flipped if flip else all_boxes.bboxes, all_boxes.scores, all_boxes.labels))
            views.append((features, sample.metainfo, side / 64, flip))
    boxes, scores, labels = (torch.cat(parts) for parts in zip(*boxes, strict=True))
    keep = batched_nms(boxes, scores, labels, 0.5)[:8]
    np.testing.assert_allclose(found.boxes, boxes[keep], atol=1e-3)
    np.testing.assert_allclose(found.scores, scores[keep], atol=1e-5)
    np.testing.assert_array_equal(found.labels, labels[keep])

    model.roi_head.test_cfg.mask_thr_binary = -1  # mmdet then pastes probabilities, as 0 to 255
    total = np.zeros((8, 64, 64))
    for features, meta, scale, flip in views:
        kept = boxes[keep]
        if flip:
            kept = torch.stack([64 - kept[:, 2], kept[:, 1], 64 - kept[:, 0], kept[:, 3]], 1)
        result = InstanceData(bboxes=kept * scale, labels=labels[keep])
        pasted = model.roi_head.predict_mask(features, [meta], [result], rescale=True)[0].masks.numpy().astype(float)
        total += pasted[..., ::-1] if flip else pasted
    mean = total / 4 / 255
    sure = np.abs(mean - 0.5) > 2 / 255  # the pasted ones are rounded
    assert sure.mean() > 0.9
    np.testing.assert_array_equal((mean >= 0.5)[sure], found.masks[sure])


@pytest.mark.parametrize('kind', ['mask-rcnn', 'cascade'])
def test_soft_nms_is_set_where_the_last_stage_reads_it(kind, tiny, images):
    cfg = config(tiny, kind)
    cfg.model.test_cfg.rcnn.max_per_img = 1000
    hard = detect(*build(cfg), images)
    use_soft_nms(cfg)
    assert cfg.model.test_cfg.rcnn.nms == dict(type='soft_nms', iou_threshold=0.5, min_score=0.0)
    model, pipeline = build(cfg)
    assert model.roi_head.test_cfg.nms.type == 'soft_nms' and model.test_cfg.rpn.nms.type == 'nms'
    soft = detect(model, pipeline, images)
    assert all(len(ours.labels) > len(theirs.labels) for ours, theirs in zip(soft, hard, strict=True))
    use_det_tta(cfg, ratios=[1.0], flip=False)  # both together: scores are lowered once
    for ours, theirs in zip(detect(*build(cfg), images), soft, strict=True):
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-5)


def test_published_recipes_take_both_flags():
    for name in ('mask-rcnn_convnext-t-in1k_fpn_8xb2', 'cascade-mask-rcnn_convnext-s-in1k_fpn_4conv1fc-giou_8xb2'):
        cfg = load_config(f'det/{name}-amp-ms-crop-3x_coco.py')
        use_soft_nms(cfg)
        assert cfg.model.test_cfg.rcnn.nms == dict(type='soft_nms', iou_threshold=0.5, min_score=0.05)
        use_det_tta(cfg)
        load, tta = cfg.test_dataloader.dataset.pipeline
        scales, flips, annotations, pack = tta.transforms
        assert [step.scale for step in scales] == [(666, 400), (1333, 800), (1999, 1200)]
        assert [step.prob for step in flips] == [0.0, 1.0]
        assert (load.type, annotations[0].type) == ('LoadImageFromFile', 'FastLoadAnnotations')
        assert pack[0].meta_keys[-2:] == ('flip', 'flip_direction')


def test_what_cannot_be_augmented_is_named(tiny):
    with pytest.raises(UserError, match='--ms-flip'):
        use_det_tta(load_config(str(tiny['seg'])))
    with pytest.raises(UserError, match='ratios of the test scale above 0'):
        use_det_tta(load_config(str(tiny['det'])), [0.0, 1.0])
    cfg = load_config(str(tiny['det']))
    del cfg.test_dataloader.dataset.pipeline[1]
    with pytest.raises(UserError, match='0 Resize steps'):
        use_det_tta(cfg)
    cfg.model.pop('roi_head')
    for use in (use_det_tta, use_soft_nms):
        cfg.model.test_cfg.pop('rcnn', None)
        with pytest.raises(UserError, match='expected a two-stage detector'):
            use(cfg)
