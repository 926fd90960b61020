"""Training targets of two-stage detectors as tensor functions whose shapes do not depend on values.

mmdet assigns, samples and indexes image by image, with operators whose result sizes depend on values, so that the host
waits for the GPU hundreds of times a step. Here ground truth and samples are padded, and weights take the place of
indexing. Assignments are those of mmdet's MaxIoUAssigner, samples have the distribution of its RandomSampler.
"""
from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmdet.models.task_modules import MaxIoUAssigner
from mmdet.models.task_modules.assigners import BboxOverlaps2D
from mmdet.models.task_modules.samplers import RandomSampler
from mmdet.structures.bbox import get_box_tensor
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from ..errors import UserError
from ..mm.transfer import host_values, to_device
from .boxes import take

PAIRS = 2 ** 22  # overlaps computed at one time: 16 MiB, and about 240 MB with all that is computed from them


class GroundTruth(NamedTuple):
    """Objects of a batch, padded: N images, G objects (at least 1), R ignored regions (at least 1)."""

    sizes: Tensor  # (N, 2), width and height of each image in pixels
    padded_sizes: Tensor  # (N, 2), with the padding of its pipeline
    boxes: Tensor  # (N, G, 4)
    labels: Tensor  # int64 (N, G)
    valid: Tensor  # bool (N, G)
    ignored: Tensor  # (N, R, 4)
    ignored_valid: Tensor  # bool (N, R)
    masks: tuple[Tensor, ...] | None  # uint8 (objects, H, W) of each image


class Samples(NamedTuple):
    """S samples of each image: positive ones first, then negative ones, then padding."""

    index: Tensor  # int64 (N, S), among the candidates
    positive: Tensor  # bool (N, S)
    valid: Tensor  # bool (N, S): positive or negative
    target: Tensor  # int64 (N, S), the object of a positive sample, 0 for others
    most: int  # positive ones are among the first so many


def ground_truth(instances: Sequence[InstanceData], ignored: Sequence[InstanceData | None], metas: Sequence[dict],
                 masks: bool = False, few_shapes: bool = False) -> GroundTruth:
    """What losses need of the samples of a batch, on the device of their boxes.

    Args:
        metas: with ``img_shape`` and ``pad_shape``, (height, width) in pixels.
        masks: whether there are masks in it, too.
        few_shapes: pad the numbers of objects and of regions to powers of 2 above 1, those of masks to the same.

    Raises:
        UserError: masks that are not bitmaps.
    """
    boxes = [get_box_tensor(each.bboxes) for each in instances]
    none = boxes[0].new_zeros(0, 4)
    regions = [none if each is None else get_box_tensor(each.bboxes) for each in ignored]
    rows, region_rows = (padded_number(each) if few_shapes else 0 for each in (boxes, regions))
    sizes = host_values([(*meta['img_shape'][1::-1], *meta.get('pad_shape', meta['img_shape'])[1::-1])
                         for meta in metas], none)
    padded_boxes, valid = pad_boxes(boxes, rows)
    labels = pad_rows([each.labels for each in instances], rows)
    bitmaps = tuple(bitmaps_of(each.masks, rows, none.device) for each in instances) if masks else None
    return GroundTruth(sizes[:, :2], sizes[:, 2:], padded_boxes, labels, valid, *pad_boxes(regions, region_rows),
                       bitmaps)


def padded_number(rows: Sequence[Tensor]) -> int:
    """The smallest power of 2 above 1 that none of the lengths exceeds."""
    return max(2, 1 << (max(len(each) for each in rows) - 1).bit_length())


def bitmaps_of(masks: BitmapMasks, rows: int, device: torch.device) -> Tensor:
    """Bitmaps (objects, H, W) of an image, with empty ones up to ``rows``."""
    if not isinstance(masks, BitmapMasks):
        raise UserError(f'gt_instances.masks: expected bitmaps, found {type(masks).__name__}; load annotations with '
                        'poly2mask=True, or use roi_head.type of mmdet')
    bitmaps = to_device(torch.from_numpy(masks.masks), device)
    return F.pad(bitmaps, (0, 0, 0, 0, 0, rows - len(bitmaps))) if len(bitmaps) < rows else bitmaps


def pad_boxes(boxes: Sequence[Tensor], least: int = 0) -> tuple[Tensor, Tensor]:
    """Boxes (n, 4) of each image as (N, max n, 4), and which of them there are, bool (N, max n); at least one each."""
    rows = pad_rows([F.pad(each, (0, 1), value=1.0) for each in boxes], least)
    return rows[..., :4], rows[..., 4] > 0


def pad_rows(rows: Sequence[Tensor], least: int = 0) -> Tensor:
    """(n, ...) of each image as one (N, max n, ...), filled up with zeros; at least one row, and ``least``."""
    if all(len(each) == 0 for each in rows):
        return rows[0].new_zeros(len(rows), max(1, least), *rows[0].shape[1:])
    found = pad_sequence(list(rows), batch_first=True)
    return F.pad(found, (*[0, 0] * (found.dim() - 2), 0, least - found.shape[1])) if found.shape[1] < least else found


@torch.no_grad()
def assign(boxes: Tensor, valid: Tensor, truth: GroundTruth, assigner: MaxIoUAssigner) -> Tensor:
    """Match candidates with objects, as mmdet's MaxIoUAssigner.

    Objects are taken in groups, so that memory does not grow with their number.

    Args:
        boxes: (N, A, 4), or (1, A, 4) where all images have the same.
        valid: bool (N, A).

    Returns:
        int64 (N, A): the object's index plus 1, 0 for background, -1 for neither.
    """
    ignored = ~valid
    if assigner.ignore_iof_thr > 0:
        ignored = ignored | in_ignored_region(boxes, truth, assigner)
    shape = valid.shape
    best, best_object = boxes.new_full(shape, -1.0), torch.zeros(shape, dtype=torch.long, device=boxes.device)
    forced = torch.zeros(shape, dtype=torch.int32, device=boxes.device)  # index + 1 of an object with no better box
    for start, part in groups(truth.boxes.shape[1], max(1, PAIRS // (shape[0] * shape[1]))):
        overlaps = intersections(truth.boxes[:, part], boxes, 'iou')
        overlaps.masked_fill_(ignored[:, None] | ~truth.valid[:, part, None], -1.0)
        highest, index = overlaps.max(1)
        better = highest > best
        best, best_object = torch.where(better, highest, best), torch.where(better, index + start, best_object)
        if assigner.match_low_quality:
            forced = torch.maximum(forced, low_quality(overlaps, truth.valid[:, part], start, assigner))
    low, high = assigner.neg_iou_thr if isinstance(assigner.neg_iou_thr, tuple) else (0.0, assigner.neg_iou_thr)
    background = (best >= low) & (best < high) | ~truth.valid.any(1, keepdim=True)
    assigned = torch.where(background, 0, -1)
    assigned = torch.where(best >= assigner.pos_iou_thr, best_object + 1, assigned)
    return torch.where(valid, torch.where(forced > 0, forced, assigned), -1)


def groups(count: int, size: int) -> list[tuple[int, slice]]:
    """Where groups of objects begin, and which they are. Compiled, all are one: a loop is as long as when traced."""
    if torch.compiler.is_compiling():
        return [(0, slice(None))]
    return [(start, slice(start, start + size)) for start in range(0, count, size)]


def low_quality(overlaps: Tensor, valid: Tensor, start: int, assigner: MaxIoUAssigner) -> Tensor:
    """Index plus 1 of the last object (N, A) that overlaps no box more than this one, 0 where there is none.

    Args:
        overlaps: (N, g, A) of g objects with the candidates.
        valid: bool (N, g).
        start: index of the first of these objects.
    """
    highest, places = overlaps.max(2, keepdim=True)
    if assigner.gt_max_assign_all:
        matched = overlaps == highest
    else:
        matched = torch.zeros_like(overlaps, dtype=torch.bool).scatter_(2, places, True)
    matched &= (highest >= assigner.min_pos_iou) & valid[..., None]
    number = torch.arange(start + 1, start + 1 + overlaps.shape[1], dtype=torch.int32, device=overlaps.device)
    return torch.where(matched, number[:, None], 0).amax(1)


def in_ignored_region(boxes: Tensor, truth: GroundTruth, assigner: MaxIoUAssigner) -> Tensor:
    """Which candidates lie in ignored regions, bool (N, A)."""
    if assigner.ignore_wrt_candidates:
        overlaps = intersections(boxes.expand(len(truth.ignored), -1, -1), truth.ignored, 'iof').mT
    else:
        overlaps = intersections(truth.ignored, boxes, 'iof')
    return ((overlaps > assigner.ignore_iof_thr) & truth.ignored_valid[..., None]).any(1)


def intersections(first: Tensor, second: Tensor, mode: str) -> Tensor:
    """Overlaps (N, m, n) of boxes (N, m, 4) and (N, n, 4): 'iou', or 'iof', over the area of the first.

    In the order of operations of mmdet's ``bbox_overlaps``, so that comparisons with thresholds agree.
    """
    first, second = first[:, :, None], second[:, None]
    areas = [(boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]) for boxes in (first, second)]
    width, height = ((torch.minimum(first[..., axis + 2], second[..., axis + 2])
                      - torch.maximum(first[..., axis], second[..., axis])).clamp_(min=0) for axis in (0, 1))
    overlap = width.mul_(height)
    union = (areas[0] + areas[1]).sub_(overlap) if mode == 'iou' else areas[0]
    return overlap.div_(union.clamp(min=1e-6))


@torch.no_grad()
def sample(assigned: Tensor, boxes: Tensor, sampler: RandomSampler) -> Samples:
    """Choose positive and negative candidates at random, as many as mmdet's RandomSampler does.

    Args:
        assigned: (N, A), as `assign` returns it.
        boxes: (N, A, 4) or (1, A, 4), of the candidates.
    """
    count, length = min(sampler.num, assigned.shape[1]), assigned.shape[1]
    most = min(int(sampler.num * sampler.pos_fraction), length)
    keys = getattr(sampler, 'random_keys', random_keys)(boxes.expand(len(assigned), -1, -1))
    highest, places = torch.where(assigned > 0, keys, -1.0).topk(most, dim=1)
    # chosen positive ones come first, then negative ones in random order
    order = torch.where(assigned == 0, keys, -1.0)
    order = order.scatter(1, places, torch.where(highest >= 0, 2.0, order.gather(1, places)))
    order, index = order.topk(count, dim=1)
    positive = order > 1
    chosen = positive.sum(1, keepdim=True)
    allowed = sampler.num - chosen
    if sampler.neg_pos_ub >= 0:
        allowed = allowed.minimum((chosen.clamp(min=1) * sampler.neg_pos_ub).long())
    rank = torch.arange(count, device=order.device) - chosen
    valid = positive | (order >= 0) & (rank < allowed)
    target = torch.where(positive, assigned.gather(1, index) - 1, 0)
    return Samples(index, positive, valid, target, most)


def random_keys(boxes: Tensor) -> Tensor:
    """Numbers from 0 to 1 for boxes (N, A, 4); the highest are sampled. A sampler may have others of that name."""
    return torch.rand(boxes.shape[:2], device=boxes.device)


def sample_proposals(boxes: Tensor, valid: Tensor, truth: GroundTruth, assigner: MaxIoUAssigner,
                     sampler: RandomSampler) -> tuple[Samples, Tensor]:
    """Match and sample proposals (N, P, 4), of which those of ``valid`` bool (N, P) count.

    Returns:
        samples, whose index counts objects first where the sampler adds them; and the candidates' boxes.
    """
    assigned = assign(boxes, valid, truth, assigner)
    if sampler.add_gt_as_proposals:
        number = torch.arange(1, truth.boxes.shape[1] + 1, device=boxes.device)
        assigned = torch.cat([torch.where(truth.valid, number, -1), assigned], 1)
        boxes = torch.cat([truth.boxes, boxes], 1)
    samples = sample(assigned, boxes, sampler)
    # not a product: the boxes of a diverged model need not be finite
    return samples, torch.where(samples.valid[..., None], take(boxes, samples.index), 0)


def check_tasks(head: str, assigner: object, sampler: object) -> None:
    """Refuse assigners and samplers that choose in another way than the functions here.

    Raises:
        UserError: names the head, and what was found.
    """
    for part, expected in ((assigner, MaxIoUAssigner), (sampler, RandomSampler)):
        if type(part) is not expected:
            raise UserError(f'{head}: expected the {expected.__name__} of mmdet, found {type(part).__name__}; use '
                            f"mmdet's {stock_name(head)}, which trains with any")
    calculator = assigner.iou_calculator
    if type(calculator) is not BboxOverlaps2D or calculator.dtype is not None or assigner.perm_repeat_gt_cfg:
        raise UserError(f'{head}: MaxIoUAssigner with iou_calculator or perm_repeat_gt_cfg is not supported; use '
                        f"mmdet's {stock_name(head)}")


def stock_name(head: str) -> str:
    """The class of mmdet that one of ours extends: 'StaticRoIHead' -> 'StandardRoIHead'."""
    return 'StandardRoIHead' if head == 'StaticRoIHead' else head.removeprefix('Static')


__all__ = ['GroundTruth', 'Samples', 'assign', 'check_tasks', 'ground_truth', 'pad_boxes', 'sample',
           'sample_proposals']
