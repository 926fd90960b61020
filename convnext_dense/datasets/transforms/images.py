"""What is done to the arrays of images and label maps, by OpenCV's vector code."""
import cv2
import numpy as np
import torch

from ...errors import UserError

FLIPS = {'horizontal': 1, 'vertical': 0, 'diagonal': -1}  # as OpenCV numbers them
OPENCV_TYPES = tuple(map(np.dtype, ('uint8', 'uint16', 'int16', 'int32', 'float32', 'float64')))


def flip(image: np.ndarray, direction: str) -> np.ndarray:
    """An image (H, W) or (H, W, C) flipped, as a new array.

    numpy's flip is a view the other way round; whatever copies it later (OpenCV's resize does) takes ten times as
    long as this.
    """
    if image.dtype not in OPENCV_TYPES or not image.size:
        axes = {'horizontal': 1, 'vertical': 0, 'diagonal': (0, 1)}[direction]
        return np.ascontiguousarray(np.flip(image, axes))
    return cv2.flip(image, FLIPS[direction]).reshape(image.shape)  # OpenCV drops a last axis of 1


def look_up(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """``table[image]`` as a new array, for an image of uint8 and a table of 256."""
    return cv2.LUT(image, table).reshape(image.shape)


def channels_first(image: np.ndarray) -> torch.Tensor:
    """An image (H, W) or (H, W, C) as a contiguous tensor (C, H, W)."""
    if image.ndim < 3:
        image = image[..., None]
    if image.dtype not in OPENCV_TYPES or not image.size:
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    planes = np.empty((image.shape[2], *image.shape[:2]), image.dtype)
    for plane, made in zip(planes, cv2.split(image, list(planes)), strict=True):
        if not np.may_share_memory(plane, made):  # OpenCV fills what it is given if it fits; nothing promises that
            plane[...] = made
    return torch.from_numpy(planes)


def require_keys(transform: object, results: dict, *keys: str) -> None:
    """Raise unless a sample has what a transform reads.

    Raises:
        UserError: names the transform, the image and the key.
    """
    for key in keys:
        if key not in results:
            image = results.get('img_path', 'an image')
            raise UserError(f'{type(transform).__name__} finds no {key!r} in the sample of {image}: put it after the '
                            'transform that sets it, LoadImageFromFile for the image and FastLoadAnnotations for '
                            'annotations')
