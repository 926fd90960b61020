"""Image files: sizes read from the header, and refused above a limit before any pixel is decoded.

A few hundred kilobytes of PNG can hold gigabytes of pixels. PIL refuses more than `DEFAULT_MAX_PIXELS` pixels; OpenCV,
which mmcv reads with, allows a gigapixel. `open_image` and `image_size` hold both to one limit, which the environment
variable CONVNEXT_DENSE_MAX_PIXELS sets. PIL's own guard stays as it is.
"""
import os
import re
import struct
from contextlib import nullcontext, suppress
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from ..errors import UserError

LIMIT_VARIABLE = 'CONVNEXT_DENSE_MAX_PIXELS'
DEFAULT_MAX_PIXELS = 178_956_970  # where PIL raises DecompressionBombError: 2 x its MAX_IMAGE_PIXELS, 13377 x 13377
# All that both PIL and OpenCV read. Not EPS, which PIL hands to Ghostscript.
FORMATS = ('JPEG', 'PNG', 'BMP', 'DIB', 'TIFF', 'WEBP', 'GIF', 'PPM', 'JPEG2000')


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
        OSError: the file is missing, unreadable or of none of `FORMATS`.
    """
    limit, image = max_pixels(), _identify(file)
    if image.width * image.height > limit:
        image.close()
        name = file if name is None else name
        shown = name if isinstance(name, (str, os.PathLike)) else 'an image'
        raise OversizedImageError(
            f'{shown} has {image.width * image.height:,} pixels, more than the limit of {limit:,}: remove it or '
            f'make it smaller, or set {LIMIT_VARIABLE}={image.width * image.height} if it is meant')
    return image


def _identify(file: str | os.PathLike | BinaryIO) -> Image.Image:
    """What `PIL.Image.open` does before it applies its limit, which has no argument and is one for the process."""
    Image.preinit()
    is_path = isinstance(file, (str, os.PathLike))
    with open(file, 'rb') if is_path else nullcontext(file) as opened:
        opened.seek(0)
        prefix = opened.read(16)
    for kind in FORMATS:
        if kind not in Image.OPEN:
            Image.init()
        factory, accepts = Image.OPEN.get(kind, (None, None))
        with suppress(SyntaxError, IndexError, TypeError, struct.error):  # as in PIL: it is of another format then
            if factory is not None and (not accepts or accepts(prefix) is True):
                if not is_path:
                    file.seek(0)
                return factory(file, None)
    raise UnidentifiedImageError(f'cannot identify image file {file!r}')


def image_size(file: str | os.PathLike | BinaryIO, name: str | os.PathLike | None = None) -> tuple[int, int]:
    """Width and height in pixels, as stored, from the header. Arguments and errors as of `open_image`."""
    with open_image(file, name) as image:
        return image.size
