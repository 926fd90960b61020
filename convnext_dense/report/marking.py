"""The place in a picture that a caption is about: marked, and close up."""
from collections.abc import Sequence

import cv2
import numpy as np

from ..visualization.draw import enlarge, mark_box

CLOSE_SIDE = 320  # pixels that the shorter side of a close-up has at least
SURROUNDINGS = 2.2  # sides of a close-up over those of its box
SMALLEST_SHARE = 0.12  # of a close-up's sides in those of the picture


def marked_panels(panels: Sequence[tuple[str, np.ndarray]], box: np.ndarray, image: np.ndarray, shown: int
                  ) -> list[tuple[str, np.ndarray]]:
    """Pictures of an image with a box marked in each, and a close-up of one of them.

    Args:
        panels: (title, picture) pairs; a picture is the image, enlarged by a whole factor.
        box: x1 y1 x2 y2 in pixels of the image.
        image: the image.
        shown: which of the panels the close-up is of.
    """
    factor = panels[0][1].shape[0] // image.shape[0]
    marked = [(title, mark_box(picture, box * factor)) for title, picture in panels]
    part = close_up(marked[shown][1], box * factor)
    return [*marked, (f'close-up, {panels[shown][0].partition(",")[0]}', part)]


def close_up(picture: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The part of a picture around a box, of the picture's proportions and about twice as large as the box.

    It is enlarged by a whole factor where it is small.
    """
    size = np.array(picture.shape[1::-1])
    share = min(1, max(SMALLEST_SHARE, (SURROUNDINGS * (box[2:] - box[:2]) / size).max()))
    window = np.ceil(share * size).astype(int)
    left, top = np.clip(np.rint((box[:2] + box[2:] - window) / 2).astype(int), 0, size - window)
    part = picture[top:top + window[1], left:left + window[0]]
    return enlarge(part, -(-CLOSE_SIDE // min(part.shape[:2])))


def largest_area(pixels: np.ndarray) -> np.ndarray:
    """x1 y1 x2 y2 of the largest connected area of a bool map (H, W) that has one, float (4,)."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(pixels.astype(np.uint8), connectivity=8)
    x, y, width, height = stats[1 + stats[1:, cv2.CC_STAT_AREA].argmax(), :4]
    return np.array([x, y, x + width, y + height], float)
