"""Pictures of annotations and predictions. Every image here is uint8 (H, W, 3) RGB."""
import colorsys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import UserError, few
from ..utils.image_values import ValueRange, check_values, read_bgr
from ..utils.run_lengths import EncodedMasks, crops

Colour = tuple[int, int, int]
IGNORED = 255  # label of pixels that belong to no class
HIDEABLE = ('boxes', 'masks', 'labels', 'scores')
COLOUR_BY = ('class', 'instance')
MAX_COVERED = 0.25  # share of an object that a tag may cover; the tags of small objects are left out instead
CROWD = 20  # of more objects, those smaller than their tags have none
ROWS_TOGETHER = 512  # blended at one time
MAX_SIDE = 8192  # of a picture, in pixels; larger images are reduced
UNREADABLE = 'cannot read {} as an image: check that the file exists and is complete'


@dataclass
class Instances:
    """Objects of one image, annotated or predicted.

    Args:
        labels: int (N,), indices into a list of class names.
        boxes: float (N, 4), x1 y1 x2 y2 in pixels of the image, or None.
        masks: bool (N, H, W), `EncodedMasks`, or None.
        scores: float (N,) from 0 to 1, or None for annotations.
    """
    labels: np.ndarray
    boxes: np.ndarray | None = None
    masks: np.ndarray | EncodedMasks | None = None
    scores: np.ndarray | None = None

    def above(self, score: float) -> 'Instances':
        """The instances with a score of at least `score`, the least certain first, as they should be drawn.

        Those whose box is not finite are left out, too.
        """
        if self.scores is None:
            return self
        order = np.argsort(self.scores, kind='stable')
        keep = order[self.scores[order] >= score]
        if self.boxes is not None:
            keep = keep[np.isfinite(self.boxes[keep]).all(axis=1)]
        return replace(self, **{name: values[keep] for name in ('labels', 'boxes', 'masks', 'scores')
                                if (values := getattr(self, name)) is not None})


def read_image(path, value_range: ValueRange | None = None) -> np.ndarray:
    """Read an image file as RGB, uint8.

    Args:
        path: of the file.
        value_range: (low, high), which become 0 and 255 where a value has more than 8 bits (`utils.image_values`).

    Raises:
        UserError: the file is missing, no image, has more pixels than `utils.images.max_pixels`, several pages, or more
            than 8 bits a value and there is no range.
    """
    check_readable(path, value_range=value_range)
    image = read_bgr(Path(path).read_bytes(), path, value_range)
    if image is None:
        raise UserError(UNREADABLE.format(path))
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, image)  # in place: it may be large


def check_readable(path, name: str | None = None, value_range: ValueRange | None = None) -> tuple[int, int]:
    """Width and height of an image file, from its header; errors call it `name`, by default its path.

    Raises:
        UserError: as of `read_image`, without decoding the image.
    """
    name = path if name is None else name
    try:
        header = check_values(path, value_range, name)
        return header.width, header.height
    except OSError as error:
        raise UserError(UNREADABLE.format(name)) from error


def distinct_colours(count: int) -> list[Colour]:
    """RGB colours for classes without a palette; neighbours in the list differ strongly in hue."""
    golden = 0.618034  # the golden ratio's fraction spreads any number of hues evenly
    tones = ((0.8, 0.95), (1.0, 0.7), (0.55, 1.0))  # saturation and value, seven hues each: bright, dark, pale
    return [tuple(round(255 * v) for v in colorsys.hsv_to_rgb(i * golden % 1, *tones[i // 7 % 3]))
            for i in range(count)]


def palette_of(metainfo: Mapping, classes: Sequence[str]) -> list[Colour]:
    """The RGB colour of each class: the palette of a data set's metainfo if it has one colour per class, else others.

    A data set with classes of its own keeps the palette of its type: mmdet's CocoDataset has 80 colours, even
    with ``metainfo=dict(classes=...)``.
    """
    palette = metainfo.get('palette')
    if isinstance(palette, (list, tuple)) and len(palette) == len(classes):
        return [tuple(colour) for colour in palette]
    return distinct_colours(len(classes))


def draw_instances(image: np.ndarray, instances: Instances, classes: Sequence[str],
                   palette: Sequence[Colour] | None = None, min_score: float = 0.3, min_side: int = 480,
                   hide: Collection[str] = (), colour_by: str = 'class', max_side: int = MAX_SIDE) -> np.ndarray:
    """Draw masks, outlines, boxes, class names and scores over an image.

    A name or score that would cover objects is left out; so are the names of several objects of an only class.

    Args:
        image: (H, W, 3).
        instances: what to draw; boxes and masks refer to `image`.
        classes: names, indexed by the labels.
        palette: one colour per class.
        min_score: predictions below it are left out.
        min_side: a smaller image is enlarged by a whole factor until its shorter side reaches this.
        max_side: a larger image is reduced by a whole factor until its longer side is at most this.
        hide: what is left out, of 'boxes', 'masks', 'labels' (class names) and 'scores'.
        colour_by: 'class', or 'instance' for another colour for every object, most different for neighbouring scores.

    Returns:
        The picture, (k H, k W, 3) or (H / k, W / k, 3).

    Raises:
        UserError: another word in `hide` or `colour_by`.
    """
    _check_words(hide, colour_by)
    palette = palette or distinct_colours(len(classes))
    instances = instances.above(min_score)
    image, instances = _within(image, instances, max_side)
    factor = enlargement(image, min_side)
    picture = enlarge(image, factor)
    width = line_width(picture)
    colours = [palette[label] for label in instances.labels] if colour_by == 'class' else \
        distinct_colours(len(instances.labels))
    if instances.masks is not None and 'masks' not in hide:
        for (top, left, mask), colour in zip(crops(instances.masks), colours, strict=True):
            _paint_mask(picture[top * factor:, left * factor:], enlarge(mask.astype(np.uint8), factor), colour, width)
    if instances.boxes is None:
        return picture
    boxes = np.asarray(instances.boxes) * factor
    for box, colour in zip(boxes, colours, strict=True) if 'boxes' not in hide else ():
        x1, y1, x2, y2 = (int(v) for v in np.rint(box))
        cv2.rectangle(picture, (x1, y1), (x2 - 1, y2 - 1), colour, width)
    return _write_tags(picture, boxes, _tags(instances, classes, hide), colours)


def mark_box(picture: np.ndarray, box: Sequence[float]) -> np.ndarray:
    """The picture with a box, x1 y1 x2 y2 in its pixels, that stands out from any other: a white line in a black one.
    """
    picture, width = picture.copy(), 2 * line_width(picture)  # pages show it smaller
    (x1, y1), (x2, y2) = np.floor(box[:2]).astype(int) - width, np.ceil(box[2:]).astype(int) + width
    for colour, thickness in (((0, 0, 0), 2 * width), ((255, 255, 255), width)):
        cv2.rectangle(picture, (int(x1), int(y1)), (int(x2) - 1, int(y2) - 1), colour, thickness)
    return picture


def _check_words(hide: Collection[str], colour_by: str) -> None:
    wrong = [part for part in ([hide] if isinstance(hide, str) else hide) if part not in HIDEABLE]
    if isinstance(hide, str) or wrong:
        raise UserError(f'hide={hide!r}: expected a list of {few(HIDEABLE)}')
    if colour_by not in COLOUR_BY:
        raise UserError(f'colour_by={colour_by!r}: expected one of {few(COLOUR_BY)}')


def _tags(instances: Instances, classes: Sequence[str], hide: Collection[str]) -> list[str]:
    """The text at every object: class name and score, as far as they are shown and say something."""
    names = 'labels' not in hide and (len(classes) > 1 or len(instances.labels) == 1)
    texts = [classes[label] if names else '' for label in instances.labels]
    if instances.scores is not None and 'scores' not in hide:
        texts = [f'{text} {score:.2f}'.strip() for text, score in zip(texts, instances.scores, strict=True)]
    return texts


def draw_segmentation(image: np.ndarray, labels: np.ndarray, palette: Sequence[Colour], opacity: float = 0.6,
                      min_side: int = 480, max_side: int = MAX_SIDE) -> np.ndarray:
    """Blend the class colours of a label map (H, W) over an image; pixels labelled 255 (in uint8) stay as they are.

    The image shows through in grey, so that a colour always means its class. Of an image with a side beyond `max_side`,
    every k-th pixel's label is shown.
    """
    if labels.shape != image.shape[:2]:
        raise ValueError(f'label map of shape {labels.shape} does not fit an image of shape {image.shape}')
    factor = reduction(image, max_side)
    image, labels = reduce(image, factor), labels[::factor, ::factor]
    table = np.zeros((max(256, len(palette)), 3), np.float32)
    table[:len(palette)] = palette
    picture = np.empty_like(image)
    for top in range(0, len(image), ROWS_TOGETHER):
        rows = slice(top, top + ROWS_TOGETHER)
        ignored = (labels[rows] == IGNORED) & (labels.dtype == np.uint8)  # with more than 255 classes it is one of them
        weight = np.where(ignored, 0.0, opacity)[..., None]
        grey = cv2.cvtColor(cv2.cvtColor(image[rows], cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        blended = np.where(weight > 0, grey * (1 - weight) + table[labels[rows]] * weight, image[rows])
        picture[rows] = np.rint(blended)
    return enlarge(picture, enlargement(image, min_side))


def draw_legend(classes: Sequence[str], palette: Sequence[Colour], width: int, shown: Sequence[int] | None = None,
                rows: int | None = None, size: int | None = None) -> np.ndarray:
    """A white strip, `width` pixels wide, with a swatch and name for every class whose index is in `shown`.

    Args:
        classes: names.
        palette: one colour per class.
        width: of the strip in pixels.
        shown: class indices in the order of the legend; default: all.
        rows: height of the strip in lines, for strips of one size; classes beyond are counted in its last place.
        size: of the letters in pixels; default: by the width.
    """
    shown = list(range(len(classes)) if shown is None else shown)
    size = size or max(13, width // 48)
    font, gap = load_font(size), size // 2
    places = _legend_places([classes[index] for index in shown], font, width, rows)
    lines = rows or 1 + max((line for _, line, _ in places), default=0)
    strip = Image.new('RGB', (width, gap + lines * (size + gap)), 'white')
    pen = ImageDraw.Draw(strip)
    for place, (left, line, text) in enumerate(places):
        top = gap + line * (size + gap)
        if text == classes[shown[place]]:
            pen.rectangle((left, top, left + size - 1, top + size - 1), fill=tuple(palette[shown[place]]),
                          outline='black')
        pen.text((left + size + gap, top + size / 2), text, fill='black', font=font, anchor='lm')
    return np.array(strip)


def _legend_places(names: Sequence[str], font: ImageFont.FreeTypeFont, width: int, rows: int | None
                   ) -> list[tuple[int, int, str]]:
    """(x, line, text) of every entry from left to right; what has no room in `rows` lines becomes '+ n more'."""
    gap = font.size // 2
    x, line, places = gap, 0, []
    for name in names:
        item = font.size + 3 * gap + round(font.getlength(name))
        if x > gap and x + item > width:
            x, line = gap, line + 1
        places.append((x, line, name))
        x += item
    fitting = [place for place in places if rows is None or place[1] < rows]
    if len(fitting) < len(places) and fitting:
        left, line, _ = fitting.pop()
        fitting.append((left, line, f'+ {len(places) - len(fitting)} more'))
    return fitting


def side_by_side(panels: Sequence[tuple[str, np.ndarray]], legend: np.ndarray | None = None) -> np.ndarray:
    """One picture of titled panels from left to right, e.g. ground truth | prediction, on white.

    Args:
        panels: (title, image) pairs; lower images are padded at the bottom.
        legend: strip to put below, no wider than the panels together.
    """
    gap = max(6, panels[0][1].shape[1] // 60)
    size = max(14, panels[0][1].shape[1] // 20)
    top = size + 2 * gap
    height = top + max(image.shape[0] for _, image in panels) + gap
    total_width = gap + sum(image.shape[1] + gap for _, image in panels)
    legend_height = 0 if legend is None else legend.shape[0]
    canvas = np.full((height + legend_height, total_width, 3), 255, np.uint8)
    x, font, titles = gap, load_font(size), []
    for title, image in panels:
        canvas[top:top + image.shape[0], x:x + image.shape[1]] = image
        titles.append((x, title))
        x += image.shape[1] + gap
    if legend is not None:
        canvas[height:, gap:gap + legend.shape[1]] = legend
    picture = Image.fromarray(canvas)
    for x, title in titles:
        ImageDraw.Draw(picture).text((x, top / 2), title, fill='black', font=font, anchor='lm')
    return np.array(picture)


def reduction(image: np.ndarray, max_side: int) -> int:
    """The smallest whole factor by which the longer side comes down to `max_side`; 1 for smaller images."""
    return -(-max(image.shape[:2]) // max_side)


def reduce(image: np.ndarray, factor: int) -> np.ndarray:
    """Average squares of `factor` pixels; a part of the image at a time, as it may be large, or a view."""
    if factor == 1:
        return image
    step, width = ROWS_TOGETHER * factor, -(-image.shape[1] // factor)
    return np.concatenate([cv2.resize(np.ascontiguousarray(part), (width, -(-len(part) // factor)),
                                      interpolation=cv2.INTER_AREA)
                           for part in (image[top:top + step] for top in range(0, len(image), step))])


def _within(image: np.ndarray, instances: Instances, max_side: int) -> tuple[np.ndarray, Instances]:
    """An image and its instances, reduced where a side is beyond `max_side`."""
    factor, masks = reduction(image, max_side), instances.masks
    if factor == 1:
        return image, instances
    if masks is not None:
        masks = masks.reduced(factor) if isinstance(masks, EncodedMasks) else masks[:, ::factor, ::factor]
    boxes = None if instances.boxes is None else np.asarray(instances.boxes) / factor
    return reduce(image, factor), replace(instances, boxes=boxes, masks=masks)


def enlargement(image: np.ndarray, min_side: int) -> int:
    """The smallest whole factor that brings the shorter side to `min_side`; 1 for larger images."""
    return max(1, -(-min_side // min(image.shape[:2])))


def enlarge(image: np.ndarray, factor: int) -> np.ndarray:
    """Repeat every pixel `factor` times both ways, so that a pixel of the data stays visible as one."""
    return image.copy() if factor == 1 else image.repeat(factor, axis=0).repeat(factor, axis=1)


def line_width(image: np.ndarray) -> int:
    """Width of lines in pixels that stays visible when the whole image is shown on a screen."""
    return max(2, round(min(image.shape[:2]) / 300))


def load_font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans as matplotlib ships it, so that every machine draws the same letters."""
    import matplotlib  # late: the runtime imports this module, and often draws nothing
    path = Path(matplotlib.get_data_path()) / 'fonts/ttf/DejaVuSans.ttf'
    return ImageFont.truetype(str(path), size)


def _paint_mask(picture: np.ndarray, mask: np.ndarray, colour: Colour, width: int) -> None:
    x, y, wide, high = cv2.boundingRect(mask)  # work on the object, not on the whole image
    mask, region = mask[y:y + high, x:x + wide], picture[y:y + high, x:x + wide]
    inside = mask.astype(bool)
    blended = np.rint(0.5 * np.arange(256)[:, None] + 0.5 * np.array(colour)).astype(np.uint8)[None]
    if inside.any():
        np.copyto(region, cv2.LUT(region, blended), where=inside[..., None])
        edge = inside & ~cv2.erode(mask, np.ones((2 * width + 1,) * 2, np.uint8), borderValue=0).astype(bool)
        region[edge] = colour


def _write_tags(picture: np.ndarray, boxes: np.ndarray, texts: Sequence[str], colours: Sequence[Colour]
                ) -> np.ndarray:
    """Write each text on its colour at its box: above it, in it or below it, where it covers no text and no object.

    The last one is placed first, and a text that has no free place is left out: its box has the colour of its class.
    """
    canvas = Image.fromarray(picture)
    pen = ImageDraw.Draw(canvas)
    size = max(12, round(min(picture.shape[:2]) / 30))
    font, pad = load_font(size), max(2, size // 6)
    taken = np.zeros((0, 4))
    for box, text, colour in reversed(list(zip(boxes, texts, colours, strict=True))):
        wide, high = round(font.getlength(text)) + 2 * pad, size + 2 * pad
        if not text or len(boxes) > CROWD and (box[2] - box[0]) * (box[3] - box[1]) < wide * high:
            continue
        tag = _free_place(box, wide, high, canvas.size, taken, boxes)
        if tag is None:
            continue
        taken = np.vstack([taken, tag])
        left, top = int(tag[0]), int(tag[1])
        luminance = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]  # ITU-R BT.601
        pen.rectangle((left, top, left + wide - 1, top + high - 1), fill=tuple(colour))
        pen.text((left + pad, top + high / 2), text, fill='black' if luminance > 128 else 'white', font=font,
                 anchor='lm')
    return np.array(canvas)


def _free_place(box: np.ndarray, wide: int, high: int, size: tuple[int, int], taken: np.ndarray, boxes: np.ndarray
                ) -> np.ndarray | None:
    """The first place (x1, y1, x2, y2) at a box, moved into the picture, that overlaps none of `taken`.

    Nor does it cover more than `MAX_COVERED` of any of `boxes`.
    """
    x1, y1, x2, y2 = np.rint(box)
    areas = np.maximum(1, (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    for left, top in ((x1, y1 - high), (x1, y1), (x2 - wide, y1 - high), (x1, y2), (x2 - wide, y2 - high)):
        left, top = np.clip((left, top), 0, np.maximum(0, np.array(size) - (wide, high)))
        place = np.array([left, top, left + wide, top + high])
        if not _common_area(place, taken).any() and (_common_area(place, boxes) <= MAX_COVERED * areas).all():
            return place
    return None


def _common_area(place: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Pixels that a rectangle (4,) has in common with each of (N, 4)."""
    sides = np.minimum(place[2:], boxes[:, 2:]) - np.maximum(place[:2], boxes[:, :2])
    return sides.clip(0).prod(axis=1)
