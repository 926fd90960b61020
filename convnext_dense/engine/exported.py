"""An exported model in place of a trained one: the test loop, the evaluators and the report see no difference."""
import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, DefaultScope
from mmengine.structures import InstanceData, PixelData

from ..config import datasets_of
from ..errors import UserError, few
from ..runtime import Predictor
from ..utils.run_lengths import EncodedMasks


class ExportedModel(BaseModel):
    """Predicts the image files of data samples with an exported model; their pixels in the batch are not used.

    Args:
        file: the exported model.
        device, tile, overlap: as of `runtime.Predictor`.
    """

    def __init__(self, file: str, device: str = 'auto', tile: int | None = None, overlap: float = 0.2):
        super().__init__()
        self.predictor = Predictor(file, device, score_thr=0, tile=tile, overlap=overlap)

    def test_step(self, data: dict) -> list:
        """Data samples with ``pred_instances`` or ``pred_sem_seg``."""
        samples = data['data_samples']
        found = self.predictor([sample.img_path for sample in samples], batch_size=len(samples))
        for sample, result in zip(samples, found, strict=True):
            if self.predictor.task == 'seg':
                sample.pred_sem_seg = PixelData(data=torch.from_numpy(result.labels.astype(
                    'uint8' if result.labels.dtype == np.uint8 else 'int32'))[None])
                continue
            arrays = dict(bboxes=result.boxes, scores=result.scores, labels=result.labels)
            arrays |= dict(masks=result.masks) if isinstance(result.masks, np.ndarray) else {}
            sample.pred_instances = InstanceData(**{name: torch.from_numpy(values.copy())
                                                    for name, values in arrays.items()})
            if isinstance(result.masks, EncodedMasks):  # of a large image
                sample.pred_instances.masks = result.masks.rles
        return samples

    def forward(self, *args, **kwargs):
        raise NotImplementedError('an exported model is not trained: use test_step')


def open_exported(cfg: Config, file: str, device: str, tile: int | None = None, overlap: float = 0.2
                  ) -> ExportedModel:
    """An exported model for the runner of a checked test config, which then loads no checkpoint.

    Args:
        file, device, tile, overlap: as of `ExportedModel`.

    Raises:
        UserError: the file is for another task or other classes than the config's test set, or cannot be opened.
    """
    model = ExportedModel(file, device, tile, overlap)
    metadata = model.predictor.metadata
    dataset = datasets_of(cfg.test_dataloader)[0]
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        classes = DATASETS.build({**dataset, 'pipeline': [], 'lazy_init': True}).metainfo.get('classes') or ()
    if {'det': 'mmdet', 'seg': 'mmseg'}[metadata.task] != cfg.default_scope or list(classes) != metadata.classes:
        raise UserError(f'{file} predicts {few(metadata.classes)}, and the test set of {cfg.filename} has '
                        f'{few(classes)}: use the config that it was exported with')
    cfg.load_from, cfg.custom_hooks = None, []
    return model


__all__ = ['ExportedModel', 'open_exported']
