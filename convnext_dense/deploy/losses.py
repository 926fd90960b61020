"""What an exported model loses in AP or mIoU against the trained one, on the test set of its config."""
import tempfile
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from ..engine.exported import open_exported
from ..engine.runner import DenseRunner, prepare_testing
from ..errors import UserError


@dataclass(frozen=True)
class Loss:
    """A metric of a trained model and of what was exported from it, in points (per cent)."""
    metric: str
    trained: float
    exported: float

    def __str__(self) -> str:
        return f'{self.metric} {self.exported:.2f}, {self.trained:.2f} before ({self.exported - self.trained:+.2f})'


def measure_losses(cfg: Config, checkpoint: str, file: Path) -> list[Loss]:
    """AP or mIoU of a checkpoint and of a file that was exported from it."""
    with tempfile.TemporaryDirectory() as folder:
        cfg = evaluation_config(cfg, checkpoint, folder)
        runner = DenseRunner.from_cfg(cfg)
        trained = runner.test()
        runner.model = open_exported(cfg, str(file), 'cpu')
        exported = runner.test_loop.run()
    return [Loss(name, points(name, value), points(name, exported[name])) for name, value in trained.items()
            if name.endswith(('mAP', 'mIoU'))]


def evaluation_config(cfg: Config, checkpoint: str, folder: str) -> Config:
    """The config for evaluation, which writes into a folder.

    Raises:
        UserError: the test set of the config or its annotations are not there.
    """
    cfg = deepcopy(cfg)
    cfg.work_dir, cfg.log_level = folder, 'ERROR'
    return prepare_testing(cfg, checkpoint)


def points(metric: str, value: float) -> float:
    """A metric in per cent: COCO's AP is a fraction, mmseg's mIoU is not."""
    return float(value) if metric.endswith('mIoU') else 100 * float(value)


def check_losses(losses: list[Loss], limit: float, file: str) -> None:
    """Raises UserError where a metric fell by more points than the limit, or where there is none."""
    if not losses:
        raise UserError(f'{file} is not written: the test evaluator of the config gives neither AP nor mIoU, by which '
                        'the loss of --precision int8 is measured')
    above = [str(loss) for loss in losses if not loss.trained - loss.exported <= limit]
    if above:
        raise UserError(f'{file} is not written: int8 loses more than --max-loss {limit:g} points ('
                        f'{"; ".join(above)}): calibrate with more images of the same kind as the test set, allow a '
                        'larger loss, or use another --precision')
