"""Where overlapping windows of one size lie in an image."""


def window_starts(length: int, crop: int, stride: int) -> list[int]:
    """First pixels of the windows along a side, as mmseg places them: the last one ends with the image."""
    windows = max(length - crop + stride - 1, 0) // stride + 1
    return [max(min(index * stride + crop, length) - crop, 0) for index in range(windows)]
