"""Loss and metric curves from what mmengine's LocalVisBackend writes, `<run>/vis_data/scalars.json`."""
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..errors import UserError

COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#444444')  # after Okabe and Ito


@dataclass
class Curve:
    """One logged quantity: `values` at training iterations `steps`, both of length N, steps rising."""
    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


def read_scalars(work_dir) -> dict[str, Curve]:
    """Read everything logged in a work dir, over all its runs; where a resumed run repeats a step, the later wins.

    Args:
        work_dir: folder that holds `<timestamp>/vis_data/scalars.json`.

    Returns:
        name -> curve, for the training's values (`loss`, `lr`, ...) and the evaluations' (`coco/bbox_mAP`, `mIoU`).

    Raises:
        UserError: no scalars file there.
    """
    files = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    rows = [row for row in rows if 'step' in row]  # a test run logs rows without one
    if not rows:
        raise UserError(f'{work_dir} has no training log: expected <timestamp>/vis_data/scalars.json, '
                        'as the config\'s LocalVisBackend writes it')
    epoch_ends = {}
    for row in rows:
        if 'epoch' in row:
            epoch_ends[row['epoch']] = max(row['step'], epoch_ends.get(row['epoch'], 0))
    points: dict[str, dict[int, float]] = {}
    for row in rows:
        step = row['step']
        if 'lr' not in row and epoch_ends:  # an evaluation of epoch-based training counts in epochs
            step = epoch_ends.get(step, step)
        for name, value in row.items():
            if name not in ('step', 'iter', 'epoch') and isinstance(value, int | float):
                points.setdefault(name, {})[step] = value
    return {name: Curve(sorted(by_step), [by_step[s] for s in sorted(by_step)]) for name, by_step in points.items()}


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
    figure = Figure(figsize=(6, 3.9), dpi=150, layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for index, name in enumerate(names):
        curve = curves[name]
        axes.plot(curve.steps, curve.values, color=COLOURS[index % len(COLOURS)], label=name, linewidth=1.8,
                  marker='o' if len(curve.steps) < 25 else None, markersize=4)
    axes.set(title=title, xlabel='iteration', ylabel=y_label)
    axes.set_ylim(*limits) if limits else axes.set_ylim(bottom=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(fontsize='small', frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', metadata={'Software': None})
    return buffer.getvalue()
