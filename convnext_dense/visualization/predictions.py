"""Instances and masks of mmdet and COCO, in the form that `draw` takes."""
from collections.abc import Mapping

import numpy as np
from pycocotools import mask as coco_mask

from ..utils.run_lengths import EncodedMasks
from .draw import Instances


def predicted_instances(prediction: Mapping) -> Instances:
    """Instances of one detection result: bboxes, scores, labels and, if there are, run-length encoded masks."""
    masks = prediction.get('masks')
    if masks is not None:
        masks = EncodedMasks(masks, prediction['ori_shape'])
    return Instances(prediction['labels'], prediction['bboxes'], masks, prediction['scores'])


def instances_of(found) -> Instances:
    """Instances from mmdet's InstanceData, whichever of its containers boxes and masks are in."""
    def array(values):
        values = getattr(values, 'tensor', values)  # mmdet's box types
        values = values.to_ndarray() if hasattr(values, 'to_ndarray') else values  # mmdet's mask types
        if hasattr(values, 'cpu'):  # a tensor; exported models run without torch
            values = values.detach().cpu()
            values = values.float() if str(values.dtype) == 'torch.bfloat16' else values  # numpy has none
        return np.asarray(values)
    masks = found.masks if 'masks' in found else None
    if isinstance(masks, list):  # of run lengths
        masks = EncodedMasks(masks, masks[0]['size'] if masks else (0, 0))
    elif masks is not None:
        masks = array(masks).astype(bool, copy=False)
    return Instances(array(found.labels), array(found.bboxes), masks,
                     array(found.scores) if 'scores' in found else None)


def encode_mask(mask: np.ndarray) -> dict:
    """A mask (H, W) as COCO run lengths that json can write."""
    rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {'size': [int(side) for side in rle['size']], 'counts': rle['counts'].decode('ascii')}


def encoded_masks(segmentations, size: tuple[int, int]) -> EncodedMasks:
    """COCO segmentations: polygons, or run lengths as lists, strings or bytes."""
    def compressed(segmentation) -> dict:
        if isinstance(segmentation, list):
            return coco_mask.merge(coco_mask.frPyObjects(segmentation, *size))
        return coco_mask.frPyObjects(segmentation, *size) if isinstance(segmentation['counts'], list) else segmentation
    return EncodedMasks([compressed(segmentation) for segmentation in segmentations], size)


def check_run_lengths(data: np.ndarray, lengths: np.ndarray, pixels: np.ndarray) -> None:
    """Refuse masks whose run lengths do not fit their images: pycocotools trusts them, and loops for ever or crashes.

    Args:
        data: the bytes of compressed COCO run lengths, mask after mask, uint8 (B,).
        lengths: bytes of each of N masks, above 0, (N,); their sum is B.
        pixels: of each mask's image, (N,).

    Raises:
        ValueError: some run lengths are malformed, negative, or do not add up to the pixels.
    """
    if not len(lengths):
        return
    mask_ends = np.cumsum(lengths)
    digits = data.astype(np.int64) - 48  # six bits a byte: five of a number, the low ones first, and whether it goes on
    is_last = (digits & 32) == 0
    if ((digits < 0) | (digits > 63)).any() or not is_last[mask_ends - 1].all():
        raise ValueError('masks that are no run lengths')
    starts, ends = np.flatnonzero(np.append(True, is_last[:-1])), np.flatnonzero(is_last)
    place = np.arange(data.size) - np.repeat(starts, ends + 1 - starts)
    if place.max() > 6:
        raise ValueError('masks with numbers beyond 32 bits')
    values = np.add.reduceat((digits & 31) << 5 * place, starts)
    values -= np.where(digits[ends] & 16, 1 << 5 * (place[ends] + 1), 0)  # two's complement
    # from the fourth on, a number is the difference to the run two places before
    mask = np.searchsorted(mask_ends, starts, side='right')
    index = np.arange(len(starts)) - np.searchsorted(starts, mask_ends - lengths)[mask]
    chain = 3 * mask + np.where(index == 0, 0, 1 + index % 2)
    order = np.argsort(chain, kind='stable')
    sums, is_first = np.cumsum(values[order]), np.append(True, np.diff(chain[order]) > 0)
    runs = sums - (sums - values[order])[is_first][np.cumsum(is_first) - 1]
    if (runs < 0).any() or (np.bincount(mask[order], weights=runs, minlength=len(lengths)) != pixels).any():
        raise ValueError('masks that do not fit their images')
