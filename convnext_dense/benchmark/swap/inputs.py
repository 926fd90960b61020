"""Small images with made-up targets for any model of mmdet and mmseg."""
import numpy as np
import torch
from mmengine.structures import PixelData

SIZE = (128, 160)
LARGER = {'LRASPPHead': (800, 800), 'SSDHead': (320, 320)}  # pools 49 pixels of stride 16; six maps without padding


def make_batch(model, scope: str, images: int = 2) -> dict:
    """What a data loader would hand to ``model``: ``inputs`` and ``data_samples``, on the CPU.

    Args:
        model: built from a config of ``scope``.
    """
    size = next((LARGER[type(part).__name__] for part in model.children() if type(part).__name__ in LARGER), SIZE)
    return _seg_batch(model, images, size) if scope == 'mmseg' else _det_batch(model, images, size)


def _det_batch(model, images: int, size: tuple[int, int]) -> dict:
    from mmdet.testing._utils import demo_mm_inputs, demo_mm_proposals
    # of the loader's proposals where there are any: predictions would pass the model's own RPN by
    takes_proposals = getattr(model, 'with_roi_head', False) and not model.with_rpn
    batch = demo_mm_inputs(images, (3, *size), num_items=[3] * images, num_classes=2, with_mask=True,
                           with_semantic=True, use_box_type=False)
    for sample, proposals in zip(batch['data_samples'], demo_mm_proposals([(3, *size)] * images, 20), strict=True):
        sample.set_metainfo(dict(scale_factor=(1., 1.), batch_input_shape=size, pad_shape=size,
                                 homography_matrix=np.eye(3, dtype=np.float32)))
        proposals.pop('labels')
        if takes_proposals:
            sample.proposals = proposals
        sample.ignored_instances = sample.ignored_instances[:0]  # random boxes, which would cover the image
        _give_area(sample.gt_instances, size)
        if type(model).__name__ == 'RTMDet':  # which reads masks where it gets them, its boxes' recipes load none
            del sample.gt_instances.masks
    if type(model).__name__ == 'SoftTeacher':
        branches = ('sup', 'unsup_teacher', 'unsup_student')
        return {key: {branch: [item.clone() for item in value] for branch in branches}
                for key, value in batch.items()}
    return batch


def _give_area(instances, size: tuple[int, int]) -> None:
    """Boxes of at least 16 pixels a side, and full masks in them."""
    from mmdet.structures.mask import BitmapMasks
    boxes = instances.bboxes
    boxes[:, :2] = torch.minimum(boxes[:, :2], torch.tensor([size[1] - 20., size[0] - 20.]))
    boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 16)
    masks = np.zeros((len(boxes), *size), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    instances.masks = BitmapMasks(masks, *size)


def _seg_batch(model, images: int, size: tuple[int, int]) -> dict:
    from mmseg.structures import SegDataSample
    generator = torch.Generator().manual_seed(0)
    samples = []
    for _ in range(images):
        blocks = torch.randint(2, (1, 1, size[0] // 16, size[1] // 16), generator=generator).float()
        labels = torch.nn.functional.interpolate(blocks, size=size)[0].long()
        sample = SegDataSample(gt_sem_seg=PixelData(data=labels), gt_edge_map=PixelData(data=labels))
        sample.set_metainfo(dict(img_shape=size, ori_shape=size, pad_shape=size, flip=False, padding_size=[0] * 4))
        samples.append(sample)
    pixels = torch.randint(256, (images, 3, *size), dtype=torch.uint8, generator=generator)
    return dict(inputs=list(pixels), data_samples=samples)
