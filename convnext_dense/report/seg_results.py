"""Everything a report says about a segmentor's predictions."""
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.registry import TRANSFORMS

from ..config.data_files import loaded_range
from ..errors import UserError
from ..evaluation.confusion import confusion_matrix
from ..visualization.draw import draw_segmentation, palette_of, read_image
from .confusion import Agreement
from .image_scores import ImageScore, label_score
from .marking import largest_area, marked_panels
from .work_dir import check_same_images


class SegmentationResults:
    """A segmentor's predictions beside the label maps of its test set.

    Args:
        dataset: mmseg's.
        predictions: as of `read_predictions`, of all its images, in its order.
        pipeline: the configs of the test pipeline's transforms, whose LoadAnnotations reads the label maps.

    Attributes:
        names: class names.
        confusion: pixels, (K, K).
        scores: of the images, those without any labelled pixel left out.

    Raises:
        UserError: predictions and data set do not belong together, or there are no label maps.
    """

    def __init__(self, dataset, predictions: Sequence[Mapping], pipeline: Sequence[Mapping]):
        check_same_images(dataset, predictions)
        self.dataset, self.predictions = dataset, predictions
        self.names = list(dataset.metainfo['classes'])
        self.palette = palette_of(dataset.metainfo, self.names)
        self.load = TRANSFORMS.build(_label_loader(pipeline))
        self.confusion = np.zeros((len(self.names),) * 2, np.int64)
        scores = []
        for index in range(len(predictions)):
            matrix = self._confusion(index)
            self.confusion += matrix
            scores.append(label_score(index, matrix, self.names))
        self.scores: list[ImageScore] = [score for score in scores if score is not None]

    def metrics(self) -> list[tuple[str, float | None]]:
        """(name, per cent)."""
        found = Agreement.of(self.confusion)
        values = {'mIoU': Agreement.mean(found.iou), 'mAcc': Agreement.mean(found.accuracy),
                  'aAcc': Agreement.mean(np.array([found.all_accuracy]))}
        return [(name, None if value is None else 100 * value) for name, value in values.items()]

    def class_values(self) -> dict[str, list[float | None]]:
        """IoU and accuracy (recall) of each class, per cent."""
        found = Agreement.of(self.confusion)
        return {name: [None if np.isnan(value) else float(100 * value) for value in values]
                for name, values in (('IoU', found.iou), ('accuracy', found.accuracy))}

    def class_counts(self) -> list[int]:
        """Annotated pixels of each class."""
        return self.confusion.sum(axis=1).tolist()

    def panels(self, index: int, title: str = 'prediction', mark: tuple[str, tuple[int, int]] | None = None
               ) -> list[tuple[str, np.ndarray]]:
        """Ground truth and prediction of an image, drawn; with a mark of `Chosen`, a box around the largest area of it.
        """
        image = read_image(self.dataset.get_data_info(index)['img_path'], loaded_range(self.dataset))
        annotated, predicted = self._annotated(index), self._predicted(index)
        panels = [(name, draw_segmentation(image, labels.astype(np.uint8), self.palette))
                  for name, labels in (('ground truth', annotated), (title, predicted))]
        if mark is None:
            return panels
        true, wrong = mark[1]
        return marked_panels(panels, largest_area((annotated == true) & (predicted == wrong)), image, shown=1)

    def legend(self, indices: Sequence[int]) -> list[tuple[str, tuple]]:
        """(name, colour) of the classes that some images have or were given."""
        shown = set()
        for index in indices:
            shown.update(*(np.unique(labels).tolist() for labels in (self._annotated(index), self._predicted(index))))
        return [(self.names[label], self.palette[label]) for label in sorted(shown) if label < len(self.names)]

    def metric_counts(self) -> dict[str, int]:
        """Nothing: mIoU is a mean over classes, whose pixels the table of classes has."""
        return {}

    def image_file(self, index: int) -> str:
        return self.dataset.get_data_info(index)['img_path']

    def image_name(self, index: int) -> str:
        return Path(self.dataset.get_data_info(index)['img_path']).name

    def _confusion(self, index: int) -> np.ndarray:
        labels, predicted, file = self._annotated(index), self._predicted(index), self.dataset.get_data_info(index)
        if labels.shape != predicted.shape:
            raise UserError(f'{file["seg_map_path"]} has {labels.shape} rows and columns, its prediction '
                            f'{predicted.shape}: the labels do not fit the image; fix them and evaluate again')
        labels, predicted = (torch.from_numpy(values.astype(np.int64)) for values in (labels, predicted))
        return confusion_matrix(labels, predicted, len(self.names), self.dataset.ignore_index,
                                file['seg_map_path']).numpy()

    def _annotated(self, index: int) -> np.ndarray:
        return self.load(self.dataset.get_data_info(index))['gt_seg_map']

    def _predicted(self, index: int) -> np.ndarray:
        return self.predictions[index]['labels']


def _label_loader(pipeline: Sequence[Mapping]) -> Mapping:
    for transform in _steps(pipeline):
        if 'LoadAnnotations' in str(transform['type']):
            return transform
    raise UserError('the test pipeline has no LoadAnnotations, so that there is nothing to compare predictions with: '
                    'add it, as configs/seg/_base_/ade20k_512x512.py has it')


def _steps(pipeline: Sequence) -> Iterator[Mapping]:
    """Every transform, those of TestTimeAug (lists of alternatives) included."""
    for step in pipeline:
        if isinstance(step, Mapping):
            yield step
            yield from _steps(step.get('transforms', ()))
        else:
            yield from _steps(step)
