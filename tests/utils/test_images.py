"""Images above the limit are refused from their header alone, and PIL's own guard stays on."""
import io
import struct
import warnings
import zlib

import pytest
from PIL import Image

from convnext_dense.errors import UserError
from convnext_dense.utils.images import DEFAULT_MAX_PIXELS, LIMIT_VARIABLE, OversizedImageError, image_size, open_image


def png_header(width: int, height: int) -> bytes:
    """A PNG whose header announces a size and whose pixels are missing, by the PNG specification."""
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0))
            + chunk(b'IDAT', zlib.compress(b'')) + chunk(b'IEND', b''))


def test_the_default_limit_is_that_of_pil():
    """PIL raises above twice MAX_IMAGE_PIXELS; its source is the reference."""
    assert DEFAULT_MAX_PIXELS == 2 * Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize('width, height', [(13378, 13378), (20000, 20000), (100_000, 100_000), (2**31 - 1, 2**31 - 1)])
def test_an_oversized_image_is_refused_by_its_header(width, height, tmp_path):
    (tmp_path / 'bomb.png').write_bytes(png_header(width, height))
    for call in (open_image, image_size):
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            with pytest.raises(OversizedImageError, match=f'bomb.png has {width * height:,} pixels, more than the '
                                                          f'limit of 178,956,970: .+{LIMIT_VARIABLE}={width * height}'):
                call(tmp_path / 'bomb.png')
    with pytest.raises(OversizedImageError, match='row 3 has'):
        open_image(io.BytesIO(png_header(width, height)), 'row 3')


def test_the_limit_is_configurable_and_pils_own_stays(tmp_path, monkeypatch):
    usual = Image.MAX_IMAGE_PIXELS
    (tmp_path / 'large.png').write_bytes(png_header(20000, 20000))
    monkeypatch.setenv(LIMIT_VARIABLE, '400_000_000')
    assert image_size(tmp_path / 'large.png') == (20000, 20000)
    monkeypatch.setenv(LIMIT_VARIABLE, '399999999')
    with pytest.raises(OversizedImageError):
        image_size(tmp_path / 'large.png')
    assert usual is not None and Image.MAX_IMAGE_PIXELS == usual
    with pytest.raises(Image.DecompressionBombError):
        Image.open(tmp_path / 'large.png')


@pytest.mark.parametrize('text', ['0', '-1', 'many', '1e9', '_'])
def test_a_limit_that_is_no_number_is_named(text, monkeypatch, tmp_path):
    monkeypatch.setenv(LIMIT_VARIABLE, text)
    with pytest.raises(UserError, match=f'{LIMIT_VARIABLE}={text}: expected a positive integer'):
        image_size(tmp_path / 'a.png')


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'bmp', 'tif', 'webp', 'gif', 'ppm', 'jp2'])
def test_usual_formats_are_read(suffix, tmp_path):
    Image.new('RGB', (7, 5)).save(tmp_path / f'a.{suffix}')
    assert image_size(tmp_path / f'a.{suffix}') == (7, 5)
    assert image_size(str(tmp_path / f'a.{suffix}')) == (7, 5)


def test_postscript_is_no_image(tmp_path):
    """PIL would run Ghostscript on it."""
    Image.new('RGB', (7, 5)).save(tmp_path / 'a.eps')
    (tmp_path / 'a.eps').rename(tmp_path / 'a.jpg')
    with pytest.raises(OSError):
        open_image(tmp_path / 'a.jpg')
