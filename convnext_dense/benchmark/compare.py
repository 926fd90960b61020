"""Ours and the stock stack in one interleaved run: same weights, same images, results checked to agree."""
import argparse
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from statistics import median

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from torch import nn

from ..inference.predictor import Detections, Predictor, Segmentation
from .backbone import peak_memory
from .stock import stock_config
from .stopwatch import PARTS, Stopwatch
from .timing import exact_float32, interleaved_medians, interleaved_times

SIDES = ('stock', 'ours')
# largest difference of an agreeing result: share of pixels of a label map or of masks, pixels of a box
PIXELS, BOXES = 1e-3, 0.05


def build_pair(cfg: Config, checkpoint: str | None, device: str) -> dict[str, Predictor]:
    """Both stacks with the same weights: those of ``checkpoint``, or random ones whose scores are far from ties."""
    cfg = deepcopy(cfg)
    without_randomness(cfg.model)
    ours = Predictor(cfg, checkpoint, device, score_thr=0, optimize=False)
    stock = Predictor(stock_config(cfg), None, device, score_thr=0, optimize=False)
    if checkpoint is None:
        spread_scores(ours.model)
    stock.model.load_state_dict(ours.model.state_dict())
    return dict(stock=stock, ours=ours)


def without_randomness(model: dict) -> None:
    """Switch dropout and drop path off, so that training steps of the two can be compared."""
    model.backbone.drop_path_rate = 0.0
    for name in ('decode_head', 'auxiliary_head'):
        if name in model:
            model[name].dropout_ratio = 0.0


@torch.no_grad()
def spread_scores(model: nn.Module) -> None:
    """Make the classes of a random model differ, as those of a trained one do; equal scores are ordered by rounding."""
    for name, parameter in model.named_parameters():
        if name.endswith(('rpn_cls.weight', 'fc_cls.weight', 'conv_seg.weight', 'conv_logits.weight')):
            parameter.mul_(20)


@exact_float32()
def compare(predictors: dict[str, Predictor], batch: list[Path], args: argparse.Namespace) -> dict:
    """Median milliseconds of both sides, whole and by part, peak memory, and how far the results differ.

    Prediction is as `Predictor` does it by default: ours optimized for inference.

    Raises:
        ValueError: results differ by more than rounding explains, so a comparison would mean nothing.
    """
    def autocast(function: Callable) -> Callable:
        def call():
            with torch.autocast(args.device, getattr(torch, args.autocast or 'bfloat16'), enabled=bool(args.autocast)):
                return function()
        return call

    trainable = predictors['ours'].model
    predictors['ours'].optimize()
    whole = {side: autocast(lambda p=p: p.predict([p.load(file) for file in batch])) for side, p in predictors.items()}
    difference = check_same(*(whole[side]() for side in SIDES), exact=not args.autocast)  # warms up, too
    seconds = {side: [] for side in SIDES}
    for _ in range(args.rounds):
        for side, predictor in predictors.items():
            with Stopwatch(predictor, args.clock) as watch:
                watch.call('other', whole[side])
            seconds[side].append(dict(watch.seconds))
    if args.device == 'cpu':  # where the stopwatch waits for nothing, its parts are the whole
        latency = {side: median(sum(found.values()) for found in rounds) for side, rounds in seconds.items()}
    else:
        latency = interleaved_medians(whole, args.rounds, 1, args.clock)
    result = dict(latency_ms={side: 1e3 * value for side, value in latency.items()}, difference=difference)
    result['ratios'] = [sum(stock.values()) / sum(ours.values()) for stock, ours in zip(*seconds.values(), strict=True)]
    result['parts_ms'] = {side: {part: 1e3 * median(found.get(part, 0.0) for found in rounds) for part in PARTS
                                 if any(part in found for found in rounds)} for side, rounds in seconds.items()}
    if args.memory:
        result['peak_memory_mb'] = {side: peak_memory(whole[side], args.device) / 1e6 for side in SIDES}
    if args.train:
        predictors['ours'].model = trainable
        result |= compare_training(predictors, batch, args, autocast)
    return result


def compare_training(predictors: dict[str, Predictor], batch: list[Path], args: argparse.Namespace,
                     autocast: Callable) -> dict:
    """Median milliseconds of losses with gradients, on made targets; losses and gradients checked.

    At least two images: batch norm of UPerNet's 1x1 pool cannot train on one.
    """
    batch = batch if len(batch) > 1 else 2 * batch
    inputs = [predictors['ours'].load(file)['inputs'] for file in batch]
    samples = [make_targets(predictors['ours'], image.shape[1:], index) for index, image in enumerate(inputs)]
    for predictor in predictors.values():
        predictor.model.train().requires_grad_(True)

    def losses(model: nn.Module) -> torch.Tensor:
        torch.manual_seed(0)  # samplers of RoIs draw the same
        data = model.data_preprocessor(dict(inputs=inputs, data_samples=deepcopy(samples)), training=True)
        return model.parse_losses(model(**data, mode='loss'))[0]

    def step(model: nn.Module) -> float:
        model.zero_grad(set_to_none=True)
        loss = autocast(lambda: losses(model))()
        loss.backward()
        return loss.item()

    steps = {side: lambda model=p.model: step(model) for side, p in predictors.items()}
    values, norms = {}, {}
    for side, p in predictors.items():
        state = deepcopy(p.model.state_dict())  # statistics of batch norm move
        values[side] = steps[side]()
        norms[side] = torch.stack([q.grad.norm() for q in p.model.parameters() if q.grad is not None]).norm().item()
        p.model.load_state_dict(state)
    check_close('loss', values, 1e-4 if not args.autocast else 0.02)
    check_close('norm of all gradients', norms, 1e-2 if not args.autocast else 0.2)
    times = interleaved_times(steps, args.rounds, 0, args.clock)
    found = dict(images=len(batch), loss=values, gradient_norm=norms,
                 step_ms={side: 1e3 * median(times[side]) for side in SIDES},
                 ratios=[stock / ours for stock, ours in zip(*(times[side] for side in SIDES), strict=True)])
    if args.memory:
        found['peak_memory_mb'] = {side: peak_memory(steps[side], args.device) / 1e6 for side in SIDES}
    return dict(training=found)


def make_targets(predictor: Predictor, size: tuple[int, int], seed: int) -> DetDataSample | SegDataSample:
    """A data sample with made annotations: eight objects, or blocks of random classes."""
    height, width = size
    draw = np.random.default_rng(seed)
    meta = dict(img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size, scale_factor=(1.0, 1.0))
    if predictor.task == 'seg':
        blocks = draw.integers(0, len(predictor.classes), (height // 32 + 1, width // 32 + 1))
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
                                       labels=torch.from_numpy(draw.integers(0, len(predictor.classes), 8)))
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4))
    return sample


def check_close(what: str, values: dict[str, float], tolerance: float) -> None:
    stock, ours = (values[side] for side in SIDES)
    if not abs(ours - stock) <= tolerance * abs(stock):
        raise ValueError(f'{what} differs: {stock:g} of the stock stack, {ours:g} of ours')


def check_same(stock: list, ours: list, exact: bool) -> dict:
    """Largest differences over the images; ValueError where they are more than rounding, if they are to be exact."""
    found = dict(pixels=0.0)
    for one, other in zip(stock, ours, strict=True):
        if isinstance(one, Segmentation):
            found['pixels'] = max(found['pixels'], float((one.labels != other.labels).mean()))
            continue
        found |= compare_detections(one, other, found)
    if exact and (found['pixels'] > PIXELS or found.get('boxes', 0) > BOXES or found.get('unmatched')):
        raise ValueError(f'results of the two stacks differ: {found}')
    return found


def compare_detections(stock: Detections, ours: Detections, before: dict) -> dict:
    """Detections of one image, matched by class and nearest box; those without a partner are counted."""
    found = dict(pixels=before['pixels'], boxes=before.get('boxes', 0.0), scores=before.get('scores', 0.0),
                 unmatched=before.get('unmatched', 0), detections=before.get('detections', 0) + len(stock.labels))
    free = set(range(len(ours.labels)))
    for index, label in enumerate(stock.labels):
        partners = [other for other in free if ours.labels[other] == label]
        distance = [float(np.abs(ours.boxes[other] - stock.boxes[index]).max()) for other in partners]
        if not partners or min(distance) > 1:
            found['unmatched'] += 1
            continue
        partner = partners[int(np.argmin(distance))]
        free.remove(partner)
        found['boxes'] = max(found['boxes'], min(distance))
        found['scores'] = max(found['scores'], float(abs(ours.scores[partner] - stock.scores[index])))
        if stock.masks is not None:
            found['pixels'] = max(found['pixels'], float((ours.masks[partner] != stock.masks[index]).mean()))
    return found


def format_comparison(result: dict) -> str:
    """The figures as one Markdown table with ratios."""
    parts = result['parts_ms']
    rows = [(part, parts['stock'].get(part, 0.0), parts['ours'].get(part, 0.0)) for part in parts['stock']]
    rows.append(('whole', *(result['latency_ms'][side] for side in SIDES)))
    if 'training' in result:
        rows.append((f"losses and gradients of {result['training']['images']} images",
                     *(result['training']['step_ms'][side] for side in SIDES)))
    shape = 'x'.join(map(str, result['network_input']))
    lines = [f"{Path(result['config']).stem}, {result['weights']} weights, {result['machine']}",
             f"network input {result['batch']}x{shape}, {result['autocast'] or 'float32'}, medians of "
             f"{result['rounds']} interleaved rounds, {result['clock']} clock", '',
             '| part | stock ms | ours ms | stock / ours |', '| --- | ---: | ---: | ---: |']
    lines += [f'| {name} | {stock:.1f} | {ours:.1f} | {stock / ours:.2f} |' for name, stock, ours in rows]
    lines.append('')
    for what, found in (('prediction', result), ('training step', result.get('training', {}))):
        if 'ratios' in found:
            lines.append(f"ratios of the rounds, {what}: {min(found['ratios']):.2f} to {max(found['ratios']):.2f}, "
                         f"median {median(found['ratios']):.2f}")
        if 'peak_memory_mb' in found:
            peak = found['peak_memory_mb']
            lines.append(f"peak memory, {what}: {peak['stock']:.0f} MB stock, {peak['ours']:.0f} MB ours")
    lines.append('largest differences of results: '
                 + ', '.join(f'{name} {value:.2g}' for name, value in result['difference'].items()))
    if 'training' in result:
        loss, norm = (result['training'][key] for key in ('loss', 'gradient_norm'))
        lines.append(f"loss {loss['stock']:.6g} and {loss['ours']:.6g}, norm of all gradients {norm['stock']:.6g} and "
                     f"{norm['ours']:.6g}")
    return '\n'.join(lines)
