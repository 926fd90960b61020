"""The sections of a report that belong to one task: precision and recall, errors, confusion."""
import math
from collections.abc import Sequence

import numpy as np

from ..evaluation.coco_eval import RECALLS
from ..visualization.curves import plot_lines, plot_matrix
from ..visualization.page import Bars, Block, Details, Heading, Picture, Pictures, Section, Table, Text
from .confusion import most_confused, row_shares
from .error_breakdown import MEANINGS
from .overlaps import KINDS
from .sections import Evaluated

PAIRS = 15
CURVE_IOUS = {'IoU 0.5': 0.5, 'IoU 0.5 to 0.95': None, 'IoU 0.75': 0.75}


def detection_sections(runs: Sequence[Evaluated]) -> list[Section]:
    """Precision and recall, error types and confusion of one detector, or of two."""
    if len(runs[0].results.names) == 1:
        return [_precision_section(runs), _errors_section(runs), _one_class_section(runs)]
    return [_precision_section(runs), _errors_section(runs), _confusion_section(
        runs, 'Class-agnostic greedy matching: each box with a score of at least 0.3, the most certain first, takes '
              'the free object of any class that it overlaps most, with an IoU of at least 0.5. Row background: '
              'detections without an object. Column background: objects without a detection.')]


def segmentation_sections(runs: Sequence[Evaluated]) -> list[Section]:
    """Confusion of one segmentor, or of two."""
    return [_confusion_section(runs, 'The predicted class of the pixels of each class; ignored pixels are left out.')]


def _precision_section(runs: Sequence[Evaluated]) -> Section:
    measured = [run for run in runs if not math.isnan(run.results.evaluations['bbox'].ap())]
    if not measured:
        return Section('Precision and recall', [Text('No object is annotated, so there is nothing to measure.')])
    ious = list(CURVE_IOUS.items())[:3 if len(runs) == 1 else 2]  # more lines than four cannot be told apart
    pictures = []
    for kind, word in KINDS.items():
        lines = [_curve(run, kind, label if len(runs) == 1 else f'{run.name}, {label}', iou)
                 for run in measured if kind in run.results.kinds for label, iou in ious]
        if lines:
            names = runs[0].results.names
            pictures.append(_curves(lines, f'{word}, {names[0] if len(names) == 1 else "mean over the classes"}'))
    if len(runs) == 1 and len(runs[0].results.names) > 1:
        pictures.append(_class_curves(runs[0]))
    return Section('Precision and recall', [
        Text('Precision at 101 recalls, interpolated as in COCO\'s evaluation; the area below a curve is the AP.'),
        Pictures(pictures)])


def _curve(run: Evaluated, kind: str, label: str, iou: float | None, category: int | None = None
           ) -> tuple[str, Sequence[float], Sequence[float]]:
    """A curve labelled with the area below it."""
    ap = 100 * run.results.evaluations[kind].ap(iou, category=category)
    return f'{label}, AP {ap:.1f}', RECALLS, run.results.evaluations[kind].curve(iou, category)


def _class_curves(run: Evaluated) -> Picture:
    results = run.results
    values = [results.evaluations['bbox'].ap(0.5, category=category) for category in results.category_ids]
    known = sorted((entry for entry in zip(values, results.names, results.category_ids, results.class_counts(),
                                           strict=True) if not math.isnan(entry[0])), key=lambda entry: -entry[0])
    shown = known if len(known) <= 6 else known[:3] + known[-3:]
    lines = [_curve(run, 'bbox', f'{name}, {count} objects', 0.5, category) for _, name, category, count in shown]
    return _curves(lines, 'box, IoU 0.5, ' + ('every class' if len(known) <= 6 else 'best and worst classes'))


def _curves(lines, title: str) -> Picture:
    data = plot_lines(lines, title, 'recall', 'precision', (0, 1.03))
    return Picture(data, f'Precision over recall: {title}.', f'precision-recall curves, {title}')


def _errors_section(runs: Sequence[Evaluated]) -> Section:
    blocks: list[Block] = [Text(
        'How much AP (at IoU 0.5, points) fixing all errors of one type would bring: the types of TIDE (Bolya et al., '
        'ECCV 2020) at a foreground IoU of 0.5 and a background IoU of 0.1. The gains do not add up.')]
    measured = {kind: [(run.name, run.results.errors[kind]) for run in runs if run.results.errors.get(kind)]
                for kind in KINDS}
    if len(runs) == 1:  # boxes and masks beside each other
        groups = {'': [(KINDS[kind], errors) for kind, found in measured.items() for _, errors in found]}
    else:
        groups = {KINDS[kind]: found for kind, found in measured.items()}
    groups = {group: found for group, found in groups.items() if found}
    impossible = ('Cls', 'Both') if len(runs[0].results.names) == 1 else ()  # with one class
    for group, found in groups.items():
        names = [name for name, _ in found]
        gains = [(f'{name}: {meaning}', [100 * errors.gains[name] for _, errors in found])
                 for name, meaning in MEANINGS.items() if name not in impossible]
        blocks += [Heading(group)] if group else []
        blocks.append(Bars(names, gains, max(max(values) for _, values in gains) or 1))
        rows = [[name, *(errors.counts[name] for _, errors in found)] for name in MEANINGS if name not in impossible]
        blocks.append(Details('How many there are', [Table(['type', *names], rows)]))
        now = ', '.join(f'{name} {100 * errors.ap:.1f}' for name, errors in found)
        blocks.append(Text(f'AP at IoU 0.5 as it is: {now}.'))
    if not groups:
        blocks = [Text('No object is annotated, so there are no errors to classify.')]
    return Section('Errors', blocks)


def _one_class_section(runs: Sequence[Evaluated]) -> Section:
    """What a confusion matrix of one class and background says, as numbers."""
    header = ['', *(['objects'] if len(runs) == 1 else [run.name for run in runs])]
    columns = [[int(matrix[0].sum()), int(matrix[0, 0]), int(matrix[0, 1]), int(matrix[1, 0])]
               for matrix in (run.results.confusion for run in runs)]
    labels = ('annotated', 'found', 'missed', 'detections without an object')
    return Section('Found and missed', [
        Text('Boxes with a score of at least 0.3, the most certain first, take the free object that they overlap most, '
             'with an IoU of at least 0.5.'),
        Table(header, [[label, *values] for label, values in zip(labels, zip(*columns, strict=True), strict=True)])])


def _confusion_section(runs: Sequence[Evaluated], meaning: str) -> Section:
    blocks: list[Block] = [Text(f'{meaning} Rows are the ground truth and add up to 1.')]
    pictures, tables = [], []
    for run in runs:
        matrix, names = run.results.confusion, run.results.names
        shares = row_shares(matrix)
        labels = names if len(matrix) == len(names) else [*names, 'background']
        of_run = '' if len(runs) == 1 else f' of {run.name}'
        shown = np.flatnonzero(matrix.sum(axis=0) + matrix.sum(axis=1))  # the classes that occur at all
        if shown.size:
            titles = [labels[i] for i in shown]
            picture = plot_matrix(shares[np.ix_(shown, shown)], titles, f'confusion{of_run}, share of the row',
                                  'prediction', 'ground truth')
            pictures.append(Picture(picture, _numbering(titles), f'confusion matrix{of_run}'))
        pairs = most_confused(matrix[:len(names), :len(names)], PAIRS)
        if pairs:
            rows = [(names[true], names[predicted], int(matrix[true, predicted]), float(100 * shares[true, predicted]))
                    for true, predicted in pairs]
            unit = 'objects' if len(matrix) > len(names) else 'pixels'
            tables += [Heading(f'Most confused classes{of_run}'),
                       Table(('ground truth', 'prediction', unit, 'per cent of the true class'), rows, decimals=1)]
        else:
            tables.append(Text(f'No class was confused with another{of_run}.'))
    return Section('Confusion', [*blocks, Pictures(pictures), *tables])


def _numbering(labels: Sequence[str]) -> str:
    if len(labels) <= 20:
        return 'Numbers are per cent of the row; below 0.5 they are left out.'
    every_tenth = ', '.join(f'{i} {labels[i]}' for i in range(0, len(labels), 10))
    return f'The {len(labels)} classes that occur, in the order of their labels: {every_tenth}.'
