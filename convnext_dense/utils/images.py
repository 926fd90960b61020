"""Image files: size, type of the values and number of pages from the header; too large ones are refused undecoded.

A few hundred kilobytes of PNG can hold gigabytes of pixels. PIL refuses more than `DEFAULT_MAX_PIXELS` pixels; OpenCV,
which mmcv reads with, allows a gigapixel. `open_image` and `image_size` hold both to one limit, which the environment
variable CONVNEXT_DENSE_MAX_PIXELS sets; without it, prediction in tiles takes `TILED_MAX_PIXELS`. PIL's own guard stays
as it is.
"""
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import BinaryIO

from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from ..errors import UserError

LIMIT_VARIABLE = 'CONVNEXT_DENSE_MAX_PIXELS'
DEFAULT_MAX_PIXELS = 178_956_970  # where PIL raises DecompressionBombError: 2 x its MAX_IMAGE_PIXELS, 13377 x 13377
TILED_MAX_PIXELS = 2 ** 30  # what OpenCV decodes, unless its own CV_IO_MAX_IMAGE_PIXELS says otherwise
# All that both PIL and OpenCV read. Not EPS, which PIL hands to Ghostscript.
FORMATS = ('JPEG', 'PNG', 'BMP', 'DIB', 'TIFF', 'WEBP', 'GIF', 'PPM', 'JPEG2000')
# what counts as an image, wherever a folder is searched or a file is named
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.gif', '.ppm', '.pgm', '.jp2')
TIFF_STARTS = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')  # the last two are BigTIFF
ORIENTATION = 274  # the tag's number in the EXIF standard, and in TIFF
MAX_PAGES = 10_000  # counted of a TIFF; its list of pages may be circular

_without_variable: ContextVar[int | None] = ContextVar('max_pixels', default=None)


class OversizedImageError(UserError):
    """An image with more pixels than `max_pixels()`."""


@dataclass(frozen=True)
class ImageHeader:
    """What the header of an image file says.

    Args:
        width, height: in pixels, as the image is read for training: an EXIF tag may turn it.
        orientation: the EXIF tag that OpenCV follows, 1 where there is none; from 5 on it swaps width and height.
        values: type of a value: 'uint8' (also for 1, 2 and 4 bits), 'uint16', 'int16', 'float32', ...
        pages: images in the file; reduced copies and masks in a TIFF are not counted.
        channels: of a TIFF; 3 for other formats, whose readers give no other number.
    """
    width: int
    height: int
    values: str = 'uint8'
    pages: int = 1
    channels: int = 3
    orientation: int = 1

    @property
    def is_deep(self) -> bool:
        """Whether values must be mapped to 8 bits (`image_values`)."""
        return self.values != 'uint8'

    @property
    def problem(self) -> str | None:
        """What of the file would not be read, for a sentence; None if all is."""
        if self.pages > 1:
            return f'{self.pages} pages, of which only the first would be read: save every page as an image of its own'
        if self.channels not in (1, 3, 4):
            return f'{self.channels} channels, expected 1, 3 or 4: save those to be used as an image of 3'
        return None


def max_pixels() -> int:
    """The largest width x height that is decoded: CONVNEXT_DENSE_MAX_PIXELS, or `DEFAULT_MAX_PIXELS`,
    or what `allow_pixels` says.

    Raises:
        UserError: the variable is not a positive integer.
    """
    text = os.environ.get(LIMIT_VARIABLE, '').strip()
    if not text:
        return _without_variable.get() or DEFAULT_MAX_PIXELS
    if not re.fullmatch(r'[0-9_]{1,18}', text) or int(text.strip('_') or 0) < 1:
        raise UserError(f'{LIMIT_VARIABLE}={text}: expected a positive integer, the largest number of pixels of an '
                        'image')
    return int(text)


@contextmanager
def allow_pixels(number: int) -> Iterator[None]:
    """Another limit in this thread and processes forked from it, unless CONVNEXT_DENSE_MAX_PIXELS sets one."""
    token = _without_variable.set(number)
    try:
        yield
    finally:
        _without_variable.reset(token)


def open_image(file: str | os.PathLike | BinaryIO, name: str | os.PathLike | None = None) -> Image.Image:
    """As `PIL.Image.open`, which reads the header only, with the limit of `max_pixels`.

    Args:
        file: a path, or a binary file.
        name: what an error calls the image; default: ``file``.

    Raises:
        OversizedImageError: it has more pixels than the limit.
        OSError: the file is missing, unreadable or of none of `FORMATS`.
    """
    image = _identify(file)
    try:
        _check_size(image.width, image.height, file if name is None else name)
    except UserError:
        image.close()
        raise
    return image


def _check_size(width: int, height: int, name) -> None:
    limit = max_pixels()
    if width * height > limit:
        shown = name if isinstance(name, (str, os.PathLike)) else 'an image'
        raise OversizedImageError(
            f'{shown} has {width * height:,} pixels, more than the limit of {limit:,}: remove it or make it smaller, '
            f'or set {LIMIT_VARIABLE}={width * height} if it is meant')


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
    """Width and height in pixels, as the image is read, from the header. Arguments and errors as of `open_image`."""
    header = read_header(file, name)
    return header.width, header.height


def read_header(file: str | os.PathLike | BinaryIO, name: str | os.PathLike | None = None) -> ImageHeader:
    """Size, type of the values and number of pages. Arguments and errors as of `open_image`."""
    is_path = isinstance(file, (str, os.PathLike))
    name = file if name is None else name
    max_pixels()  # a limit that is no number is named whatever the file is
    with open(file, 'rb') if is_path else nullcontext(file) as opened:
        opened.seek(0)
        start = opened.read(26)
        if start[:4] in TIFF_STARTS:
            return _tiff_header(opened, name)
        with open_image(opened, name) as image:
            values = 'uint8'
            if image.mode.startswith('I') or (start.startswith(b'\x89PNG') and start[24] == 16):
                values = 'uint16'
            pages = image.n_frames if image.format in ('GIF', 'WEBP') else 1
            orientation = _orientation(image) if values == 'uint8' else 1  # of PNGs of 16 bits OpenCV reads no tag
            return ImageHeader(*_turned(image.width, image.height, orientation), values, pages,
                               orientation=orientation)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8. PIL's own ``getexif`` also looks into XMP, which OpenCV does not."""
    exif = Image.Exif()
    with suppress(Exception):  # damaged tags fail in many ways; OpenCV passes over them
        exif.load(image.info.get('exif') or b'')
    return _valid_orientation(exif.get(ORIENTATION, 1))


def _valid_orientation(found) -> int:
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _turned(width: int, height: int, orientation: int) -> tuple[int, int]:
    return (height, width) if orientation >= 5 else (width, height)


def _tiff_header(file: BinaryIO, name) -> ImageHeader:
    """From the TIFF's tags: PIL has no mode for some types of values, such as three channels of float32."""
    pages = []
    try:
        file.seek(0)
        start = file.read(8)
        tags = TiffImagePlugin.ImageFileDirectory_v2(start + (file.read(8) if start[2:4] in (b'+\0', b'\0+') else b''))
        while tags.next and len(pages) < MAX_PAGES:
            file.seek(tags.next)
            tags.load(file)
            kinds = {1: 'uint', 2: 'int', 3: 'float'}
            if not pages or not tags.get(254, 0) & 5:  # NewSubfileType: 1 a reduced copy, 4 a mask
                bits, kind = max(tags.get(258, (1,))), kinds.get((tags.get(339) or (1,))[0], 'uint')
                pages.append((tags[256], tags[257], f'{kind}{max(bits, 8)}', int(tags.get(277, 1)),
                              _valid_orientation(tags.get(ORIENTATION, 1))))
        width, height, values, channels, orientation = pages[0]
        header = ImageHeader(*_turned(int(width), int(height), orientation), values, len(pages), channels, orientation)
    except (SyntaxError, IndexError, KeyError, TypeError, ValueError, OverflowError, struct.error) as error:
        raise UnidentifiedImageError(f'cannot identify image file {name!r}') from error
    _check_size(header.width, header.height, name)
    return header
