"""Our operators beside those of a compiled mmcv, on random inputs."""
import importlib
import itertools

import torch

from ..mm import ops

METHODS = {ops.NAIVE: 'naive', ops.LINEAR: 'linear', ops.GAUSSIAN: 'gaussian'}
COUNTS = (0, 1, 2, 30, 300, 1000)
SIZES = ((1, 1), (7, 7), (3, 5))


def random_boxes(count: int, generator: torch.Generator, ties: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, 4) boxes of which many overlap, and (n,) scores: all distinct, or of ten values with ``ties``.

    A third lies on a coarse grid, so that IoUs meet thresholds exactly; some of those have no area.
    """
    corner = torch.rand(count, 2, generator=generator) * 100
    extent = torch.rand(count, 2, generator=generator) * 60
    corner[::3], extent[::3] = (corner[::3] / 20).floor() * 20, (extent[::3] / 10).floor() * 20
    scores = (torch.randperm(count, generator=generator) + 1) / (count + 1)
    return torch.cat([corner, corner + extent], 1), (scores * 10).ceil() / 10 if ties else scores


def random_rois(count: int, images: int, generator: torch.Generator) -> torch.Tensor:
    """(n, 5) RoIs for images of 160 x 224 pixels, some past the border, every tenth without area."""
    corner = torch.rand(count, 2, generator=generator) * torch.tensor([300., 230.]) - 60
    extent = torch.rand(count, 2, generator=generator) * 120
    extent[::10] = 0
    image = torch.randint(images, (count, 1), generator=generator)
    return torch.cat([image, corner, corner + extent], 1)


def nms_cases(device: str, offset: int, ties: bool):
    """Ours and the compiled operator's kept indices, case by case."""
    compiled = importlib.import_module('mmcv._ext')
    generator = torch.Generator().manual_seed(0)
    for count, threshold, _ in itertools.product(COUNTS, (0.3, 0.5, 0.6, 0.7), range(5)):
        boxes, scores = (tensor.to(device) for tensor in random_boxes(count, generator, ties))
        options = dict(iou_threshold=threshold, offset=offset)
        yield (ops.nms(boxes, scores, **options),), (compiled.nms(boxes, scores, **options),)


def softnms_cases(device: str, method: int, ties: bool):
    """Ours and the compiled operator's kept indices and new boxes with scores, case by case (always on the CPU)."""
    compiled = importlib.import_module('mmcv._ext')
    generator = torch.Generator().manual_seed(0)
    for count, offset, min_score, threshold in itertools.product(COUNTS, (0, 1), (0., 1e-3, 0.05, 0.5), (0.3, 0.5)):
        boxes, scores = random_boxes(count, generator, ties)
        results = []
        for operator in (ops.softnms, compiled.softnms):
            dets = boxes.new_zeros(count, 5)
            kept = operator(boxes, scores, dets, iou_threshold=threshold, sigma=0.5, min_score=min_score,
                            method=method, offset=offset)
            results.append((kept, dets[:len(kept)]))
        yield results


def roi_align_cases(device: str, mode: int, backward: bool):
    """Ours and the compiled operator's outputs (max: and the maxima's places), or gradients, case by case."""
    compiled = importlib.import_module('mmcv._ext')
    generator = torch.Generator().manual_seed(0)
    for count, size, ratio, aligned, stride in itertools.product((0, 1, 60), SIZES, (0, 1, 2), (True, False), (4, 7)):
        features = torch.randn(2, 6, 160 // stride, 224 // stride, generator=generator).to(device)
        rois = random_rois(count, 2, generator).to(device)
        gradient = torch.randn(count, 6, *size, generator=generator).to(device)
        options = dict(aligned_height=size[0], aligned_width=size[1], spatial_scale=1 / stride,
                       sampling_ratio=ratio, pool_mode=mode, aligned=aligned)
        results = []
        for module in (ops, compiled):
            outputs = [torch.zeros_like(gradient) for _ in range(3)]
            module.roi_align_forward(features, rois, *outputs, **options)
            if backward:
                total = torch.zeros_like(features)
                module.roi_align_backward(gradient, rois, *outputs[1:], total, **options)
                outputs = [total]
            results.append(outputs)
        yield results


def compare(device: str = 'cpu') -> list[dict]:
    """One row per operator and option: number of cases, cases with another shape or other indices, and the largest
    absolute difference of a value. Needs compiled operators."""
    runs = {('nms', f'offset {offset}', ties): nms_cases(device, offset, ties)
            for ties in (False, True) for offset in (0, 1)}
    runs |= {('softnms', METHODS[method], ties): softnms_cases(device, method, ties)
             for ties in (False, True) for method in METHODS}
    runs |= {(f'roi_align_{way}', name, False): roi_align_cases(device, mode, way == 'backward')
             for way in ('forward', 'backward') for mode, name in ((ops.AVG, 'avg'), (ops.MAX, 'max'))}
    rows = []
    for (operator, option, ties), cases in runs.items():
        row = dict(operator=operator, option=option, scores='tied' if ties else '', cases=0, differ=0, largest=0.)
        for ours, theirs in cases:
            row['cases'] += 1
            if any(a.shape != b.shape or (not a.is_floating_point() and not a.equal(b))
                   for a, b in zip(ours, theirs, strict=True)):
                row['differ'] += 1
                continue
            for a, b in zip(ours, theirs, strict=True):
                different = (a - b).abs()[(a != b) & ~(a.isnan() & b.isnan())]  # both NaN: 0 / 0 in both
                row['largest'] = max([row['largest'], *different.double().tolist()])
        rows.append(row)
    return rows
