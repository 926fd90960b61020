"""Images in memory as the 8-bit RGB that networks are trained on. Needs no torch."""
import math

import numpy as np
from PIL import Image

from ..errors import UserError

DEEP_MODES = ('I', 'F')  # of PIL, with more than 8 bits a channel; also I;16 and its byte orders


def to_rgb(image: np.ndarray | Image.Image, value_range: tuple[float, float] | None = None) -> np.ndarray:
    """An image as RGB, uint8 (H, W, 3).

    Args:
        image: grey (H, W) or (H, W, 1), RGB (H, W, 3) or RGBA (H, W, 4), whose alpha is dropped; or a PIL image, with
            its pixels as they are stored. uint8 is taken as it is; floats go from 0, black, to 1, white.
        value_range: (low, high): the values that become 0 and 255; those between are spread evenly, those outside are
            clipped. Needed for other types, as uint16, which do not say what is white.

    Raises:
        UserError: another shape or type, floats outside 0 to 1 or not finite, or a range that is none.
    """
    if isinstance(image, Image.Image):
        deep = image.mode in DEEP_MODES or image.mode.startswith('I;')
        image = np.asarray(image if deep else image.convert('RGB'))
    if not image.size or not (image.ndim == 2 or image.ndim == 3 and image.shape[2] in (1, 3, 4)):
        raise UserError(f'an array of shape {image.shape} and type {image.dtype} is no image to predict: expected '
                        '(height, width), or (height, width, channels) with 1, 3 or 4 channels, grey, RGB or RGBA')
    pixels = _eight_bits(image, value_range)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return np.ascontiguousarray(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[..., :3])


def _eight_bits(image: np.ndarray, value_range: tuple[float, float] | None) -> np.ndarray:
    is_float = image.dtype.kind == 'f'
    if value_range is None and image.dtype == np.uint8:
        return image
    if value_range is None and not is_float:
        raise UserError(f'an array of {image.dtype} does not say which values are black and white: give '
                        'value_range=(low, high), as (0, 65535) for 16 bits, or convert it to uint8')
    if is_float and not np.isfinite(image).all():
        raise UserError(f'an array of {image.dtype} has values that are not finite: replace them before predicting')
    if value_range is None:
        low, high = float(image.min()), float(image.max())
        if low < 0 or high > 1:
            raise UserError(f'an array of {image.dtype} has values from {low:g} to {high:g}: expected 0 to 1, or '
                            'value_range=(low, high), the values that are black and white')
    low, high = (0.0, 1.0) if value_range is None else _checked(value_range)
    return np.rint((image.astype(np.float64) - low) * (255 / (high - low))).clip(0, 255).astype(np.uint8)


def _checked(value_range) -> tuple[float, float]:
    try:
        low, high = (float(value) for value in value_range)
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(f'value_range={value_range!r}: expected two numbers, the value of black and the larger one of '
                        'white')
    return low, high
