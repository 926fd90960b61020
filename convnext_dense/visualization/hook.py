"""`tools/test.py --show-dir`: ground truth beside prediction, one picture per test image."""
from pathlib import Path

import cv2
import numpy as np
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from ..config.data_files import loaded_range
from ..utils.files import atomic_write
from .draw import draw_instances, draw_legend, draw_segmentation, palette_of, read_image, side_by_side
from .predictions import instances_of


@HOOKS.register_module()
class DrawPredictionsHook(Hook):
    """Write a picture of every tested image into a folder: detection or segmentation, as the samples have it.

    Args:
        out_dir: the folder; a picture keeps its image's path below the data set's image folder.
        min_score: detections below it are not drawn, 0 to 1.
    """
    priority = 'LOW'

    def __init__(self, out_dir: str, min_score: float = 0.3):
        self.out_dir = Path(out_dir)
        self.min_score = min_score

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        dataset = runner.test_dataloader.dataset
        classes = dataset.metainfo['classes']
        palette = palette_of(dataset.metainfo, classes)
        for sample in outputs:
            image = read_image(sample.img_path, loaded_range(dataset))
            draw = self._draw_labels if 'pred_sem_seg' in sample else self._draw_instances
            file = self.out_dir / f'{_path_below(sample.img_path, dataset)}.png'
            with atomic_write(file) as part:
                cv2.imwrite(str(part), cv2.cvtColor(draw(image, sample, classes, palette), cv2.COLOR_RGB2BGR))

    def _draw_instances(self, image, sample, classes, palette) -> np.ndarray:
        panels = []
        if 'gt_instances' in sample:
            panels.append(('ground truth', draw_instances(image, instances_of(sample.gt_instances), classes, palette)))
        predicted = instances_of(sample.pred_instances)
        panels.append((f'prediction, score from {self.min_score:g}',
                       draw_instances(image, predicted, classes, palette, self.min_score)))
        return side_by_side(panels)

    def _draw_labels(self, image, sample, classes, palette) -> np.ndarray:
        maps = {'ground truth': sample.gt_sem_seg} if 'gt_sem_seg' in sample else {}
        maps['prediction'] = sample.pred_sem_seg
        maps = {title: found.data.squeeze(0).cpu().numpy().astype(np.uint8) for title, found in maps.items()}
        panels = [(title, draw_segmentation(image, labels, palette)) for title, labels in maps.items()]
        present = {int(label) for labels in maps.values() for label in np.unique(labels)}
        shown = sorted(present & set(range(len(classes))))
        width = sum(panel.shape[1] for _, panel in panels)
        return side_by_side(panels, draw_legend(classes, palette, width, shown))


def _path_below(image: str, dataset) -> Path:
    prefixes = getattr(dataset, 'data_prefix', {})
    root = prefixes.get('img') or prefixes.get('img_path') or ''
    path = Path(image)
    return path.relative_to(root) if root and path.is_relative_to(root) else Path(path.name)
