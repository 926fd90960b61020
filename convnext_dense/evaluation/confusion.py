"""The confusion matrix of label maps, in exact integers, and the areas from which IoU and accuracy are computed."""
import torch
from torch import Tensor

from ..errors import UserError, few


def confusion_matrix(label: Tensor, prediction: Tensor, classes: int, ignore_index: int = 255,
                     name: str = 'the label map') -> Tensor:
    """Pixels by ground truth (row) and prediction (column), (classes, classes) int64 on the maps' device.

    Args:
        label: integers, any shape; 0 to classes - 1, or ``ignore_index``, whose pixels do not count.
        prediction: integers, the same shape; 0 to classes - 1.
        name: of the label's file, for messages.

    Raises:
        UserError: a value beyond the classes.
    """
    if not 0 <= ignore_index <= 255:
        label, ignore_index = torch.where(label == ignore_index, classes, label), classes
    rows = max(classes, ignore_index + 1)  # ignored pixels get a row of their own, which is quicker than a mask
    (low, high), (label_low, label_high) = (torch.stack(values.aminmax()).tolist() for values in (prediction, label))
    if low >= 0 and high < classes and label_low >= 0 and label_high < rows:
        cells = prediction.flatten().long().add(label.flatten(), alpha=classes)
        counts = torch.bincount(cells, minlength=rows * classes).view(rows, classes)
        counts[ignore_index] = 0
        if not counts[classes:].any():
            return counts[:classes]
    allowed = set(range(classes))
    beyond = set(label.unique().tolist()) - allowed - {ignore_index}
    if not beyond:
        name, beyond = f'the prediction for {name}', set(prediction.unique().tolist()) - allowed
    raise UserError(f'{name} has the values {few(beyond)}, but there are {classes} classes, so 0 to {classes - 1} (and '
                    'in label maps the ignore_index) are expected: fix the label maps, set reduce_zero_label as they '
                    'need it, or set metainfo and every num_classes to the classes they have')


def areas(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(classes,) float64 each: intersection, union, pixels predicted, pixels labelled; exact up to 2^53 pixels."""
    intersection, predicted, labelled = matrix.diag(), matrix.sum(0), matrix.sum(1)
    return tuple(area.double() for area in (intersection, predicted + labelled - intersection, predicted, labelled))
