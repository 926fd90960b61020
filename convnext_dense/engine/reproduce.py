"""Test published checkpoints by the published protocol and compare with the published metrics."""
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from mmengine.config import Config

from ..checkpoints import load_checkpoint
from ..config import load_config
from ..errors import UserError
from ..inference.protocols import use_ms_flip
from ..recipes.metafile import Recipe
from ..utils.files import atomic_write
from .runner import DenseRunner, prepare_testing

# Published metrics have one decimal. JPEG decoders, resizing and half precision differ a little between versions of
# the libraries; two units of the last decimal are allowed for that.
TOLERANCE = 0.2

# for each published metric, our name and the factor to per cent
METRIC_KEYS = {'box AP': ('coco/bbox_mAP', 100.0), 'mask AP': ('coco/segm_mAP', 100.0), 'mIoU': ('mIoU', 1.0),
               'mIoU(ms+flip)': ('mIoU', 1.0)}
FOLDERS = {'det': 'coco', 'seg': 'ade/ADEChallengeData2016'}
VALIDATION_IMAGES = {'det': 5000, 'seg': 2000}  # of COCO val2017 and of ADE20K validation
FETCH = {
    'det': 'fetch http://images.cocodataset.org/zips/val2017.zip and http://images.cocodataset.org/annotations/'
           'annotations_trainval2017.zip and unpack both there, as val2017/ and annotations/',
    'seg': 'fetch http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip and unpack it so that '
           'images/validation/ and annotations/validation/ lie there'}


@dataclass(frozen=True)
class ReproducedMetric:
    """One metric of a model-zoo entry, measured and published, in per cent.

    Attributes:
        images: how many were tested.
        verdict: 'reproduced' or 'differs'; 'no verdict' where the data is not the whole validation set.
    """
    recipe: str
    metric: str
    ours: float
    published: float
    tolerance: float
    images: int
    verdict: str


def reproduce(recipe: Recipe, multi_scale: bool = False, data_root: str | None = None, checkpoint: str | None = None,
              work_dir: str | None = None, cfg_options: list[str] | None = None) -> list[ReproducedMetric]:
    """Test a model-zoo entry's fine-tuned checkpoint by the published protocol.

    Args:
        recipe: a published one.
        multi_scale: ADE20K's second protocol: six scales, each plain and flipped, on whole images.
        data_root: folder of the data set; default: the config's.
        checkpoint: other weights than the published file, in any format that loads.
        work_dir: for logs and reproduce.json, or reproduce_multi-scale.json; default: work_dirs/reproduce/<name>.
        cfg_options: as of the tools.

    Raises:
        UserError: missing or incomplete data (what to fetch, and where to put it), no such protocol for the entry,
            weights that do not fit completely.
    """
    if multi_scale and recipe.task != 'seg':
        raise UserError(f'{recipe.name}: no multi-scale metric is published for COCO; leave --multi-scale out')
    work_dir = work_dir or f'work_dirs/reproduce/{recipe.name}'
    cfg = load_config(recipe.config, cfg_options, data_root, work_dir)
    check_layout(cfg, recipe.task)
    cfg = prepare_testing(cfg, checkpoint or recipe.name)
    cfg.load_from = None  # loaded below, where no key may be missing
    cfg.visualizer.name = f'{work_dir} multi-scale' if multi_scale else work_dir  # mmengine has one of a name for all
    if multi_scale:
        use_ms_flip(cfg)
    runner = DenseRunner.from_cfg(cfg)
    load_checkpoint(runner.model, checkpoint or recipe.name, complete=True)
    measured = runner.test()

    wanted = {'det': ('box AP', 'mask AP'), 'seg': ('mIoU(ms+flip)',) if multi_scale else ('mIoU',)}[recipe.task]
    images, results = len(runner.test_dataloader.dataset), []
    for metric in wanted:
        key, factor = METRIC_KEYS[metric]
        results.append(judge(recipe, metric, float(measured[key]) * factor, images))
    write_results(work_dir, results, multi_scale)
    return results


def write_results(work_dir: str, results: list[ReproducedMetric], multi_scale: bool) -> Path:
    """Write metrics to a file of their protocol, reproduce.json or reproduce_multi-scale.json, and return its path."""
    file = Path(work_dir, f'reproduce{"_multi-scale" if multi_scale else ""}.json')
    with atomic_write(file) as part:
        part.write_text(json.dumps([asdict(result) for result in results], indent=2) + '\n')
    return file


def judge(recipe: Recipe, metric: str, ours: float, images: int) -> ReproducedMetric:
    """A measured metric beside the published one; a verdict only on the whole validation set."""
    published = recipe.metrics[metric]
    if images != VALIDATION_IMAGES[recipe.task]:
        verdict = 'no verdict'
    else:
        verdict = 'reproduced' if abs(ours - published) <= TOLERANCE + 1e-9 else 'differs'
    return ReproducedMetric(recipe.name, metric, round(ours, 2), published, TOLERANCE, images, verdict)


def check_layout(cfg: Config, task: str) -> int:
    """Number of validation images, all of them with their labels.

    Raises:
        UserError: something is missing; says what to fetch and where to put it.
    """
    dataset = cfg.test_dataloader.dataset
    root = Path(dataset.data_root)
    images, missing = (coco_images if task == 'det' else ade_images)(root, dataset)
    if missing:
        raise UserError(f'{root} lacks {missing}: {FETCH[task]}, or name another folder with --data-root')
    return images


def coco_images(root: Path, dataset: dict) -> tuple[int, str]:
    """(number of images, what is missing or '')."""
    annotations, folder = root / dataset.ann_file, root / dataset.data_prefix.img
    if not annotations.is_file():
        return 0, dataset.ann_file
    names = [image['file_name'] for image in json.loads(annotations.read_text())['images']]
    absent = [name for name in names if not (folder / name).is_file()]
    return len(names), describe(absent, len(names), dataset.data_prefix.img)


def ade_images(root: Path, dataset: dict) -> tuple[int, str]:
    """(number of images, what is missing or '')."""
    folders = {name: root / dataset.data_prefix[name] for name in ('img_path', 'seg_map_path')}
    for name, folder in folders.items():
        if not folder.is_dir():
            return 0, dataset.data_prefix[name]
    images = {file.stem for file in folders['img_path'].glob('*.jpg')}
    labels = {file.stem for file in folders['seg_map_path'].glob('*.png')}
    if not images:
        return 0, f'images (.jpg) in {dataset.data_prefix.img_path}'
    unlabelled = sorted(f'{stem}.png' for stem in images - labels)
    return len(images), describe(unlabelled, len(images), dataset.data_prefix.seg_map_path)


def describe(absent: list[str], count: int, folder: str) -> str:
    """Missing files in words; '' for none."""
    return f'{len(absent)} of {count} files in {folder} (first: {absent[0]})' if absent else ''


def format_result(result: ReproducedMetric) -> str:
    """One line of the table."""
    note = f' ({result.images} images)' if result.verdict == 'no verdict' else ''
    return (f'{result.recipe:40} {result.metric:13} ours {result.ours:6.2f}  published {result.published:5.1f}  '
            f'+-{result.tolerance}  {result.verdict}{note}')
