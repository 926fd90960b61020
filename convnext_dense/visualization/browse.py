"""Preview of a data set: images as the network gets them, after pipeline and preprocessor, with their annotations."""
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmengine.runner import set_random_seed
from PIL import Image, ImageDraw

from ..config import datasets_of
from ..config.data_files import check_files
from ..config.preflight import check_built_dataset, check_config, explain_empty
from ..errors import UserError
from ..utils.files import atomic_write
from .draw import Colour, draw_instances, draw_legend, draw_segmentation, load_font, palette_of
from .page import Legend, Picture, Pictures, encode_jpeg, render_page, write_text
from .predictions import instances_of

CELL = 640  # width of a picture in a contact sheet, pixels


@dataclass
class PreviewSample:
    """One image as the network gets it.

    Args:
        name: of its file, without suffix.
        picture: RGB with annotations drawn; for segmentation the image itself stands to its left.
        caption: file, sizes and what is annotated.
        labels: classes that are annotated.
    """
    name: str
    picture: np.ndarray
    caption: str
    labels: set[int]


@dataclass
class DatasetPreview:
    """Samples of a data set as the network gets them.

    Args:
        title: split, number of images, channel order and normalisation.
        samples: in the order of the data set.
        classes: names.
        palette: one RGB colour per class.
    """
    title: str
    samples: list[PreviewSample]
    classes: Sequence[str]
    palette: Sequence[Colour]

    @property
    def shown(self) -> list[int]:
        """Classes that are in any of the samples."""
        return sorted(set().union(*(sample.labels for sample in self.samples)))


def browse(cfg: Config, split: str = 'train', number: int = 16, seed: int = 0) -> DatasetPreview:
    """Take samples of a config's data set through its pipeline and data preprocessor, and draw them.

    Normalisation and channel order are undone for display; flips, crops, scales, colour changes and padding stay.
    Annotations go through every transform, in validation and test pipelines too, where they are usually loaded after
    the resizing.

    Args:
        split: 'train', 'val' or 'test', whose data loader is taken.
        number: of images, chosen at random; the whole data set if it has no more.
        seed: of the choice and of the augmentation.

    Raises:
        UserError: as `preflight.check_config`, or a file that cannot be read.
    """
    key = f'{split}_dataloader'
    if not datasets_of(cfg.get(key)):
        raise UserError(f'{cfg.filename} has no {key}; choose another --split')
    check_config(cfg, (key,))
    for leaf in datasets_of(cfg[key]):
        leaf.pipeline = annotations_first(leaf.pipeline)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        try:
            dataset = DATASETS.build(cfg[key].dataset)
        except ValueError as error:
            if 'need at least one array' not in str(error):  # mmengine raises this for an empty data set
                raise
            raise explain_empty(cfg[key]) from error
        check_built_dataset(dataset)
        check_files(dataset)
        preprocessor = MODELS.build(cfg.model.data_preprocessor)
        set_random_seed(seed)
        indices = sorted(random.Random(seed).sample(range(len(dataset)), min(number, len(dataset))))
        classes = dataset.metainfo['classes']
        palette = palette_of(dataset.metainfo, classes)
        samples = [preview_sample(dataset[index], preprocessor, cfg.model.data_preprocessor, split == 'train', classes,
                                  palette) for index in indices]
    settings = cfg.model.data_preprocessor
    order = 'RGB' if swaps_channels(settings) else 'BGR'
    title = (f'{Path(cfg.filename).stem}, {split}: {len(samples)} of {len(dataset)} images, seed {seed}; the network '
             f'gets {order} values, minus {settings.get("mean")}, divided by {settings.get("std")}')
    return DatasetPreview(title, samples, classes, palette)


def annotations_first(pipeline: Sequence[dict]) -> list[dict]:
    """The pipeline with annotations loaded right after the image, so that every transform changes both."""
    loads = [step for step in pipeline if 'Load' in step['type'] and step['type'].endswith('Annotations')]
    others = [step for step in pipeline if step not in loads]
    return [*others[:1], *loads, *others[1:]]


def preview_sample(sample: dict, preprocessor, settings: dict, training: bool, classes: Sequence[str],
                   palette: Sequence[Colour]) -> PreviewSample:
    """One sample of a data set after the preprocessor, drawn."""
    data = preprocessor(pseudo_collate([sample]), training)
    image, annotated = displayable(data['inputs'][0], settings), data['data_samples'][0]
    if 'gt_sem_seg' in annotated:
        labels = annotated.gt_sem_seg.data.squeeze(0).numpy().astype(np.uint8)
        drawn = draw_segmentation(image, labels, palette, min_side=1)
        picture = np.hstack([image, np.full((image.shape[0], 8, 3), 255, np.uint8), drawn])
        present = {int(label) for label in np.unique(labels)} & set(range(len(classes)))
        found = f'classes: {len(present)}, ignored: {(labels == 255).mean():.0%}'
    else:
        instances = instances_of(annotated.gt_instances)
        picture = draw_instances(image, instances, classes, palette)
        present = {int(label) for label in instances.labels}
        found = f'objects: {len(instances.labels)}'
    path, height, width = Path(annotated.img_path), *image.shape[:2]
    caption = f'{path.name}: {annotated.ori_shape[1]}x{annotated.ori_shape[0]} to {width}x{height}, {found}'
    return PreviewSample(path.stem, picture, caption, present)


def displayable(inputs: torch.Tensor, settings: dict) -> np.ndarray:
    """A preprocessed image (3, H, W) as RGB, uint8 (H, W, 3)."""
    image = inputs.permute(1, 2, 0).float().numpy()
    if settings.get('mean') is not None:
        image = image * np.float32(settings['std']) + np.float32(settings['mean'])
    image = np.rint(image).clip(0, 255).astype(np.uint8)
    return image if swaps_channels(settings) else np.ascontiguousarray(image[..., ::-1])


def swaps_channels(settings: dict) -> bool:
    """Whether a data preprocessor turns the BGR of MM pipelines into RGB."""
    return bool(settings.get('bgr_to_rgb') or settings.get('rgb_to_bgr'))


def contact_sheet(preview: DatasetPreview, columns: int | None = None) -> np.ndarray:
    """All samples in a grid with captions and a legend, RGB."""
    columns = columns or min(4, int(np.ceil(len(preview.samples) ** 0.5)))
    cells = [_cell(sample) for sample in preview.samples]
    rows = []
    for start in range(0, len(cells), columns):
        row = cells[start:start + columns]
        height = max(cell.shape[0] for cell in row)
        rows.append(np.hstack([_padded(cell, height, CELL) for cell in row + [row[0][:0]] * (columns - len(row))]))
    width = columns * CELL
    title = _text(preview.title, width)
    return np.vstack([title, *rows, draw_legend(preview.classes, preview.palette, width, preview.shown, size=16)])


def _cell(sample: PreviewSample, gap: int = 8) -> np.ndarray:
    """A sample at the width of a cell, above its caption."""
    scale = (CELL - 2 * gap) / sample.picture.shape[1]
    size = (CELL - 2 * gap, max(1, round(sample.picture.shape[0] * scale)))
    resized = cv2.resize(sample.picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    framed = cv2.copyMakeBorder(resized, gap, 0, gap, gap, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    return np.vstack([framed, _text(sample.caption, CELL)])


def _padded(image: np.ndarray, height: int, width: int) -> np.ndarray:
    canvas = np.full((height, width, 3), 255, np.uint8)
    canvas[:image.shape[0], :image.shape[1]] = image
    return canvas


def _text(text: str, width: int, size: int = 16) -> np.ndarray:
    """Lines of text on white, broken between words."""
    font, lines = load_font(size), ['']
    for word in text.split(' '):
        if lines[-1] and font.getlength(f'{lines[-1]} {word}') > width - size:
            lines.append('')
        lines[-1] = f'{lines[-1]} {word}'.strip()
    strip = Image.new('RGB', (width, (len(lines) + 1) * (size + 4) - size // 2), 'white')
    for index, line in enumerate(lines):
        ImageDraw.Draw(strip).text((size // 2, 4 + index * (size + 4)), line, fill='black', font=font)
    return np.array(strip)


def write_preview(preview: DatasetPreview, out: str | Path) -> list[Path]:
    """Write a contact sheet (``.png``, ``.jpg``), a page (``.html``), or a folder with a sheet and every picture.

    Returns:
        The files.
    """
    out = Path(out)
    if out.suffix == '.html':
        entries = [(preview.classes[index], preview.palette[index]) for index in preview.shown]
        pictures = [Picture(encode_jpeg(sample.picture), sample.caption, f'annotated image {sample.name}')
                    for sample in preview.samples]
        write_text(out, render_page('What the network sees', preview.title, [Legend(entries), Pictures(pictures)]))
        return [out]
    if out.suffix in ('.png', '.jpg'):
        return [_write_image(out, contact_sheet(preview))]
    files = [_write_image(out / f'{index:03}_{sample.name}.jpg', sample.picture)
             for index, sample in enumerate(preview.samples)]
    return [_write_image(out / 'sheet.png', contact_sheet(preview)), *files]


def _write_image(file: Path, image: np.ndarray) -> Path:
    with atomic_write(file) as part:
        if not cv2.imwrite(str(part), cv2.cvtColor(image, cv2.COLOR_RGB2BGR)):
            raise UserError(f'cannot write {file}: check that the folder can be written to')
    return file
