"""The sections of a report that detectors and segmentors share; every one takes one run, or two to compare."""
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ..engine.reproduce import METRIC_KEYS, VALIDATION_IMAGES
from ..errors import UserError
from ..mm import environment
from ..recipes.model_info import model_info
from ..visualization.curves import losses_in, plot_curves, plot_lines
from ..visualization.page import (
    Bars,
    Block,
    Code,
    Details,
    Heading,
    KeyMetrics,
    Legend,
    Panels,
    Picture,
    Pictures,
    Section,
    Table,
    Text,
    encode_jpeg,
)
from .image_scores import choose, most_different
from .work_dir import WorkDir, own_input

if TYPE_CHECKING:  # each needs one of mmdet and mmseg
    from .det_results import DetectionResults
    from .seg_results import SegmentationResults

MANY_CLASSES = 40  # beyond it, bars show the ends of the list, and the whole list opens on request
SHOWN = 15
PICTURE_SIDE = 640  # pixels of the longer side
FEW_OBJECTS = 20
MEASURES = {'det': 'AP over IoU 0.5 to 0.95, per cent (in brackets the number of objects)', 'seg': 'IoU, per cent'}
COUNTED = {'det': 'objects', 'seg': 'pixels'}
QUALITY = {'det': 'F1 is that of the boxes with a score of at least 0.3, right with their own class and IoU 0.5.',
           'seg': 'mIoU of an image is over the classes that are annotated or predicted in it; a confused area is all '
                  'pixels of one class that were predicted as one other class, in per cent of the labelled pixels.'}
MARKED = {'det': 'The box that a caption is about is marked in black and white, where it was predicted or should have '
                 'been.',
          'seg': 'The largest area that a caption is about is marked in black and white.'}


@dataclass
class Evaluated:
    """A work dir and the evaluation of its predictions; `name` is unique on the page."""
    name: str
    work: WorkDir
    predictions_file: Path
    results: 'DetectionResults | SegmentationResults'


def key_metrics(runs: Sequence[Evaluated]) -> KeyMetrics:
    """The main metrics, large."""
    shown = []
    for run in runs:
        metrics = dict(run.results.metrics())
        for name in ('box AP', 'mask AP', 'mIoU', 'aAcc'):
            if metrics.get(name) is not None:
                shown.append((f'{metrics[name]:.1f}', name + (f', {run.name}' if len(runs) > 1 else '')))
    first, task = runs[0].results, runs[0].work.task
    shown.append((f'{len(first.predictions):,}', 'test images'))
    if task == 'det':
        shown.append((f'{sum(first.class_counts()):,}', 'annotated objects'))
    return KeyMetrics(shown)


def metrics_section(runs: Sequence[Evaluated]) -> Section:
    """All metrics, the published ones beside them."""
    columns = [dict(run.results.metrics()) for run in runs]
    recipes = {run.work.recipe.name: run.work.recipe for run in runs if run.work.recipe}
    counts = runs[0].results.metric_counts()
    header = ['metric, per cent', *_names(runs, 'here'), *(['difference'] if len(runs) == 2 else []),
              *('published' if len(recipes) == 1 else f'published, {name}' for name in recipes),
              *(['objects'] if counts else [])]
    rows = []
    for name in columns[0] | columns[-1]:
        values = [column.get(name) for column in columns]
        rows.append([name, *values, *_difference(values), *(recipe.metrics.get(name) for recipe in recipes.values()),
                     *([counts.get(name)] if counts else [])])
    blocks: list[Block] = [Table(header, rows, decimals=2, signed=[3] if len(runs) == 2 else [])]
    few_objects = [name for name, count in counts.items() if 0 < count < FEW_OBJECTS]
    if few_objects:
        blocks.append(Text(f'{", ".join(few_objects)}: fewer than {FEW_OBJECTS} objects; chance decides such a value.'))
    images, usual = len(runs[0].results.predictions), VALIDATION_IMAGES[runs[0].work.task]
    for name in recipes:
        blocks.append(Text(f'The published metrics are those of {name}, on {usual} validation images' + (
            '.' if images == usual else f'; here there are {images}, so the two cannot be compared.')))
    for run in runs:
        if run.work.recipe is None:
            blocks.append(Text(f'{run.name} has no published metrics: its config is none of the published recipes.'))
        blocks += [Text(sentence) for sentence in _other_metrics(run)]
    return Section('Metrics', blocks)


def training_section(runs: Sequence[Evaluated]) -> Section:
    """Loss and metric curves."""
    logged = [run for run in runs if run.work.curves]
    blocks = [Text(f'{run.name} has no training log (<time>/vis_data/scalars.json).')
              for run in runs if not run.work.curves]
    if not logged:
        return Section('Training', blocks)
    if len(runs) == 1:
        curves = logged[0].work.curves
        losses = plot_curves(curves, losses_in(curves), 'training loss', 'loss')
    else:
        losses = plot_lines([(run.name, run.work.curves['loss'].steps, run.work.curves['loss'].values)
                             for run in logged if 'loss' in run.work.curves], 'training loss', 'iteration', 'loss')
    pictures = [Picture(losses, 'Loss, as logged during training.', 'plot of the training loss')]
    lines = [(f'{name if len(runs) == 1 else f"{run.name}: {name}"}, last {factor * curves[key].values[-1]:.1f}',
              curves[key].steps, [factor * value for value in curves[key].values])
             for run in logged for curves in [run.work.curves] for name, (key, factor) in METRIC_KEYS.items()
             if key in curves and 'flip' not in name]
    if lines:
        top = 1.05 * max(max(values) for _, _, values in lines) or 1
        pictures.append(Picture(plot_lines(lines, 'validation while training', 'iteration', 'per cent', (0, top)),
                                'Measured on the validation images during training.', 'plot of the validation metrics'))
    else:
        blocks.append(Text('No validation was logged during training.'))
    return Section('Training', [Pictures(pictures), *blocks])


def classes_section(runs: Sequence[Evaluated]) -> Section:
    """Per-class metrics as bars and, with counts, as a table."""
    names, task = runs[0].results.names, runs[0].work.task
    per_run = [run.results.class_values() for run in runs]
    main = next(iter(per_run[0]))
    if len(runs) == 1:
        series = [key for key in per_run[0] if key != 'accuracy']
        values = list(zip(*(per_run[0][key] for key in series), strict=True))
    else:
        series, values = [run.name for run in runs], list(zip(*(each[main] for each in per_run), strict=True))
    counts = [f' ({count:,})' if task == 'det' else '' for count in runs[0].results.class_counts()]
    rows = [(f'{name}{count}', row) for name, count, row in zip(names, counts, values, strict=True)
            if row[0] is not None or row[-1] is not None]
    gap = {name: abs(_difference(row)[0] or 0) if len(runs) == 2 else row[0] or 0 for name, row in rows}
    rows.sort(key=lambda row: -gap[row[0]])
    order = 'the best first' if len(runs) == 1 else f'the largest differences of {main} first'
    blocks: list[Block] = [Text(f'{MEASURES[task]}; {order}.')]
    if len(names) == 1:
        return Section('Classes', [Text(f'{names[0]} is the only class; the metrics above are its own.')])
    absent = len(names) - len(rows)
    if absent:
        blocks.append(Text(f'{absent} of {len(names)} classes do not occur in the test set and are left out.'))
    if len(rows) <= MANY_CLASSES:
        blocks.append(Bars(series, rows, 100))
    elif len(runs) == 2:
        blocks.append(Bars(series, rows[:2 * SHOWN], 100))
    else:
        blocks += [Heading(f'The best {SHOWN}'), Bars(series, rows[:SHOWN], 100),
                   Heading(f'The worst {SHOWN}'), Bars(series, rows[-SHOWN:], 100)]
    return Section('Classes', [*blocks, Details('All classes as a table', [_class_table(runs, per_run)])])


def images_section(runs: Sequence[Evaluated], count: int) -> Section:
    """The best, worst and most surprising images of one run, or those that two runs predicted most differently."""
    task, first = runs[0].work.task, runs[0].results
    if not count:
        return Section('Images', [Text('Left out (--images 0).')])
    if len(runs) == 1:
        groups = choose(first.scores, count)
        shown = [one.score.index for chosen in groups.values() for one in chosen]
        blocks = [Text(QUALITY[task]), *_legend(first, shown)]
        for group, chosen in groups.items():
            marked = any(one.mark for one in chosen)
            blocks += [Heading(f'The {group}'), *([Text(MARKED[task])] if marked else []),
                       _pictures([(first.panels(one.score.index, mark=one.mark),
                                   f'{first.image_name(one.score.index)}: {one.caption}') for one in chosen], marked)]
        return Section('Images', blocks)
    second = runs[1].results
    if [first.image_name(i) for i in range(len(first.predictions))] != \
            [second.image_name(i) for i in range(len(second.predictions))]:
        return Section('Images', [Text('The two were evaluated on different images, which cannot be compared.')])
    pairs = most_different(first.scores, second.scores, 2 * count)
    if not pairs:
        return Section('Images', [Text('The two predicted every image equally well.')])
    shown = []
    for one, other in pairs:
        panels = first.panels(one.index, runs[0].name) + second.panels(one.index, runs[1].name)[1:]
        shown.append((panels, f'{first.image_name(one.index)}: {runs[0].name} {one.summary}; '
                              f'{runs[1].name} {other.summary}'))
    return Section('Images', [Heading('Where the two differ most'), Text(QUALITY[task]),
                              *_legend(first, [one.index for one, _ in pairs]), _pictures(shown, wide=True)])


def model_section(runs: Sequence[Evaluated]) -> Section:
    """Size, speed, weights and data."""
    columns, notes = [], []
    for run in runs:
        params = flops = None
        file, of_run = run.work.checkpoint, f'{run.name}: ' * (len(runs) == 2)
        try:
            own = None if run.work.recipe else own_input(run.work.cfg, run.results.image_file(0))
            info = model_info(run.work.cfg, own)
            params, flops = info['params'] / 1e6, info['flops'] / 1e9
            notes.append(Text('{}FLOPs are multiply-accumulates for an input of {} x {} pixels{}.'.format(
                of_run, *info['input'], ', as the first test image has it after resizing' if own else '')))
        except UserError as error:
            notes.append(Text(f'{of_run}Parameters and FLOPs are left out: {error}.'))
        weights = run.work.weights
        notes.append(Text(f'{of_run}The weights are {weights}.' if weights else f'{of_run}No checkpoint is left.'))
        columns.append([params, flops, run.work.images_per_second(run.predictions_file.parent),
                        file.stat().st_size / 1e6 if file else None])
    labels = ('parameters, millions', 'FLOPs, G', 'images per second', 'checkpoint file, MB')
    rows = [[label, *values, *_difference(values)]
            for label, values in zip(labels, zip(*columns, strict=True), strict=True)]
    header = ['', *_names(runs, 'value'), *(['difference'] if len(runs) == 2 else [])]
    notes.append(Text('Images per second are those of the evaluation that made the predictions, loading included, in '
                      'one process; – where its log is gone.'))
    return Section('Model', [Table(header, rows, decimals=2, signed=[3] if len(runs) == 2 else []), *notes])


def origin_section(runs: Sequence[Evaluated]) -> Section:
    """What is needed to repeat the runs: configs and versions."""
    blocks: list[Block] = [Details(f'Config of {run.name}', [Code(run.work.config_text)]) for run in runs]
    versions = Table(('package', 'version'), list(environment.versions().items()))
    return Section('Config and versions', [*blocks, Details('Versions that made this report', [versions])])


def _names(runs: Sequence[Evaluated], alone: str) -> list[str]:
    return [alone] if len(runs) == 1 else [run.name for run in runs]


def _difference(values: Sequence[float | None]) -> list[float | None]:
    """[second - first] of two values, nothing of one."""
    if len(values) != 2:
        return []
    return [None if None in values else values[1] - values[0]]


def _other_metrics(run: Evaluated) -> list[str]:
    """A sentence for each value in metrics.json that differs from what the predictions give."""
    file = run.predictions_file.parent / 'metrics.json'
    if not file.is_file():
        return []
    try:
        written, ours = dict(json.loads(file.read_text(errors='replace'))), dict(run.results.metrics())
    except (ValueError, TypeError, RecursionError):
        return [f'{file} cannot be read: it is damaged or cut off.']
    sentences = []
    for name, (key, factor) in METRIC_KEYS.items():
        theirs = written.get(key)
        # the evaluators write AP with three decimals, mIoU with two
        if ours.get(name) is not None and isinstance(theirs, (int, float)) and not math.isclose(
                ours[name], factor * theirs, abs_tol=0.051 if factor == 100 else 0.0051):
            sentences.append(f'{file} says {factor * theirs:.2f} {name}, the predictions beside it give '
                             f'{ours[name]:.2f}: they are of different evaluations.')
    return sentences


def _class_table(runs: Sequence[Evaluated], per_run: Sequence[dict[str, list]]) -> Table:
    header = ['class', COUNTED[runs[0].work.task]]
    columns = [runs[0].results.names, runs[0].results.class_counts()]
    for key in per_run[0]:
        values = [each[key] for each in per_run if key in each]
        header += [key] if len(runs) == 1 else [f'{key}, {run.name}' for run in runs[:len(values)]]
        columns += values
        if len(values) == 2:
            header.append(f'{key}, difference')
            columns.append([_difference(pair)[0] for pair in zip(*values, strict=True)])
    signed = [i for i, name in enumerate(header) if name.endswith('difference')]
    return Table(header, list(zip(*columns, strict=True)), decimals=2, signed=signed)


def _legend(results, indices: Sequence[int]) -> list[Legend]:
    entries = results.legend(indices)
    return [Legend(entries)] if entries else []


def _pictures(shown: Sequence[tuple[list[tuple[str, np.ndarray]], str]], wide: bool = False) -> Pictures:
    return Pictures([Panels([(title, encode_jpeg(_shrunk(image), 80)) for title, image in panels], caption)
                     for panels, caption in shown], wide)


def _shrunk(image: np.ndarray) -> np.ndarray:
    factor = PICTURE_SIDE / max(image.shape[:2])
    return image if factor >= 1 else cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
