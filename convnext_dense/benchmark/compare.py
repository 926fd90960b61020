"""Ours and the stock stack in one interleaved run: same weights, same images, results checked to agree."""
import argparse
from pathlib import Path
from statistics import median

import numpy as np
import torch
from mmengine.config import Config
from torch import nn

from ..inference.predictor import Detections, Predictor, Segmentation
from .backbone import peak_memory
from .stock import stock_config
from .stopwatch import PARTS, Stopwatch, prediction_methods
from .timing import exact_float32, interleaved_medians

SIDES = ('stock', 'ours')
# largest difference of an agreeing result: share of pixels of a label map or of masks, pixels of a box
PIXELS, BOXES = 1e-3, 0.05


def build_pair(cfg: Config, checkpoint: str | None, device: str) -> dict[str, Predictor]:
    """Both stacks with the same weights: those of ``checkpoint``, or random ones whose scores are far from ties."""
    ours = Predictor(cfg, checkpoint, device, score_thr=0, optimize=False)
    stock = Predictor(stock_config(cfg), None, device, score_thr=0, optimize=False)
    if checkpoint is None:
        spread_scores(ours.model)
    stock.model.load_state_dict(ours.model.state_dict())
    return dict(stock=stock, ours=ours)


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
    whole = {side: lambda p=p: p.predict([p.load(file) for file in batch]) for side, p in predictors.items()}
    float32 = whole['stock']() if args.autocast else None
    for predictor in predictors.values():
        predictor.dtype = getattr(torch, args.autocast or 'float32')
    predictors['ours'].optimize()
    found = {side: whole[side]() for side in SIDES}  # warms up, too
    difference = check_same(*found.values(), exact=not args.autocast)
    seconds = {side: [] for side in SIDES}
    for _ in range(args.rounds):
        for side, predictor in predictors.items():
            with Stopwatch(prediction_methods(predictor), args.clock) as watch:
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
    if args.autocast:
        result['from_float32'] = {side: check_same(float32, found[side], exact=False) for side in SIDES}
    if args.memory:
        result['peak_memory_mb'] = {side: peak_memory(whole[side], args.device) / 1e6 for side in SIDES}
    return result


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
    shape = 'x'.join(map(str, result['network_input']))
    lines = [f"{Path(result['config']).stem}, {result['weights']} weights, {result['machine']}",
             f"network input {result['batch']}x{shape}, {result['autocast'] or 'float32'}, medians of "
             f"{result['rounds']} interleaved rounds, {result['clock']} clock", '',
             '| part | stock ms | ours ms | stock / ours |', '| --- | ---: | ---: | ---: |']
    lines += [f'| {name} | {stock:.1f} | {ours:.1f} | {stock / ours:.2f} |' for name, stock, ours in rows]
    lines.append('')
    lines.append(f"ratios of the rounds: {min(result['ratios']):.2f} to {max(result['ratios']):.2f}, median "
                 f"{median(result['ratios']):.2f}")
    if 'peak_memory_mb' in result:
        peak = result['peak_memory_mb']
        lines.append(f"peak memory: {peak['stock']:.0f} MB stock, {peak['ours']:.0f} MB ours")
    differences = {'of results': result['difference']}
    for side, found in result.get('from_float32', {}).items():
        differences[f'of {side} from stock in float32'] = found
    lines += [f'largest differences {of}: ' + ', '.join(f'{name} {value:.2g}' for name, value in found.items())
              for of, found in differences.items()]
    return '\n'.join(lines)
