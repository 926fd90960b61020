"""From work dirs to the finished page."""
import time
from collections.abc import Sequence
from pathlib import Path

from mmengine.logging import print_log

from ..errors import UserError
from ..utils.files import check_writable
from ..visualization.page import Block, Section, render_page, write_text
from . import sections
from .evaluating import find_predictions, load_predictions
from .sections import Evaluated
from .task_sections import detection_sections, segmentation_sections
from .work_dir import WorkDir, open_work_dir

TASK_NAMES = {'det': 'Detection', 'seg': 'Segmentation'}


def write_report(work_dirs: Sequence[Path], out: Path, checkpoint: str | None = None, images: int = 4,
                 data_root: str | None = None, predictions: Path | None = None, trust_pickle: bool = False) -> Path:
    """Write the page about one work dir, or about two: two of one task side by side, else one below the other.

    Args:
        work_dirs: one or two folders that `tools/train.py` or `tools/test.py` wrote.
        out: the HTML file.
        checkpoint: evaluate these weights, even if there are predictions; only with one work dir.
        images: how many pictures of each kind (best, worst, ...).
        data_root: folder of the data, where the configs' is not right (any more).
        predictions: read this file, and evaluate nothing; only with one work dir.
        trust_pickle: also read a predictions.pkl of an earlier version, which can run any code.

    Returns:
        `out`.

    Raises:
        UserError: a work dir without a config, without predictions and weights, two that do not compare, or a place
            that cannot be written.
    """
    if not 1 <= len(work_dirs) <= 2:
        raise UserError(f'a report is about one work dir, or compares two, found {len(work_dirs)}')
    if len(work_dirs) != 1 and (checkpoint is not None or predictions is not None):
        raise UserError('--checkpoint belongs to one work dir: name only one')
    check_writable(out)  # before an evaluation that takes hours
    found = [open_work_dir(path, checkpoint, data_root) for path in work_dirs]
    names = [work.name for work in found]
    if len(set(names)) < len(names):
        names = [str(work.path) for work in found]
    runs = [_evaluate(name, work, predictions or find_predictions(work, checkpoint is not None, trust_pickle))
            for name, work in zip(names, found, strict=True)]
    groups = [runs] if len({work.task for work in found}) == 1 else [[run] for run in runs]
    if len(groups) == 1 and runs[0].results.names != runs[-1].results.names:
        raise UserError(f'{found[0].path} and {found[1].path} have different classes: compare two runs of one data set')
    blocks = [block for group in groups for block in _blocks(group, images, titled=len(groups) > 1)]
    write_text(out, render_page(' and '.join(names), ' '.join(map(_lead, groups)), blocks))
    return Path(out)


def _evaluate(name: str, work: WorkDir, file: Path) -> Evaluated:
    print_log(f'{name}: reading {file}', logger='current')
    predictions, dataset = load_predictions(file), work.test_set()
    if work.task == 'det':  # imported here, since each needs one of mmdet and mmseg
        from .det_results import DetectionResults
        results = DetectionResults(dataset, predictions)
    else:
        from .seg_results import SegmentationResults
        results = SegmentationResults(dataset, predictions, work.cfg.test_dataloader.dataset.pipeline)
    return Evaluated(name, work, file, results)


def _lead(runs: Sequence[Evaluated]) -> str:
    """What runs of one task are, and where their predictions come from."""
    first = runs[0].results
    classes = f'{len(first.names)} class{"es" * (len(first.names) != 1)}'
    lead = [f'{TASK_NAMES[runs[0].work.task]}, {len(first.predictions)} test images, {classes}.']
    for run in runs:
        made = time.strftime('%Y-%m-%d %H:%M', time.localtime(run.predictions_file.stat().st_mtime))
        lead.append(f'{run.name}: {run.predictions_file}, made {made}.')
    return ' '.join(lead)


def _blocks(runs: Sequence[Evaluated], images: int, titled: bool) -> list[Block]:
    """The parts of a page about one run, or two of one task; `titled` puts the task before every heading."""
    task = runs[0].work.task
    own = detection_sections(runs) if task == 'det' else segmentation_sections(runs)
    parts = [sections.metrics_section(runs), sections.training_section(runs), sections.classes_section(runs), *own,
             sections.images_section(runs, images), sections.model_section(runs), sections.origin_section(runs)]
    if titled:
        parts = [Section(f'{TASK_NAMES[task]}: {part.heading.lower()}', part.blocks) for part in parts]
    return [sections.key_metrics(runs), *parts]
