"""Image files: sizes read from the header, and refused above a limit before any pixel is decoded.

A few hundred kilobytes of PNG can hold gigabytes of pixels. PIL refuses more than `DEFAULT_MAX_PIXELS` pixels; OpenCV,
which mmcv reads with, allows a gigapixel. `open_image` and `image_size` hold both to one limit, which the environment
variable CONVNEXT_DENSE_MAX_PIXELS sets. PIL's own guard stays on.
"""
import os
import re
import threading
import warnings
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from ..errors import UserError

LIMIT_VARIABLE = 'CONVNEXT_DENSE_MAX_PIXELS'
DEFAULT_MAX_PIXELS = 178_956_970  # where PIL raises DecompressionBombError: 2 x its MAX_IMAGE_PIXELS, 13377 x 13377
# All that both PIL and OpenCV read. Not EPS, which PIL hands to Ghostscript.
FORMATS = ('JPEG', 'PNG', 'BMP', 'DIB', 'TIFF', 'WEBP', 'GIF', 'PPM', 'JPEG2000')
_lock = threading.Lock()


class OversizedImageError(UserError):
    """An image with more pixels than `max_pixels()`."""


def max_pixels() -> int:
    """The largest width x height that is decoded: CONVNEXT_DENSE_MAX_PIXELS, or `DEFAULT_MAX_PIXELS`.

    Raises:
        UserError: the variable is not a positive integer.
    """
    text = os.environ.get(LIMIT_VARIABLE, '').strip()
    if not text:
        return DEFAULT_MAX_PIXELS
    if not re.fullmatch(r'[0-9_]{1,18}', text) or int(text.strip('_') or 0) < 1:
        raise UserError(f'{LIMIT_VARIABLE}={text}: expected a positive integer, the largest number of pixels of an '
                        'image')
    return int(text)


def open_image(file: str | os.PathLike | BinaryIO, name: str | os.PathLike | None = None) -> Image.Image:
    """As `PIL.Image.open`, which reads the header only, with the limit of `max_pixels`.

    Args:
        file: a path, or a binary file.
        name: what an error calls the image; default: ``file``.

    Raises:
        OversizedImageError: it has more pixels than the limit.
        OSError, SyntaxError, ValueError: from PIL, for a file that is missing, unreadable or of none of `FORMATS`.
    """
    limit, name = max_pixels(), file if name is None else name
    with _lock, warnings.catch_warnings():
        warnings.simplefilter('ignore', Image.DecompressionBombWarning)
        usual, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, limit  # PIL has no argument for it
        try:
            image = Image.open(file, formats=FORMATS)
        except Image.DecompressionBombError as error:  # more than twice the limit
            found = re.search(r'\d+', str(error))
            raise _oversized(name, int(found[0]) if found else 2 * limit) from None
        finally:
            Image.MAX_IMAGE_PIXELS = usual
    if image.width * image.height > limit:
        image.close()
        raise _oversized(name, image.width * image.height)
    return image


def image_size(file: str | os.PathLike | BinaryIO, name: str | os.PathLike | None = None) -> tuple[int, int]:
    """Width and height in pixels, as stored, from the header. Arguments and errors as of `open_image`."""
    with open_image(file, name) as image:
        return image.size


def _oversized(name, pixels: int) -> OversizedImageError:
    shown = name if isinstance(name, (str, Path)) else 'an image'
    return OversizedImageError(f'{shown} has {pixels:,} pixels, more than the limit of {max_pixels():,}: remove it or '
                               f'make it smaller, or set {LIMIT_VARIABLE}={pixels} if it is meant')
