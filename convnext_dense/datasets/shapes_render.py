"""Draws one image of the generated data sets: a few large colourful shapes, or many tiny crowded cells; exact masks."""
import colorsys
from dataclasses import dataclass

import cv2
import numpy as np

CLASSES = ('circle', 'square', 'triangle')
PALETTE = ((230, 159, 0), (86, 180, 233), (0, 158, 115))  # RGB; from Okabe and Ito, told apart by the colour-blind
BACKGROUND_LABEL = 1  # in ADE-style label maps; the shapes follow it
SEG_CLASSES = ('background', *CLASSES)
SEG_PALETTE = ((120, 120, 120), *PALETTE)

# Chosen for this data set, not taken from anywhere: readable scenes that a small network learns in minutes.
SHAPES_PER_IMAGE = (2, 5)  # inclusive
RADIUS = (0.12, 0.26)  # of the circumscribed circle, as a fraction of the image side
TILT = 15.0  # degrees, at most, either way: squares stand on a side, triangles point up
MIN_VISIBLE = 0.45  # of a shape's whole area, after occlusion and the image border
TINT = 15.0  # of the grey backgrounds, either way, out of 255
SATURATION = (0.65, 1.0)  # of the shapes, as in HSV
MIN_CONTRAST = 90.0  # Euclidean RGB distance of a shape's colour to all the background's colours

TINY_CLASSES = ('cell',)
CELL_SIDES = (6.0, 16.0)  # shorter and longer diameter of a cell in pixels, at any image size
CELLS_PER_PIXEL = (40 / 256**2, 90 / 256**2)  # 40 to 90 in 256 x 256 pixels, below the 100 detections that AP counts
CELLS_PER_CLUSTER = 8  # on average; their centres are within CLUSTER_SPREAD pixels (standard deviation)
CLUSTER_SPREAD = 24.0


@dataclass(frozen=True)
class Scene:
    """One rendered image: `image` uint8 (H, W, 3) BGR, `labels` int (N,) into the classes, `masks` bool (N, H, W).

    Masks hold the visible parts only, so no pixel belongs to two of them.
    """
    image: np.ndarray
    labels: np.ndarray
    masks: np.ndarray


def render_scene(rng: np.random.Generator, size: int) -> Scene:
    """Draw a scene of `size` x `size` pixels; everything random comes from `rng`."""
    background_colours = rng.uniform(40, 215, (2, 1)) + rng.uniform(-TINT, TINT, (2, 3))
    canvas = _texture(rng, size, background_colours)
    labels: list[int] = []
    masks: list[np.ndarray] = []
    whole_areas: list[float] = []
    wanted = int(rng.integers(SHAPES_PER_IMAGE[0], SHAPES_PER_IMAGE[1] + 1))
    for _ in range(wanted * 10):  # some draws are refused, since they would hide too much
        if len(labels) == wanted:
            break
        label = int(rng.integers(len(CLASSES)))
        distance, area = _draw_shape(rng, size, CLASSES[label])
        mask = distance < 0
        remaining = [m & ~mask for m in masks]
        candidates = zip([*remaining, mask], [*whole_areas, area], strict=True)
        if any(m.sum() < MIN_VISIBLE * whole for m, whole in candidates):
            continue
        fill = _texture(rng, size, _contrasting_colours(rng, background_colours))
        opacity = np.clip(0.5 - distance, 0, 1)[..., None]  # one pixel of soft edge
        canvas = canvas * (1 - opacity) + fill * opacity
        labels, masks, whole_areas = [*labels, label], [*remaining, mask], [*whole_areas, area]
    canvas += rng.normal(0, rng.uniform(2, 8), canvas.shape)  # the sensor's noise
    image = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    return Scene(image, np.array(labels), np.stack(masks))


def render_tiny(rng: np.random.Generator, size: int) -> Scene:
    """Draw many small ellipses in clusters, as cells under a microscope: `size` x `size` pixels, everything from `rng`.

    A cell is 6 to 16 pixels wide; it may cover another one by half.
    """
    background = rng.uniform(20, 90)
    tint = rng.uniform(0.8, 1.0, 3)
    canvas = _texture(rng, size, background + rng.uniform(-15, 15, (2, 1)) + np.zeros((2, 3)))
    wanted = int(rng.integers(*(np.array(CELLS_PER_PIXEL) * size**2).astype(int) + (0, 1)))
    clusters = rng.uniform(0, size, (max(1, round(wanted / CELLS_PER_CLUSTER)), 2))
    masks: list[np.ndarray] = []
    whole_areas: list[int] = []
    for _ in range(wanted * 10):  # draws that would hide too much of another cell are refused
        if len(masks) == wanted:
            break
        centre = clusters[rng.integers(len(clusters))] + rng.normal(0, CLUSTER_SPREAD, 2)
        if not (4 <= centre.min() and centre.max() <= size - 4):
            continue
        distance = _ellipse(rng, size, centre)
        mask = distance < 0
        touched = [index for index, other in enumerate(masks) if (other & mask).any()]
        if any((masks[index] & ~mask).sum() < 0.5 * whole_areas[index] for index in touched):
            continue
        for index in touched:
            masks[index] &= ~mask
        opacity = np.clip(0.5 - distance, 0, 1)[..., None]
        shade = 1 + 0.1 * np.clip(distance, -6, 0)[..., None] / 6  # darker towards the middle, so that edges show
        canvas = canvas * (1 - opacity) + rng.uniform(background + 60, 235) * tint * shade * opacity
        masks.append(mask)
        whole_areas.append(int(mask.sum()))
    canvas += rng.normal(0, rng.uniform(2, 8), canvas.shape)
    image = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    return Scene(image, np.zeros(len(masks), int), np.stack(masks))


def _ellipse(rng: np.random.Generator, size: int, centre: np.ndarray) -> np.ndarray:
    """A random cell as its distance in pixels (exact on its axes) at every pixel's centre, negative inside."""
    short, long = np.sort(rng.uniform(*CELL_SIDES, 2)) / 2
    angle = rng.uniform(0, np.pi)
    y, x = np.mgrid[:size, :size] + 0.5 - centre[:, None, None]
    u, v = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
    radius = np.hypot(u / long, v / short)
    return (radius - 1) * np.where(radius > 0, np.hypot(u, v) / np.maximum(radius, 1e-9), short)


def _draw_shape(rng: np.random.Generator, size: int, shape: str) -> tuple[np.ndarray, float]:
    """A random shape as its signed distance in pixels, negative inside, at every pixel's centre, and its area."""
    radius = rng.uniform(*RADIUS) * size
    centre = rng.uniform(0.4 * radius, size - 0.4 * radius, 2)
    tilt = np.deg2rad(rng.uniform(-TILT, TILT))
    y, x = np.mgrid[:size, :size] + 0.5 - centre[:, None, None]
    if shape == 'circle':
        radius *= 0.85  # so that the three shapes are about equally large
        return np.hypot(x, y) - radius, np.pi * radius**2
    corners = {'square': 4, 'triangle': 3}[shape]
    normals = np.pi / 2 + tilt + 2 * np.pi * np.arange(corners) / corners  # the first points down, out of the base
    apothem = radius * np.cos(np.pi / corners)
    distance = np.max([x * np.cos(a) + y * np.sin(a) - apothem for a in normals], axis=0)
    return distance, corners / 2 * radius**2 * np.sin(2 * np.pi / corners)


def _contrasting_colours(rng: np.random.Generator, background: np.ndarray) -> np.ndarray:
    """Two shades of a strong colour (2, 3), both far from the background's two and from every blend of those."""
    blends = background[0] + np.linspace(0, 1, 5)[:, None] * (background[1] - background[0])
    while True:
        saturation, value = rng.uniform(*SATURATION), rng.uniform(0.45, 1)
        colour = 255 * np.array(colorsys.hsv_to_rgb(rng.uniform(), saturation, value))
        pair = np.stack([colour, np.clip(colour * rng.uniform(0.7, 1.3), 0, 255)])
        gaps = np.linalg.norm(pair[:, None] - blends[None], axis=-1)
        if gaps.min() > MIN_CONTRAST:
            return pair


def _texture(rng: np.random.Generator, size: int, colours: np.ndarray) -> np.ndarray:
    """A random pattern (size, size, 3) that blends two colours: stripes, checks, blotches or a ramp."""
    kind = int(rng.integers(4))
    period = rng.uniform(0.06, 0.2) * size
    angle = rng.uniform(0, np.pi)
    y, x = np.mgrid[:size, :size].astype(np.float64)
    u, v = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
    if kind == 0:
        blend = 0.5 + 0.5 * np.sin(2 * np.pi * u / period)
    elif kind == 1:
        blend = 0.5 + 0.5 * np.sin(2 * np.pi * u / period) * np.sin(2 * np.pi * v / period)
    elif kind == 2:
        cells = int(rng.integers(4, 12))
        blend = cv2.resize(rng.uniform(0, 1, (cells, cells)), (size, size), interpolation=cv2.INTER_LINEAR)
    else:
        blend = (u - u.min()) / (u.max() - u.min())
    return colours[0] + blend[..., None] * (colours[1] - colours[0])
