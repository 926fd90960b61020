"""The inputs of a prediction: images and videos from files, folders and globs, each with a unique name."""
import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..errors import UserError
from ..utils.images import IMAGE_SUFFIXES

VIDEO_SUFFIXES = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg')
SUFFIXES = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)


@dataclass(frozen=True)
class Input:
    """One file to predict.

    Args:
        path: of the file.
        name: for its results: its path below the folder that was given, without suffix; no two inputs share one.
    """
    path: Path
    name: str

    @property
    def is_video(self) -> bool:
        """Whether the file is a video, by its suffix."""
        return self.path.suffix.lower() in VIDEO_SUFFIXES


def find_inputs(patterns: Sequence[str], exclude: str | os.PathLike | None = None) -> list[Input]:
    """Files, folders (with all folders below) and globs (``**`` included) as a list of files without repetitions.

    Args:
        patterns: as a user writes them.
        exclude: a folder whose files are left out of folders and globs: the results of an earlier run.

    Raises:
        UserError: nothing is there, a folder has no image and no video, or nothing matches a glob.
    """
    found: dict[Path, tuple[Path, Path]] = {}
    for pattern in patterns:
        for path, name in _expand(pattern, None if exclude is None else Path(exclude).resolve()):
            found.setdefault(path.resolve(), (path, name))
    inputs, taken = [], set()
    for path, name in found.values():
        stem, count = name.with_suffix('').as_posix(), 1
        unique = stem
        while unique.lower() in taken:  # some file systems take A and a for the same name
            count += 1
            unique = f'{stem}_{count}'
        taken.add(unique.lower())
        inputs.append(Input(path, unique))
    return inputs


def _expand(pattern: str, exclude: Path | None) -> list[tuple[Path, Path]]:
    """(file, name) pairs of one argument."""
    def wanted(file: Path) -> bool:
        return file.is_file() and not (exclude and file.resolve().is_relative_to(exclude))

    path = Path(pattern)
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise UserError(f'input {pattern} is no image or video by its suffix: expected {", ".join(SUFFIXES)}')
        return [(path, Path(path.name))]
    if path.is_dir():
        files = sorted(file for file in path.rglob('*') if file.suffix.lower() in SUFFIXES and wanted(file))
        if not files:
            raise UserError(f'folder {pattern} has no image and no video: expected files that end in '
                            f'{", ".join(SUFFIXES)}')
        return [(file, file.relative_to(path)) for file in files]
    if not glob.has_magic(pattern):
        raise UserError(f'input {pattern} does not exist: expected an image, a video, a folder or a glob')
    files = [file for file in map(Path, sorted(glob.glob(pattern, recursive=True))) if wanted(file)]
    if not files:
        raise UserError(f'no file matches {pattern}: check the pattern, and the folder that it starts from')
    root = Path(os.path.commonpath([file.parent for file in files]))
    return [(file, file.relative_to(root)) for file in files]


def read_frames(path: Path) -> Iterator[np.ndarray]:
    """Frames of a video file in order, RGB uint8 (H, W, 3).

    Raises:
        UserError: the file is no video, or not one frame can be decoded.
    """
    video = cv2.VideoCapture(str(path))
    try:
        ok, frame = video.read()
        if not ok:
            raise UserError(f'cannot read {path} as a video: check that the file is complete and that OpenCV can '
                            'decode its format')
        while ok:
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            ok, frame = video.read()
    finally:
        video.release()


def frame_count(path: Path) -> int:
    """Number of frames according to a video's header, 0 where it does not say; decoding may give fewer or more."""
    return max(0, int(_property(path, cv2.CAP_PROP_FRAME_COUNT)))


def frame_rate(path: Path) -> float:
    """Frames per second of a video, 25 where its header does not say."""
    return _property(path, cv2.CAP_PROP_FPS) or 25.0


def _property(path: Path, which: int) -> float:
    video = cv2.VideoCapture(str(path))
    value = video.get(which) if video.isOpened() else 0.0
    video.release()
    return value
