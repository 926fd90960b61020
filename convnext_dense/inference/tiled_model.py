"""Models of mmdet and mmseg on images that are larger than a tile, for the Predictor and for `tools/test.py`."""
from collections.abc import Callable, Sequence

import numpy as np
import torch
from mmengine.dataset import Compose, pseudo_collate
from mmengine.model import BaseTTAModel
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData, PixelData
from torch import nn

from ..visualization.predictions import instances_of
from .results import Detections
from .tiled_labels import Scores, segment_tiled, upsampling
from .tiling import Tiling, detect_tiled

TILES_TOGETHER = 8  # in one forward pass on a GPU; on a CPU one keeps all cores busy


class TiledNetwork:
    """A detector or segmentor that gets tiles of an image, each prepared as an image of its own.

    Args:
        model: of mmdet or mmseg.
        prepare: BGR image, uint8 (H, W, 3), to a packed sample: the test pipeline after reading.
        tiling: of images that are larger than one tile.
        classes: names for the results, indexed by the labels.
    """

    def __init__(self, model: nn.Module, prepare: Callable, tiling: Tiling, classes: Sequence[str] = ()):
        self.model, self.prepare, self.tiling, self.classes = model, prepare, tiling, classes

    @property
    def together(self) -> int:
        """Tiles that go through the network together."""
        return TILES_TOGETHER if next(self.model.parameters()).is_cuda else 1

    def detect(self, image: np.ndarray) -> Detections:
        """Objects of an image, RGB (H, W, 3); masks are `EncodedMasks`."""
        return detect_tiled(image, self.tiling, self._detections, self.classes, self.together)

    def segment(self, image: np.ndarray) -> np.ndarray:
        """Label map of an image, RGB (H, W, 3)."""
        return segment_tiled(image, self.tiling, self._scores, self.together)

    def _batch(self, tiles: Sequence[np.ndarray]) -> dict:
        return pseudo_collate([self.prepare(np.ascontiguousarray(tile[..., ::-1])) for tile in tiles])

    @torch.no_grad()
    def _detections(self, tiles: Sequence[np.ndarray]) -> list:
        return [instances_of(sample.pred_instances) for sample in self.model.test_step(self._batch(tiles))]

    @torch.no_grad()
    def _scores(self, tiles: Sequence[np.ndarray]) -> list[list[Scores]]:
        """Scores as the decode head gives them; at the size of the tile where a model does more than upsample them."""
        model, batch = self.model, self._batch(tiles)
        if not hasattr(model, 'scores_are_upsampled') or not model.scores_are_upsampled():
            return self._full_scores(batch)
        data = model.data_preprocessor(batch, False)
        metas = [sample.metainfo for sample in data['data_samples']]
        size, windows = model.window_scores(data['inputs'], metas[0])
        windows = [(place, scores.float().permute(0, 2, 3, 1).cpu().numpy()) for place, scores in windows]
        places, found = [place[1:] for place, _ in windows], []
        for index, meta in enumerate(metas):
            left, right, top, bottom = meta.get('img_padding_size', meta.get('padding_size', [0] * 4))
            found.append([upsampling(scores[index], place[1:], places, size, ((top, bottom), (left, right)),
                                     meta['ori_shape'], model.align_corners) for place, scores in windows])
        return found

    def _full_scores(self, batch: dict) -> list[list[Scores]]:
        model = self.model
        labels_only, model.labels_only = getattr(model, 'labels_only', False), False
        try:
            samples = model.test_step(batch)
        finally:
            model.labels_only = labels_only
        found = []
        for sample in samples:
            scores = sample.seg_logits.data.float()
            if len(scores) == 1:  # mmseg has the probability of the second class here, and a threshold
                threshold = scores.new_full(scores.shape, model.decode_head.threshold)
                scores = torch.cat([threshold, scores]).logit(eps=1e-6)
            rows, columns = (np.eye(side, dtype=np.float32) for side in scores.shape[1:])
            found.append([Scores(scores.permute(1, 2, 0).cpu().numpy(), rows, columns)])
        return found


@MODELS.register_module()
class TiledModel(BaseTTAModel):
    """A model of mmdet or mmseg for testing, which cuts images that are larger than a tile.

    Samples have the image as it was read; what follows in the test pipeline is applied here, to tiles and to smaller
    images, whose results are those of the model alone. Masks of cut images are run lengths.

    Args:
        module: the model.
        pipeline: transforms of the test pipeline after reading, without annotations.
        scope: of the transforms and the model, 'mmdet' or 'mmseg'.
        tile, overlap: of `Tiling`.
    """

    def __init__(self, module: dict | nn.Module, pipeline: Sequence[dict], scope: str, tile: int, overlap: float):
        with DefaultScope.overwrite_default_scope(scope):
            super().__init__(module)
            steps = Compose([dict(type='LoadImageFromNDArray'), *pipeline])
        if hasattr(self.module, 'labels_only'):
            self.module.labels_only = True
        self.scope, self.prepare = scope, lambda image: steps(dict(img=image, img_id=0))
        self.network = TiledNetwork(self.module, self.prepare, Tiling(tile, overlap))

    @torch.no_grad()
    def test_step(self, data: dict) -> list:
        """Data samples with ``pred_instances`` or ``pred_sem_seg``.

        Args:
            data: ``inputs``, images (3, H, W), BGR, uint8, and ``data_samples``.
        """
        for image, sample in zip(data['inputs'], data['data_samples'], strict=True):
            image = image.permute(1, 2, 0).numpy()
            if self.network.tiling.cuts(*image.shape[:2]):
                self._add_tiled(image[..., ::-1], sample)
                continue
            found = self.module.test_step(pseudo_collate([self.prepare(np.ascontiguousarray(image))]))[0]
            name = 'pred_instances' if self.scope == 'mmdet' else 'pred_sem_seg'
            setattr(sample, name, getattr(found, name))
        return data['data_samples']

    def _add_tiled(self, image: np.ndarray, sample) -> None:
        if self.scope == 'mmseg':
            labels = self.network.segment(image)
            labels = labels if labels.dtype == np.uint8 else labels.astype(np.int32)  # torch does little with uint16
            sample.pred_sem_seg = PixelData(data=torch.from_numpy(labels)[None])
            return
        found = self.network.detect(image)
        sample.pred_instances = InstanceData(
            bboxes=torch.from_numpy(found.boxes), scores=torch.from_numpy(found.scores),
            labels=torch.from_numpy(found.labels))
        if found.masks is not None:
            sample.pred_instances.masks = found.masks.rles

    def merge_preds(self, data_samples_list):
        """Not used: there are no views to merge."""
        raise NotImplementedError
