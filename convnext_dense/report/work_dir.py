"""The contents of a work dir: the config as it ran, the log, checkpoints and predictions."""
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from ..config import DATALOADERS, load_config
from ..config.data_files import leaves
from ..config.preflight import check_config
from ..config.runs import run_checkpoint, run_config
from ..errors import UserError
from ..evaluation.prediction_file import PREDICTIONS
from ..recipes.metafile import Recipe, load_recipes
from ..utils.images import image_size
from ..visualization.curves import Curve, read_log, read_scalars

TASKS = {'mmdet': 'det', 'mmseg': 'seg'}
REPORT_DIR = 'report'  # folder in the work dir for evaluations made for the report
OLD_PREDICTIONS = 'predictions.pkl'  # of earlier versions
CHECKPOINT_SUFFIXES = ('.pth', '.pt', '.bin', '.safetensors')


@dataclass
class WorkDir:
    """The contents of a work dir.

    Args:
        path: the folder.
        cfg: the newest config that mmengine wrote there.
        config_text: the config of the training if there is one, else the newest.
        task: 'det' or 'seg'.
        checkpoint: file of the weights that the report is about, or None.
        weights: what they are called: that file, or the URL or zoo name that `tools/test.py` was given; '' for none.
        curves: everything logged while training; empty without a log.
        recipe: the entry of that config in a metafile, or None.
    """
    path: Path
    cfg: Config
    config_text: str
    task: str
    checkpoint: Path | None
    weights: str
    curves: dict[str, Curve]
    recipe: Recipe | None

    @property
    def name(self) -> str:
        path = self.path.resolve()
        return f'{path.parent.name}/run' if path.name == 'run' else path.name  # a project's work dir is FOLDER/run

    @property
    def evaluation_dir(self) -> Path:
        """Folder for an evaluation of the checkpoint that the report makes itself."""
        return self.path / REPORT_DIR / (self.checkpoint.stem if self.checkpoint else '')

    def predictions(self, trust_pickle: bool = False) -> Path | None:
        """The newest predictions that are not older than the checkpoint, or None; pickles only with `trust_pickle`."""
        names = (PREDICTIONS, OLD_PREDICTIONS) if trust_pickle else (PREDICTIONS,)
        files = [folder / name for folder in (self.path, self.evaluation_dir) for name in names]
        files = [file for file in files if file.is_file()
                 and (self.checkpoint is None or file.stat().st_mtime >= self.checkpoint.stat().st_mtime)]
        return max(files, key=lambda file: file.stat().st_mtime, default=None)

    def images_per_second(self, evaluated_in: Path) -> float | None:
        """Speed of the newest evaluation logged in a folder (batch size over mean time of a batch), if there is one."""
        for file in sorted(evaluated_in.glob('*/*.json'), reverse=True):
            rows = read_log(file)
            seconds = rows[-1].get('time') if rows else None
            # validation while training has a step
            if isinstance(seconds, float) and seconds > 0 and 'step' not in rows[-1]:
                return self.cfg.test_dataloader.batch_size / seconds
        return None

    def test_set(self):
        """The test set.

        Raises:
            UserError: its files are not there, or it is made of several.
        """
        check_config(self.cfg, DATALOADERS[2:])
        init_default_scope(self.cfg.default_scope)
        datasets = list(leaves(DATASETS.build(self.cfg.test_dataloader.dataset)))
        if len(datasets) != 1:
            raise UserError(f'{self.path}: the test set is made of {len(datasets)} data sets, and a report is about '
                            'one: evaluate each with a config of its own')
        datasets[0].full_init()
        return datasets[0]


def open_work_dir(path, checkpoint: str | None = None, data_root: str | None = None) -> WorkDir:
    """Read the contents of a work dir.

    Args:
        path: the folder that `tools/train.py` or `tools/test.py` wrote.
        checkpoint: a file; default: what `tools/test.py` evaluated there last, if nothing was trained since; else
            the newest `best_*.pth`, else the newest `epoch_N.pth` or `iter_N.pth`.
        data_root: folder of the data, where the config's is not right (any more).

    Raises:
        UserError: no such folder, no config in it, a config for another task, no such checkpoint.
    """
    path = Path(path)
    config = run_config(path)
    if checkpoint is not None and not Path(checkpoint).is_file():
        raise UserError(f'--checkpoint {checkpoint}: no such file')
    cfg = load_config(str(config), data_root=data_root, work_dir=str(path))
    task = TASKS.get(cfg.get('default_scope'))
    if task is None or 'test_dataloader' not in cfg:
        raise UserError(f'{config} is not a config of a detector or segmentor with a test set: expected '
                        f'default_scope mmdet or mmseg and a test_dataloader, found {cfg.get("default_scope")}')
    # tools/test.py writes a config without training
    tested = checkpoint or (not cfg.get('train_dataloader') and cfg.get('load_from')) or ''
    file = Path(tested) if Path(tested).is_file() else None
    if file is None and not ('://' in tested or tested and Path(tested).suffix not in CHECKPOINT_SUFFIXES):
        file = run_checkpoint(path)  # else it is a URL, or a name of the zoo
    weights = str(file or tested)
    return WorkDir(path, cfg, _training_config(path) or config.read_text(), task, file, weights, _curves(path),
                   _recipe(config.stem))


def _training_config(path: Path) -> str | None:
    """Text of the newest config that trains; `tools/test.py` writes one without, under the same name."""
    for file in sorted(path.glob('*/vis_data/config.py'), reverse=True):
        text = file.read_text()
        if '\ntrain_dataloader = ' in text:
            return text
    return None


def _curves(path: Path) -> dict[str, Curve]:
    try:
        return read_scalars(path)
    except UserError:  # a work dir of tools/test.py alone
        return {}


def _recipe(name: str) -> Recipe | None:
    return next((recipe for recipe in load_recipes() if Path(recipe.config).stem == name and recipe.metrics), None)


def check_same_images(dataset, predictions: Sequence[Mapping]) -> None:
    """Refuse predictions that are not of the data set's images, one each, in its order.

    Raises:
        UserError: says what differs.
    """
    if len(dataset) != len(predictions):
        raise UserError(f'there are {len(predictions)} predictions for the {len(dataset)} images of the test set: they '
                        'were made with other settings; evaluate again with tools/test.py --report, or remove the file')
    for index, prediction in enumerate(predictions):
        expected, found = Path(dataset.get_data_info(index)['img_path']).name, Path(prediction['img_path']).name
        if expected != found:
            raise UserError(f'prediction {index} is of {found}, where the test set has {expected}: they were made with '
                            'other settings; evaluate again with tools/test.py --report, or remove the file')


def own_input(cfg: Config, image: str) -> tuple[int, int] | None:
    """(width, height) in pixels in which a config's test pipeline gives an image to the network.

    The windows of sliding inference count, and a detector's padding to a multiple of 32. None where the config does not
    say, or the image is not there.
    """
    test_cfg = cfg.model.get('test_cfg') or {}
    if test_cfg.get('mode') == 'slide':
        height, width = test_cfg['crop_size']
        return int(width), int(height)
    steps = cfg.test_dataloader.dataset.get('pipeline') or []
    scales = [step for step in steps if step['type'].endswith('Resize')]
    try:
        width, height = image_size(image)
    except (OSError, UserError):
        return None
    if scales:
        scale = scales[0].get('scale')
        if len(scales) > 1 or not isinstance(scale, (tuple, list)):
            return None
        factor = min(max(scale) / max(width, height), min(scale) / min(width, height))
        resized = int(width * factor + 0.5), int(height * factor + 0.5)
        width, height = resized if scales[0].get('keep_ratio') else scale
    divisor = cfg.model.get('data_preprocessor', {}).get('pad_size_divisor') or 1
    return tuple(max(32, math.ceil(side / divisor) * divisor) for side in (width, height))
