"""Everything a report says about a detector's predictions."""
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from faster_coco_eval import COCO

from ..errors import UserError
from ..visualization.draw import Instances, distinct_colours, draw_instances, read_image
from ..visualization.predictions import decode_masks, predicted_instances
from .average_precision import AREAS, AveragePrecision
from .confusion import MIN_SCORE, detection_confusion
from .error_breakdown import ErrorBreakdown, error_breakdown
from .image_scores import ImageScore, detection_score
from .scenes import load_scenes

KINDS = {'bbox': 'box', 'segm': 'mask'}


class DetectionResults:
    """A detector's predictions beside the annotations of its test set.

    Args:
        dataset: mmdet's, of a COCO annotation file.
        predictions: of all its images, in its order.

    Attributes:
        names: class names, those of the annotation file.
        kinds: 'bbox' and, where masks were predicted and annotated, 'segm'.
        average_precision, errors: by kind.
        confusion: (K + 1, K + 1), the last is background.
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
        self.truth = COCO(dataset.ann_file)
        self.category_ids = list(dataset.cat_ids)
        self.names = [self.truth.cats[category]['name'] for category in self.category_ids]
        self.palette = [tuple(c) for c in dataset.metainfo.get('palette') or distinct_colours(len(self.names))]
        scenes = {kind: load_scenes(self.truth, predictions, self.category_ids, kind) for kind in self.kinds}
        self.average_precision = {kind: AveragePrecision(self.truth, predictions, self.category_ids, kind)
                                  for kind in self.kinds}
        self.errors: dict[str, ErrorBreakdown | None] = {
            kind: error_breakdown(found, len(self.names)) for kind, found in scenes.items()}
        self.confusion = detection_confusion(scenes['bbox'], len(self.names))
        scores = (detection_score(index, scene, self.names) for index, scene in enumerate(scenes['bbox']))
        self.scores: list[ImageScore] = [score for score in scores if score is not None]

    @cached_property
    def kinds(self) -> list[str]:
        annotated = any('segmentation' in item for item in self.truth.anns.values())
        return ['bbox', 'segm'] if annotated and 'masks' in self.predictions[0]['pred_instances'] else ['bbox']

    def metrics(self) -> list[tuple[str, float | None]]:
        """(name, per cent) of COCO's figures, boxes first."""
        rows = []
        for kind, found in self.average_precision.items():
            name = KINDS[kind]
            values = {f'{name} AP': found.ap(), f'{name} AP50': found.ap(0.5), f'{name} AP75': found.ap(0.75)}
            values.update({f'{name} AP {area} objects': found.ap(area=area) for area in AREAS[1:]})
            values[f'{name} AR, 100 detections'] = found.ar()
            rows += [(key, None if value is None else 100 * value) for key, value in values.items()]
        return rows

    def class_values(self) -> dict[str, list[float | None]]:
        """'box AP' and 'mask AP' of each class, per cent."""
        return {f'{KINDS[kind]} AP': [None if value is None else 100 * value for value in found.class_ap()]
                for kind, found in self.average_precision.items()}

    def class_counts(self) -> list[int]:
        """Annotated objects of each class, crowds left out."""
        return self.confusion[:-1].sum(axis=1).tolist()

    def panels(self, index: int, title: str = 'prediction') -> list[tuple[str, np.ndarray]]:
        """Ground truth and prediction of an image, drawn."""
        image = read_image(self.images[index])
        found = draw_instances(image, predicted_instances(self.predictions[index]), self.names, self.palette, MIN_SCORE)
        truth = draw_instances(image, self._annotated(index), self.names, self.palette)
        return [('ground truth', truth), (f'{title}, score from {MIN_SCORE:g}', found)]

    def legend(self, indices: Sequence[int]) -> list:
        """Nothing: pictures of detections name their classes."""
        return []

    def image_name(self, index: int) -> str:
        return Path(self.images[index]).name

    def _annotated(self, index: int) -> Instances:
        image = self.truth.imgs[self.predictions[index]['img_id']]
        found = [item for item in self.truth.imgToAnns[image['id']]
                 if not item.get('iscrowd') and item['category_id'] in self.category_ids]
        corners = np.array([item['bbox'] for item in found], float).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        masks = decode_masks([item['segmentation'] for item in found], (image['height'], image['width'])) \
            if 'segm' in self.kinds else None
        labels = np.array([self.category_ids.index(item['category_id']) for item in found], int)
        return Instances(labels, corners, masks)


def check_same_images(dataset, predictions: Sequence[Mapping]) -> None:
    """Refuse predictions that are not of the data set's images, one each, in its order.

    Raises:
        UserError: says what differs.
    """
    if len(dataset) != len(predictions):
        raise UserError(f'there are {len(predictions)} predictions for the {len(dataset)} images of the test set: they '
                        'were made with other settings; evaluate again with tools/test.py --out, or remove the file')
    for index, prediction in enumerate(predictions):
        expected, found = Path(dataset.get_data_info(index)['img_path']).name, Path(prediction['img_path']).name
        if expected != found:
            raise UserError(f'prediction {index} is of {found}, where the test set has {expected}: they were made with '
                            'other settings; evaluate again with tools/test.py --out, or remove the file')
