"""Training samples that are made, of any size and without files."""
import cv2
import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from torch import nn


def made_samples(model: nn.Module, images: int, size: tuple[int, int]) -> list[dict]:
    """Samples as a training pipeline gives them: smooth noise with eight objects, or with blocks of random classes.

    Args:
        model: the detector or segmentor that they are for; the classes are its own.
        images: how many.
        size: height and width in pixels.
    """
    height, width = size
    samples = []
    for seed in range(images):
        draw = np.random.default_rng(seed)
        noise = draw.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
        image = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
        samples.append(dict(inputs=torch.from_numpy(image).permute(2, 0, 1).contiguous(),
                            data_samples=made_targets(model, size, draw)))
    return samples


def made_targets(model: nn.Module, size: tuple[int, int], draw: np.random.Generator) -> DetDataSample | SegDataSample:
    """A data sample with made annotations."""
    height, width = size
    meta = dict(img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size, scale_factor=(1.0, 1.0))
    if hasattr(model, 'decode_head'):
        blocks = draw.integers(0, model.decode_head.num_classes, (-(-height // 32), -(-width // 32)))
        labels = torch.from_numpy(np.kron(blocks, np.ones((32, 32), np.int64))[None, :height, :width].copy())
        sample = SegDataSample(metainfo=meta)
        sample.gt_sem_seg = PixelData(data=labels)
        return sample
    corners = draw.uniform(0, 0.5, (8, 2)) * (width, height)
    boxes = np.hstack([corners, corners + draw.uniform(0.1, 0.5, (8, 2)) * (width, height)]).astype(np.float32)
    masks = np.zeros((8, height, width), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
        mask[y1:y2, x1:x2] = 1
    sample = DetDataSample(metainfo=meta)
    sample.gt_instances = InstanceData(bboxes=torch.from_numpy(boxes), masks=BitmapMasks(masks, height, width),
                                       labels=torch.from_numpy(draw.integers(0, object_classes(model), 8)))
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long),
                                            masks=BitmapMasks(np.zeros((0, height, width), np.uint8), height, width))
    return sample


def object_classes(model: nn.Module) -> int:
    """How many classes of objects a detector knows."""
    head = getattr(getattr(model, 'roi_head', model), 'bbox_head', None)
    head = head[0] if isinstance(head, nn.ModuleList) else head
    if head is None:
        head = model.panoptic_head
    return getattr(head, 'num_classes', None) or head.num_things_classes


def with_plain_masks(samples: list[dict]) -> list[dict]:
    """The samples with masks as mmdet's own pipelines give them: one bitmap of the image's size for each object."""
    plain = []
    for sample in samples:
        data_sample = sample['data_samples'].clone()
        for name in ('gt_instances', 'ignored_instances'):
            masks = data_sample.get(name, {}).get('masks')
            if isinstance(masks, BitmapMasks):
                data_sample.get(name).masks = BitmapMasks(np.asarray(masks.masks), masks.height, masks.width)
        plain.append(dict(sample, data_samples=data_sample))
    return plain
