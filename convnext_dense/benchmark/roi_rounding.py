"""What half precision does to RoIs before they are pooled, on the boxes of COCO annotation files.

mmdet 3 rounds RoIs to the type of the features. Counted are boxes that are pooled from another pyramid level than in
float32, and the overlap of the box that reaches RoIAlign with the box as it was.
"""
import argparse
from pathlib import Path

import numpy as np
import torch

from ..errors import UserError
from ..mm import environment

SCALE = (1333, 800)  # longer and shorter side that the recipes test at, and their largest in training
STRIDES = (4, 8, 16, 32)
SIZES = (8, 16, 32, 64, 128, 256, 512)  # px; a box belongs to the nearest by ratio
EXTRACTORS = {'mmdet': 'SingleRoIExtractor', 'ours': 'Float32RoIExtractor'}
DTYPES = {'fp16': torch.float16, 'bf16': torch.bfloat16}


def coco_boxes(files: list[Path]) -> tuple[torch.Tensor, np.ndarray]:
    """Boxes of all objects (crowds left out) in pixels of the resized image.

    Returns:
        (n, 4) float32 boxes as x1, y1, x2, y2, and (n,) numbers of their images.

    Raises:
        UserError: a file is missing or no COCO json, or there is no object in any.
    """
    from ..evaluation.coco_data import load_ground_truth
    boxes, images = [], []
    for file in files:
        if not Path(file).is_file():
            raise UserError(f'benchmark rois: {file}: no such file')
        content = load_ground_truth(str(file)).dataset
        scales = {image['id']: min(max(SCALE) / max(image['width'], image['height']),
                                   min(SCALE) / min(image['width'], image['height'])) for image in content['images']}
        for annotation in content['annotations']:
            x, y, width, height = annotation['bbox']
            if width >= 1 and height >= 1 and not annotation['iscrowd']:  # as CocoDataset
                boxes.append(np.array([x, y, x + width, y + height]) * scales[annotation['image_id']])
                images.append(annotation['image_id'])
    if not boxes:
        raise UserError(f'benchmark rois: no object in {", ".join(map(str, files))}')
    return torch.from_numpy(np.stack(boxes)).float(), np.array(images)


def reaching_roi_align(extractor: str, boxes: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """(n,) pyramid levels and (n, 4) boxes with which an extractor calls RoIAlign for features of a type."""
    from mmdet.registry import MODELS
    layers = MODELS.build(dict(type=extractor, out_channels=1, featmap_strides=list(STRIDES),
                               roi_layer=dict(type='RoIAlign', output_size=1, sampling_ratio=1)))
    levels, reached, chosen = torch.full((len(boxes),), -1), torch.zeros_like(boxes), []
    choose = layers.map_roi_levels
    layers.map_roi_levels = lambda *args: chosen.append(choose(*args)) or chosen[-1]

    def note(level: int, rois: torch.Tensor) -> None:
        levels[chosen[0] == level] = level
        reached[chosen[0] == level] = rois[:, 1:].float()

    for level, layer in enumerate(layers.roi_layers):
        layer.register_forward_pre_hook(lambda _, args, level=level: note(level, args[1]))
    features = [torch.zeros(1, 1, -(-min(SCALE) // s), -(-max(SCALE) // s), dtype=dtype) for s in STRIDES]
    with torch.no_grad(), torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
        layers(features, torch.nn.functional.pad(boxes, (1, 0)))
    return levels, reached


def measure(boxes: torch.Tensor, images: np.ndarray) -> list[dict]:
    """One row an extractor and half type.

    Each has ``dtype``, ``extractor``, the shares ``wrong_boxes`` and ``wrong_images`` (images with at least one such
    box) of those on another level than in float32, and ``iou``: size in px -> mean IoU with the box as it was.
    """
    from mmdet.structures.bbox import bbox_overlaps
    expected, _ = reaching_roi_align('SingleRoIExtractor', boxes, torch.float32)
    side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    nearest = (side.log2()[:, None] - torch.tensor(SIZES).log2()).abs().argmin(1)
    rows = []
    for name, dtype in DTYPES.items():
        for whose, extractor in EXTRACTORS.items():
            levels, reached = reaching_roi_align(extractor, boxes, dtype)
            wrong = (levels != expected).numpy()
            iou = bbox_overlaps(reached.double(), boxes.double(), is_aligned=True)
            rows.append(dict(
                dtype=name, extractor=whose, wrong_boxes=float(wrong.mean()),
                wrong_images=len(set(images[wrong].tolist())) / len(set(images.tolist())),
                iou={size: iou[nearest == i].mean().item() for i, size in enumerate(SIZES) if (nearest == i).any()}))
    return rows


def format_rows(rows: list[dict]) -> str:
    """Rows of `measure` as a Markdown table."""
    sizes = list(rows[0]['iou'])
    lines = ['| features | extractor | boxes on a wrong level | images with one | '
             + ' | '.join(f'IoU at {size} px' for size in sizes) + ' |',
             '| --- | --- ' + '| ---: ' * (2 + len(sizes)) + '|']
    for row in rows:
        lines.append(f'| {row["dtype"]} | {row["extractor"]} | {row["wrong_boxes"]:.1%} | {row["wrong_images"]:.1%} | '
                     + ' | '.join(f'{row["iou"][size]:.3f}' for size in sizes) + ' |')
    return '\n'.join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('annotations', nargs='+', type=Path, help='COCO json files, for example instances_val2017.json')


def run(args: argparse.Namespace) -> tuple[list[dict], str]:
    environment.require('mmdet')
    boxes, images = coco_boxes(args.annotations)
    rows = measure(boxes, images)
    return rows, (f'{len(boxes)} boxes of {len(set(images.tolist()))} images, resized to fit {SCALE[0]} x {SCALE[1]}\n'
                  + format_rows(rows))
