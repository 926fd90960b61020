"""Reads every image and label file once, in parallel processes, and says what it is."""
import hashlib
import io
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

Image.MAX_IMAGE_PIXELS = None  # large images are for the user to decide about, not for PIL
EXIF_ORIENTATION = 274  # the tag's number in the EXIF standard


@dataclass(frozen=True)
class Facts:
    """What a file turned out to be.

    Args:
        problem: 'missing', 'empty', 'unreadable' or 'truncated'; None for a good file.
        size: width and height in pixels, as stored.
        orientation: EXIF orientation, 1 for none.
        digest: of the decoded pixels.
        format: of the file, as PIL names it.
        channels: 1, or 3 and more for colours.
        values: label maps: value -> number of pixels.
    """
    problem: str | None = None
    size: tuple[int, int] | None = None
    orientation: int = 1
    digest: bytes = b''
    format: str = ''
    channels: int = 1
    values: dict[int, int] = field(default_factory=dict)

    @property
    def shown_size(self) -> tuple[int, int] | None:
        """Width and height after the turn that mmcv, through OpenCV, gives images with an orientation tag."""
        return self.size[::-1] if self.size and self.orientation >= 5 else self.size


def read_facts(job: tuple[str, bool]) -> Facts:
    """Read the file `job[0]`; `job[1]` says whether it is a label map."""
    path, is_label = job
    try:
        with open(path, 'rb') as file:
            data = file.read()
    except OSError:
        return Facts('missing')
    if not data:
        return Facts('empty')
    try:
        image = Image.open(io.BytesIO(data))
    except Exception:  # PIL's readers fail in many ways; the finding is the same
        return Facts('unreadable')
    try:
        image.load()
    except Exception as error:  # as above
        return Facts('truncated' if isinstance(error, OSError) else 'unreadable', image.size, format=image.format)
    if image.format == 'JPEG' and data.rfind(b'\xff\xd9') < len(data) // 2:  # the marker that ends a JPEG
        return Facts('truncated', image.size, format=image.format)
    pixels = np.asarray(image)
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if is_label:
        values = {}
        if channels == 1:
            found, counts = np.unique(pixels, return_counts=True)
            values = dict(zip(found.astype(int).tolist(), counts.tolist(), strict=True))
        return Facts(size=image.size, format=image.format, channels=channels, values=values)
    return Facts(size=image.size, orientation=image.getexif().get(EXIF_ORIENTATION, 1),
                 digest=hashlib.blake2b(pixels.tobytes() + repr(pixels.shape).encode(), digest_size=16).digest(),
                 format=image.format, channels=channels)


def read_all(jobs: Iterable[tuple[str, bool]], workers: int, progress: Callable[[int], None]) -> Iterator[Facts]:
    """`read_facts` of every job, in order; `workers` processes, or this one with 0."""
    if workers == 0:
        for done, job in enumerate(jobs, 1):
            yield read_facts(job)
            progress(done)
        return
    # Ctrl-C is for this process, which then ends the others
    with multiprocessing.Pool(workers, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        for done, facts in enumerate(pool.imap(read_facts, jobs, chunksize=8), 1):
            yield facts
            progress(done)
