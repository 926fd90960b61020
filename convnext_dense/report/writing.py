"""From work dirs to the finished page."""
import pickle
import time
from collections.abc import Sequence
from pathlib import Path

from mmengine.logging import print_log

from ..errors import UserError
from ..visualization.page import render_page, write_text
from ..visualization.predictions import read_predictions
from . import sections
from .det_results import DetectionResults
from .evaluating import predictions_of
from .sections import Evaluated
from .seg_results import SegmentationResults
from .task_sections import detection_sections, segmentation_sections
from .work_dir import WorkDir, open_work_dir

TASK_NAMES = {'det': 'Detection', 'seg': 'Segmentation'}


def write_report(work_dirs: Sequence[Path], out: Path, checkpoint: str | None = None, images: int = 4,
                 data_root: str | None = None) -> Path:
    """Write the page about one work dir, or about two side by side.

    Args:
        work_dirs: one or two folders that `tools/train.py` or `tools/test.py` wrote.
        out: the HTML file.
        checkpoint: evaluate these weights, whatever predictions there are; only with one work dir.
        images: how many pictures of each kind (best, worst, ...).
        data_root: folder of the data, where the configs' is not right (any more).

    Returns:
        `out`.

    Raises:
        UserError: a work dir without a config, without predictions and weights, or two that do not compare.
    """
    if not 1 <= len(work_dirs) <= 2:
        raise UserError(f'a report is about one work dir, or compares two, found {len(work_dirs)}')
    if checkpoint is not None and len(work_dirs) != 1:
        raise UserError('--checkpoint belongs to one work dir: name only one')
    found = [open_work_dir(path, checkpoint, data_root) for path in work_dirs]
    if len({work.task for work in found}) > 1:
        raise UserError(f'{found[0].path} is a {TASK_NAMES[found[0].task].lower()} run and {found[1].path} a '
                        f'{TASK_NAMES[found[1].task].lower()} run: compare two of one task')
    names = [work.name for work in found]
    if len(set(names)) < len(names):
        names = [str(work.path) for work in found]
    runs = [_evaluate(name, work, checkpoint is not None) for name, work in zip(names, found, strict=True)]
    if runs[0].results.names != runs[-1].results.names:
        raise UserError(f'{found[0].path} and {found[1].path} have different classes: compare two runs of one data set')
    write_text(out, _page(runs, images))
    return Path(out)


def _evaluate(name: str, work: WorkDir, anew: bool) -> Evaluated:
    file = predictions_of(work, anew)
    print_log(f'{name}: reading {file}', logger='current')
    try:
        predictions = read_predictions(file)
    except (pickle.UnpicklingError, EOFError) as error:
        raise UserError(f'{file} cannot be read ({error}): it is damaged or cut off; remove it, and the report '
                        'evaluates again') from error
    dataset = work.test_set()
    if work.task == 'det':
        results = DetectionResults(dataset, predictions)
    else:
        results = SegmentationResults(dataset, predictions, work.cfg.test_dataloader.dataset.pipeline)
    return Evaluated(name, work, file, results)


def _page(runs: Sequence[Evaluated], images: int) -> str:
    task, first = runs[0].work.task, runs[0].results
    lead = [f'{TASK_NAMES[task]}, {len(first.predictions)} test images, {len(first.names)} classes.']
    for run in runs:
        made = time.strftime('%Y-%m-%d %H:%M', time.localtime(run.predictions_file.stat().st_mtime))
        lead.append(f'{run.name}: {run.predictions_file}, made {made}.')
    own = detection_sections(runs) if task == 'det' else segmentation_sections(runs)
    return render_page(' and '.join(run.name for run in runs), ' '.join(lead), [
        sections.key_figures(runs), sections.metrics_section(runs), sections.training_section(runs),
        sections.classes_section(runs), *own, sections.images_section(runs, images), sections.model_section(runs),
        sections.origin_section(runs)])
