"""Loss and metric curves from what mmengine's LocalVisBackend writes, `<run>/vis_data/scalars.json`."""
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..errors import UserError

COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#444444')  # after Okabe and Ito
STYLES = ('-', '--', ':')
Line = tuple[str, Sequence[float], Sequence[float]]


@dataclass
class Curve:
    """One logged quantity: `values` at training iterations `steps`, both of length N, steps rising."""
    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


def read_scalars(work_dir) -> dict[str, Curve]:
    """Read everything logged in a work dir, over all its runs; a resumed run replaces the steps that it repeats.

    Args:
        work_dir: folder with `<timestamp>/vis_data/scalars.json`.

    Returns:
        name -> curve, for the training's values (`loss`, `lr`, ...) and the evaluations' (`coco/bbox_mAP`, `mIoU`).

    Raises:
        UserError: no scalars file there.
    """
    files = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))
    # a test run logs rows without a step
    rows = [row for file in files for row in read_log(file) if isinstance(row.get('step'), int)]
    if not rows:
        raise UserError(f'{work_dir} has no training log: expected <timestamp>/vis_data/scalars.json, '
                        'as the config\'s LocalVisBackend writes it')
    points: dict[str, dict[int, float]] = {}
    trained = 0
    for row in rows:
        # an evaluation counts in iterations, epochs or not at all, depending on the config: it belongs to the last
        # training iteration logged before it
        step = row['step'] if 'lr' in row else max(row['step'], trained)
        trained = step
        for name, value in row.items():
            if name not in ('step', 'iter', 'epoch') and isinstance(value, int | float):
                points.setdefault(name, {})[step] = value
    return {name: Curve(sorted(by_step), [by_step[s] for s in sorted(by_step)]) for name, by_step in points.items()}


def read_log(file: Path) -> list[dict]:
    """The rows of one JSON log of mmengine; what is no JSON object, as a line cut off by a kill, is skipped."""
    rows = []
    for line in file.read_text(errors='replace').splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def losses_in(curves: Mapping[str, Curve]) -> list[str]:
    """Names of the losses among logged curves, the total first."""
    names = [name for name in curves if name.rsplit('.', 1)[-1].startswith('loss') and name != 'loss']
    return ['loss'] * ('loss' in curves) + names


def plot_curves(curves: Mapping[str, Curve], names: Sequence[str], title: str, y_label: str,
                limits: tuple[float, float] | None = None) -> bytes:
    """Draw curves over the training iteration as a PNG picture, readable on a phone.

    Args:
        curves: as `read_scalars` returns them.
        names: which of them to draw, in the order of the legend.
        title, y_label: texts.
        limits: range of the y axis; default from 0 to a little above the largest value.
    """
    return plot_lines([(name, curves[name].steps, curves[name].values) for name in names], title, 'iteration', y_label,
                      limits)


def plot_lines(lines: Sequence[Line], title: str, x_label: str, y_label: str,
               limits: tuple[float, float] | None = None) -> bytes:
    """Draw (name, x values, y values) lines as a PNG picture, readable on a phone.

    Args:
        lines: in the order of the legend; points are marked where a line has fewer than 25.
        title, x_label, y_label: texts.
        limits: range of the y axis; default from 0 to a little above the largest value.
    """
    figure = Figure(figsize=(6, 3.9), dpi=150, layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for index, (name, x, y) in enumerate(lines):
        axes.plot(x, y, color=COLOURS[index % len(COLOURS)], label=name, linewidth=1.8,
                  linestyle=STYLES[index // len(COLOURS) % len(STYLES)], marker='o' if len(x) < 25 else None,
                  markersize=4)
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.set_ylim(*limits) if limits else axes.set_ylim(bottom=0)
    axes.xaxis.get_major_locator().set_params(integer=all(isinstance(v, int) for _, x, _ in lines for v in x))
    axes.grid(alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(fontsize='small', frameon=False)
    return _encode_png(figure)


def plot_matrix(matrix: np.ndarray, names: Sequence[str], title: str, x_label: str, y_label: str) -> bytes:
    """Draw a square matrix of shares from 0 to 1 as a PNG heat map; NaN stays white.

    Up to 20 rows have names and numbers; of more, every tenth is numbered, from 0.

    Args:
        matrix: float (N, N), rows from top to bottom.
        names: N texts.
        title, x_label, y_label: texts.
    """
    count, named = len(names), len(names) <= 20
    side = max(6.5, 2.6 + 0.45 * count) if named else 8  # pages show it some 800 pixels wide: letters stay readable
    figure = Figure(figsize=(side + 0.6, side), dpi=110, layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    shown = axes.imshow(matrix, cmap='Blues', vmin=0, vmax=1, interpolation='nearest')
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    ticks = range(count) if named else range(0, count, 10)
    axes.set_xticks(ticks, [names[i] for i in ticks] if named else ticks, rotation=90 if named else 0)
    axes.set_yticks(ticks, [names[i] for i in ticks] if named else ticks)
    for row, column in np.argwhere(matrix >= 0.005) if named else ():
        value = matrix[row, column]
        axes.text(column, row, f'{100 * value:.0f}', ha='center', va='center', fontsize=8,
                  color='white' if value > 0.5 else 'black')
    if not named:
        figure.colorbar(shown, shrink=0.7)
    return _encode_png(figure)


def _encode_png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', metadata={'Software': None})
    return buffer.getvalue()
