"""Images for a graph, and masks back at the size of the image, in numpy and OpenCV.

The arithmetic is that of the test pipelines and of mmdet's post-processing.
"""
import cv2
import numpy as np

from .metadata import Metadata


def prepare(image: np.ndarray, metadata: Metadata) -> tuple[np.ndarray, tuple[int, int]]:
    """Resize an RGB image (H, W, 3) as the metadata says.

    Returns:
        uint8 (3, h, w) in the graph's order of channels, and the (height, width) without padding.
    """
    height, width = image.shape[:2]
    size = resized(height, width, metadata)
    if size != (height, width):
        image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    if metadata.channels == 'BGR':
        image = image[..., ::-1]
    if metadata.size is not None:
        padded = np.empty((*metadata.size, 3), np.uint8)
        padded[:] = np.rint(metadata.mean).clip(0, 255)  # near zero when it is normalised
        padded[:size[0], :size[1]] = image
        image = padded
    return np.ascontiguousarray(image.transpose(2, 0, 1)), size


def resized(height: int, width: int, metadata: Metadata) -> tuple[int, int]:
    """(height, width) of an image after resizing, as mmcv's ``rescale_size`` rounds it."""
    if metadata.size is not None:
        factor = min(metadata.size[0] / height, metadata.size[1] / width)
        return (min(metadata.size[0], max(1, int(height * factor + 0.5))),
                min(metadata.size[1], max(1, int(width * factor + 0.5))))
    if metadata.scale is None:
        return height, width
    if not metadata.keep_ratio:
        return metadata.scale[1], metadata.scale[0]
    factor = min(max(metadata.scale) / max(height, width), min(metadata.scale) / min(height, width))
    return int(height * factor + 0.5), int(width * factor + 0.5)


def paste(probabilities: np.ndarray, boxes: np.ndarray, size: tuple[int, int], threshold: float) -> np.ndarray:
    """Masks of boxes at the size of the image, as mmdet pastes them: bilinear between the centres of mask pixels.

    Args:
        probabilities: (n, h, w) within the boxes.
        boxes: (n, 4) as x1, y1, x2, y2, in pixels of the image.
        size: (height, width).

    Returns:
        bool (n, height, width), True from the threshold on.
    """
    masks = np.zeros((len(boxes), *size), bool)
    for mask, part, box in zip(masks, probabilities, boxes, strict=True):
        x1, y1, x2, y2 = box
        rows = slice(max(int(np.floor(y1)) - 1, 0), min(int(np.ceil(y2)) + 1, size[0]))
        columns = slice(max(int(np.floor(x1)) - 1, 0), min(int(np.ceil(x2)) + 1, size[1]))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            continue
        down = sampling(rows, y1, y2, part.shape[0])
        across = sampling(columns, x1, x2, part.shape[1])
        mask[rows, columns] = down @ part @ across.T >= threshold
    return masks


def sampling(pixels: slice, low: np.float32, high: np.float32, length: int) -> np.ndarray:
    """Weights (pixels, length) of a mask's rows (or columns) for pixels of the image, zero beyond the mask."""
    centres = np.arange(pixels.start, pixels.stop, dtype=np.float32) + np.float32(0.5)
    extent = np.float32(high - low)
    # without extent the middle is sampled, as mmdet does
    at = (centres - low) / extent * length - np.float32(0.5) if extent > 0 else \
        np.full_like(centres, (length - 1) / 2)
    first = np.floor(at)
    share = (at - first).astype(np.float32)
    weights = np.zeros((len(at), length + 2), np.float32)  # a column on both sides for what lies beyond
    index = np.arange(len(at))
    places = np.clip(first.astype(np.int64) + 1, 0, length + 1)
    weights[index, places] += 1 - share
    following = np.clip(first.astype(np.int64) + 2, 0, length + 1)
    weights[index, following] += share
    return weights[:, 1:-1]
