"""What an exported file says about itself; plain values, none of which is ever executed."""
import json
from dataclasses import asdict, dataclass, fields

from ..errors import UserError, few, first_line

KEY = 'convnext_dense'  # under which a file has its metadata
LAYOUT = 1  # of the metadata; a reader knows one


@dataclass(frozen=True)
class Metadata:
    """How to prepare images for a graph, and what its outputs mean.

    Args:
        layout: `LAYOUT` of the package that wrote the file.
        version: of that package.
        task: 'det' or 'seg'.
        config: name of the config.
        classes: names, in the order of the labels.
        palette: RGB colour of every class.
        channels: 'RGB' or 'BGR', order of the graph's input: uint8 (N, 3, H, W).
        mean, std: with which the graph normalises; for information.
        scale: (width, height) that images are resized to, or None; with `keep_ratio` the larger is the most that the
            long side may have, the smaller that of the short side.
        keep_ratio: whether images keep their aspect ratio.
        size: (height, width) of a graph for one size, else None: images are made to fit and padded.
        batch: images of a graph for one batch size, else None.
        precision: 'float32', 'float16' or 'int8'.
        opset: of ONNX, else None.
        score_threshold: below which the graph gives no detections.
        mask_threshold: probability from which a pixel belongs to a mask.
        window, stride: (height, width) of sliding windows and between them; None: whole images.
    """
    layout: int
    version: str
    task: str
    config: str
    classes: list[str]
    palette: list[list[int]]
    channels: str
    mean: list[float]
    std: list[float]
    scale: list[int] | None
    keep_ratio: bool
    size: list[int] | None
    batch: int | None
    precision: str
    opset: int | None
    score_threshold: float | None
    mask_threshold: float | None
    window: list[int] | None
    stride: list[int] | None

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))


def read_metadata(text: str | None, file: str) -> Metadata:
    """The metadata of a file from its JSON.

    Raises:
        UserError: there is none, it is damaged, or another version of the package wrote it in another layout.
    """
    if not text:
        raise UserError(f'{file} has no metadata of convnext_dense: expected a file that tools/export.py wrote')
    try:
        values = json.loads(text)
        layout = values['layout']
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'{file}: its metadata cannot be read ({first_line(error)}): export the model again') from error
    if layout != LAYOUT:
        raise UserError(f'{file} was exported by version {first_line(str(values.get("version")), 40)} of '
                        f'convnext_dense in layout {first_line(str(layout), 20)}, and this version reads layout '
                        f'{LAYOUT}: export it again, or install that version')
    wrong = [field.name for field in fields(Metadata) if field.name not in values or
             not CHECKS.get(field.name, is_text)(values[field.name])]
    if wrong or len(values['palette']) != len(values['classes']):
        raise UserError(f'{file}: its metadata is damaged ({few(wrong or ["palette"])}): export the model again')
    return Metadata(**{field.name: values[field.name] for field in fields(Metadata)})


def is_text(value) -> bool:
    return isinstance(value, str)


def is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_pair(value) -> bool:
    """Two positive integers, or None."""
    return value is None or isinstance(value, list) and len(value) == 2 and \
        all(isinstance(side, int) and 0 < side < 1 << 20 for side in value)


def is_positive(value) -> bool:
    return value is None or isinstance(value, int) and value > 0


def is_fraction(value) -> bool:
    return value is None or is_number(value) and 0 <= value <= 1


CHECKS = dict(
    layout=is_positive, opset=is_positive, batch=is_positive, scale=is_pair, size=is_pair, window=is_pair,
    stride=is_pair, score_threshold=is_fraction, mask_threshold=is_fraction,
    task=lambda value: value in ('det', 'seg'), channels=lambda value: value in ('RGB', 'BGR'),
    keep_ratio=lambda value: isinstance(value, bool),
    classes=lambda value: isinstance(value, list) and 0 < len(value) and all(map(is_text, value)),
    palette=lambda value: isinstance(value, list) and all(
        isinstance(colour, list) and len(colour) == 3 and all(isinstance(part, int) and 0 <= part <= 255
                                                              for part in colour) for colour in value),
    mean=lambda value: isinstance(value, list) and all(map(is_number, value)),
    std=lambda value: isinstance(value, list) and all(map(is_number, value)))
