"""Images with more than 8 bits a value (microscopy, satellites): mapped to 8 bits by a stated range, or refused.

Networks are trained on values from 0 to 255. OpenCV, which mmcv reads with, divides values of 16 bits by 256, so that
the images of a 12-bit camera become almost black, and reads float images as nothing. Here low..high, the `value_range`
of a converted data set's `dataset.json`, becomes 0..255 linearly; what lies outside is clipped. Images of 8 bits are
read as they are.
"""
import io
import os
from collections.abc import Sequence

import cv2
import numpy as np

from ..errors import UserError
from .images import ImageHeader, read_header

ValueRange = Sequence[float]  # (low, high): the values that become 0 and 255


def check_values(file, value_range: ValueRange | None = None, name: str | os.PathLike | None = None) -> ImageHeader:
    """The header of an image, if `read_bgr` reads all that is in the file.

    Args:
        file: a path, or a binary file.
        value_range: for values of more than 8 bits.
        name: what an error calls the image; default: ``file``.

    Raises:
        UserError: it has several pages, 2 or more than 4 channels, or more than 8 bits a value and there is no range.
        OSError: it cannot be read.
    """
    header, name = read_header(file, name), file if name is None else name
    if header.problem is not None:
        raise UserError(f'{name} has {header.problem}')
    if header.is_deep and value_range is None:
        raise UserError(f'{name} has values of type {header.values}, and no range that maps them to 8 bits: convert '
                        'the data set with convert_dataset, which measures one, or load images with '
                        "dict(type='LoadImageWithRange', value_range=(low, high)) in the config")
    return header


def read_bgr(content: bytes, name: str | os.PathLike, value_range: ValueRange | None = None) -> np.ndarray | None:
    """Decode an image as BGR, uint8 (H, W, 3); None if OpenCV cannot. Arguments and errors as of `check_values`."""
    header = check_values(io.BytesIO(content), value_range, name)
    if not header.is_deep:
        return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    values = read_values(content)
    return None if values is None else to_8_bits(values, value_range)


def read_values(content: bytes) -> np.ndarray | None:
    """The values of an image as stored, (H, W, 3); grey is repeated, a fourth channel left out; None if unreadable."""
    values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    channels = 0 if values is None else 1 if values.ndim == 2 else values.shape[2]
    if channels not in (1, 3, 4):
        return None
    return np.repeat(values.reshape(*values.shape[:2], 1), 3, 2) if channels == 1 else values[..., :3]


def to_8_bits(values: np.ndarray, value_range: ValueRange) -> np.ndarray:
    """``round((value - low) / (high - low) * 255)``, clipped to 0..255, as uint8; NaN becomes 0."""
    low, high = map(float, value_range)
    scaled = np.rint((np.asarray(values, np.float64) - low) * (255 / (high - low)))
    return np.clip(np.nan_to_num(scaled, nan=0, posinf=255, neginf=0), 0, 255).astype(np.uint8)
