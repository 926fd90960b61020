"""Reads every image and label file once, in parallel processes."""
import hashlib
import io
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field

import numpy as np

from ...errors import UserError
from ...utils.data_source import read_file
from ...utils.image_values import read_values
from ...utils.images import ImageHeader, OversizedImageError, open_image, read_header
from ...utils.progress import progress_bar
from ...utils.storage import MissingFileError


@dataclass(frozen=True)
class FileFacts:
    """Result of reading a file.

    Args:
        problem: 'missing', 'empty', 'unreadable', 'oversized' or 'truncated'; None for a good file.
        size: width and height in pixels, of images as they are read for training: an EXIF tag may turn them.
        orientation: EXIF orientation, 1 for none.
        digest: of the decoded pixels.
        format: of the file, as PIL names it.
        channels: 1, or 3 and more for colours.
        values: label maps: value -> number of pixels.
        depth: type of the values, as 'uint8'.
        pages: images in the file.
        spread: of more than 8 bits: the values below which a tenth and nine tenths of all lie.
    """
    problem: str | None = None
    size: tuple[int, int] | None = None
    orientation: int = 1
    digest: bytes = b''
    format: str = ''
    channels: int = 1
    values: dict[int, int] = field(default_factory=dict)
    depth: str = 'uint8'
    pages: int = 1
    spread: tuple[float, float] | None = None


def read_facts(job: tuple[str, bool]) -> FileFacts:
    """Read the file `job[0]`; `job[1]` says whether it is a label map."""
    path, is_label = job
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # a pipe would never end
            return FileFacts('missing')
        data = read_file(path)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        if isinstance(error, UserError) and not isinstance(error, MissingFileError):
            raise  # storage that cannot be reached, damaged shards
        return FileFacts('missing')
    if not data:
        return FileFacts('empty')
    try:
        header = read_header(io.BytesIO(data), path)
        if header.channels not in (1, 3, 4):
            return FileFacts('unreadable', (header.width, header.height))
        if header.is_deep and not is_label:
            return _deep_facts(data, header)
        image = open_image(io.BytesIO(data), path)
    except OversizedImageError:
        return FileFacts('oversized')
    except Exception:  # PIL's readers fail in many ways; the finding is the same
        return FileFacts('unreadable')
    try:
        image.load()
    except Exception as error:  # as above
        return FileFacts('truncated' if isinstance(error, OSError) else 'unreadable', image.size, format=image.format)
    if image.format == 'JPEG' and data.rfind(b'\xff\xd9') < len(data) // 2:  # the marker that ends a JPEG
        return FileFacts('truncated', image.size, format=image.format)
    pixels = np.asarray(image)
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if is_label:
        values = {}
        if channels == 1:
            found, counts = np.unique(pixels, return_counts=True)
            values = dict(zip(found.astype(int).tolist(), counts.tolist(), strict=True))
        return FileFacts(size=image.size, format=image.format, channels=channels, values=values)
    return FileFacts(size=(header.width, header.height), orientation=header.orientation, digest=_digest(pixels),
                     format=image.format, channels=channels, pages=header.pages)


def _deep_facts(data: bytes, header: ImageHeader) -> FileFacts:
    """Facts about an image of more than 8 bits, decoded as training does."""
    values = read_values(data)
    size = (header.width, header.height)
    if values is None:
        return FileFacts('unreadable', size)
    finite = values[np.isfinite(values)] if values.dtype.kind == 'f' else values
    spread = tuple(np.percentile(finite, (10, 90)).tolist()) if finite.size else None
    return FileFacts(size=size, orientation=header.orientation, digest=_digest(values), format='deep',
                     channels=values.shape[2], depth=header.values, pages=header.pages, spread=spread)


def _digest(pixels: np.ndarray) -> bytes:
    return hashlib.blake2b(pixels.tobytes() + repr(pixels.shape).encode(), digest_size=16).digest()


def read_all(jobs: Sequence[tuple[str, bool]], workers: int) -> Iterator[FileFacts]:
    """`read_facts` of every job, in order.

    Args:
        jobs: arguments of `read_facts`.
        workers: processes; 0 reads in this one.

    Raises:
        UserError: a process was killed.
    """
    with progress_bar('files read', len(jobs), 'file') as bar:
        for facts in map(read_facts, jobs) if workers == 0 else _read_in_processes(jobs, workers):
            bar.update()
            yield facts


def _read_in_processes(jobs: Sequence[tuple[str, bool]], workers: int) -> Iterator[FileFacts]:
    # Ctrl-C is for this process, which then ends the others
    pool = ProcessPoolExecutor(workers, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN))
    done = 0
    try:
        for facts in pool.map(read_facts, jobs, chunksize=8):
            done += 1
            yield facts
    except BrokenProcessPool:
        raise UserError(f'a process that reads images was killed, mostly because memory ran out, at {jobs[done][0]} or '
                        f'one of the {8 * workers} files after it: free memory, or read in this process alone with '
                        '--workers 0') from None
    finally:
        pool.shutdown(cancel_futures=True)
