"""Everything a report says about a detector's predictions."""
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from ..config.data_files import loaded_range
from ..errors import UserError
from ..evaluation.coco_data import load_ground_truth, to_coco
from ..evaluation.coco_eval import AREAS, CocoEvaluation, evaluate
from ..visualization.draw import Instances, draw_instances, palette_of, read_image
from ..visualization.predictions import encoded_masks, predicted_instances
from .confusion import MIN_SCORE, detection_confusion
from .error_breakdown import ErrorBreakdown, error_breakdown
from .image_scores import FALSE_POSITIVE, ImageScore, detection_score
from .marking import marked_panels
from .overlaps import KINDS, load_overlaps
from .work_dir import check_same_images

# pycocotools' Params.areaRng, pixels
AREA_RANGES = {'all': (0, 1e10), 'small': (0, 32**2), 'medium': (32**2, 96**2), 'large': (96**2, 1e10)}


class DetectionResults:
    """A detector's predictions beside the annotations of its test set.

    Args:
        dataset: mmdet's, of a COCO annotation file.
        predictions: as of `read_predictions`, of all its images, in its order.

    Attributes:
        names: class names, those of the annotation file.
        kinds: 'bbox' and, where masks were predicted and annotated, 'segm'.
        evaluations, errors: by kind.
        confusion: class-agnostic greedy confusion matrix, (K + 1, K + 1), the last is background.
        scores: of the images, those without objects and detections left out.

    Raises:
        UserError: predictions and data set do not belong together.
    """

    def __init__(self, dataset, predictions: Sequence[Mapping]):
        if not hasattr(dataset, 'cat_ids'):
            raise UserError(f'{type(dataset).__name__} has no COCO annotation file, which the report of a detector '
                            'needs: convert the annotations to COCO json')
        check_same_images(dataset, predictions)
        self.predictions = predictions
        self.images = [dataset.get_data_info(index)['img_path'] for index in range(len(dataset))]
        self.value_range = loaded_range(dataset)
        self.ground_truth = load_ground_truth(dataset.ann_file)
        self.category_ids = list(dataset.cat_ids)
        self.names = [self.ground_truth.cats[category]['name'] for category in self.category_ids]
        self.palette = palette_of(dataset.metainfo, self.names)
        detections = to_coco(predictions, self.ground_truth, self.category_ids, dataset.ann_file)
        self.evaluations: dict[str, CocoEvaluation] = {
            kind: evaluate(self.ground_truth, detections[kind], kind, cat_ids=self.category_ids) for kind in self.kinds}
        overlaps = {kind: load_overlaps(self.ground_truth, predictions, self.category_ids, kind) for kind in self.kinds}
        self.errors: dict[str, ErrorBreakdown | None] = {
            kind: error_breakdown(images, len(self.names)) for kind, images in overlaps.items()}
        self.confusion = detection_confusion(overlaps['bbox'], len(self.names))
        scores = (detection_score(index, image, self.names) for index, image in enumerate(overlaps['bbox']))
        self.scores: list[ImageScore] = [score for score in scores if score is not None]

    @cached_property
    def kinds(self) -> list[str]:
        annotated = any('segmentation' in item for item in self.ground_truth.anns.values())
        return ['bbox', 'segm'] if annotated and 'masks' in self.predictions[0] else ['bbox']

    def metrics(self) -> list[tuple[str, float | None]]:
        """(name, per cent) of COCO's metrics, boxes first."""
        rows = []
        for kind, found in self.evaluations.items():
            name = KINDS[kind]
            rows += [(f'{name} AP', found.ap()), (f'{name} AP50', found.ap(0.5)), (f'{name} AP75', found.ap(0.75)),
                     *((f'{name} AP {area} objects', found.ap(area=area)) for area in AREAS[1:]),
                     (f'{name} AR, 100 detections', found.ar())]
        return [(name, per_cent(value)) for name, value in rows]

    def class_values(self) -> dict[str, list[float | None]]:
        """'box AP' and 'mask AP' of each class, per cent."""
        return {f'{KINDS[kind]} AP': [per_cent(found.ap(category=category)) for category in self.category_ids]
                for kind, found in self.evaluations.items()}

    def class_counts(self) -> list[int]:
        """Annotated objects of each class, crowds left out."""
        return self.confusion[:-1].sum(axis=1).tolist()

    def panels(self, index: int, title: str = 'prediction', mark: tuple[str, int] | None = None
               ) -> list[tuple[str, np.ndarray]]:
        """Ground truth and prediction of an image, drawn; with a mark of `Chosen`, that box in both, and a close-up."""
        image, objects = read_image(self.images[index], self.value_range), self._annotated(index)
        found = draw_instances(image, predicted_instances(self.predictions[index]), self.names, self.palette, MIN_SCORE)
        panels = [('ground truth', draw_instances(image, objects, self.names, self.palette)),
                  (f'{title}, score from {MIN_SCORE:g}', found)]
        if mark is None:
            return panels
        kind, which = mark
        if kind == FALSE_POSITIVE:
            scores = np.asarray(self.predictions[index]['scores'], float)
            box = self.predictions[index]['bboxes'][np.argsort(-scores, kind='stable')[which]]
        else:
            box = objects.boxes[which]
        return marked_panels(panels, np.asarray(box, float), image, shown=1 if kind == FALSE_POSITIVE else 0)

    def legend(self, indices: Sequence[int]) -> list[tuple[str, tuple]]:
        """(name, colour) of the classes in the pictures: small objects have the colour only."""
        shown = set()
        for index in indices:
            prediction = self.predictions[index]
            shown.update(self._annotated(index).labels.tolist(),
                         np.asarray(prediction['labels'])[np.asarray(prediction['scores']) >= MIN_SCORE].tolist())
        return [(self.names[label], self.palette[label]) for label in sorted(shown)]

    def area_counts(self) -> dict[str, int]:
        """Annotated objects by size, as COCO's AP counts them: 'all', 'small', 'medium' and 'large'."""
        areas = np.array([item['area'] for item in self.ground_truth.anns.values()
                          if not item.get('iscrowd') and item['category_id'] in self.category_ids
                          and item['image_id'] in {prediction['img_id'] for prediction in self.predictions}])
        return {name: int(((low <= areas) & (areas <= high)).sum()) for name, (low, high) in AREA_RANGES.items()}

    def metric_counts(self) -> dict[str, int]:
        """The number of annotated objects that each of `metrics` rests on."""
        counts = self.area_counts()
        return {name: next((counts[area] for area in AREAS[1:] if f' {area} ' in name), counts['all'])
                for name, _ in self.metrics()}

    def image_file(self, index: int) -> str:
        return self.images[index]

    def image_name(self, index: int) -> str:
        return Path(self.images[index]).name

    def _annotated(self, index: int) -> Instances:
        image = self.ground_truth.imgs[self.predictions[index]['img_id']]
        found = [item for item in self.ground_truth.imgToAnns[image['id']]
                 if not item['iscrowd'] and item['category_id'] in self.category_ids]
        corners = np.array([item['bbox'] for item in found], float).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        masks = encoded_masks([item['segmentation'] for item in found], (image['height'], image['width'])) \
            if 'segm' in self.kinds else None
        labels = np.array([self.category_ids.index(item['category_id']) for item in found], int)
        return Instances(labels, corners, masks)


def per_cent(value: float) -> float | None:
    """A metric from 0 to 1 in per cent; None where there is nothing to measure (nan)."""
    return None if math.isnan(value) else 100 * value
