"""From a path or a config to the data to check: COCO files with images, or label maps with images."""
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from ...config import datasets_of, value_range_of
from ...errors import UserError
from ...utils.data_source import UrlPath, data_path, is_elsewhere, list_files
from ...utils.images import IMAGE_SUFFIXES
from ..convert.class_files import find_class_file, read_classes
from ..convert.coco import annotation_files, data_folder, image_folder, split_of_file
from ..convert.pairs import SPLIT_NAMES, image_files
from ..json_stream import stream_json
from ..layout import INFO_FILE, DatasetInfo
from .coco import CocoTarget

SPLIT_DATALOADERS = {'train': 'train_dataloader', 'val': 'val_dataloader'}


@dataclass
class LabelTarget:
    """Images and label maps to check.

    Args:
        split: 'train', 'val' or another name.
        pairs: (image, its label map); the label map may not exist.
        orphans: label maps without an image.
        label_folder: folder of all label maps.
        classes: names in the order of the labels, or None if unknown.
        ignore_index: label that is ignored.
        reduce_zero_label: whether 0 is ignored and every other value is lowered by 1 when read.
        value_range: (low, high), the values that become 0 and 255 in images of more than 8 bits, or None.
    """
    split: str
    pairs: list[tuple[Path, Path]]
    orphans: list[Path]
    label_folder: Path
    classes: list[str] | None
    ignore_index: int = 255
    reduce_zero_label: bool = False
    value_range: tuple[float, float] | None = None


Target = CocoTarget | LabelTarget


def is_known(path: Path) -> bool:
    """Whether `targets_of_path` reads a path as it is."""
    return bool(path.is_dir() and (path / INFO_FILE).is_file() or annotation_files(path)
                or (path / 'images').is_dir() and (path / 'annotations').is_dir())


def targets_of_path(path: Path, images: str | None = None) -> list[Target]:
    """The splits of a converted folder, a COCO json or folder, or a folder with images/ and annotations/.

    Args:
        path: of the data.
        images: folder of the images of a COCO json, if it is not beside it.

    Raises:
        UserError: the path is none of these.
    """
    if path.is_dir() and (path / INFO_FILE).is_file():
        return _converted(path)
    files = annotation_files(path)
    if files:
        return [CocoTarget(split_of_file(file, path) or file.stem, file,
                           Path(images) if images else _image_folder(file, path),
                           data_folder=data_folder(file, path)) for file in files]
    if (path / 'images').is_dir() and (path / 'annotations').is_dir():
        return _label_folders(path)
    raise UserError(f'{path} is not a known data set: expected a folder with {INFO_FILE} (made by '
                    'tools/convert_dataset.py), a COCO json, or a folder with images/ and annotations/')


def targets_of_config(cfg: Config) -> list[Target]:
    """The training and validation sets of a config, as the config reads them.

    Raises:
        UserError: a data set that is neither COCO json nor label maps.
    """
    from mmengine.registry import DATASETS, init_default_scope
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    targets = []
    for split, loader in SPLIT_DATALOADERS.items():
        for described in datasets_of(cfg.get(loader)):
            dataset = DATASETS.build({**described, 'lazy_init': True, 'pipeline': []})
            prefix = {name: data_path(folder) for name, folder in dataset.data_prefix.items()}
            value_range = value_range_of(described.get('pipeline'))
            classes = list(dataset.metainfo.get('classes') or ()) or None
            if 'seg_map_path' in prefix:
                target = label_target(split, prefix['img_path'], prefix['seg_map_path'], classes,
                                      dataset.img_suffix, dataset.seg_map_suffix)
                target.ignore_index, target.reduce_zero_label = dataset.ignore_index, dataset.reduce_zero_label
                _keep_listed(target, dataset.ann_file, prefix['img_path'], dataset.img_suffix)
                target.value_range = value_range
                targets.append(target)
            elif str(dataset.ann_file).endswith('.json'):
                folder = data_path(dataset.data_root) if dataset.data_root else None
                targets.append(CocoTarget(split, data_path(dataset.ann_file), prefix.get('img', Path()), classes,
                                          resize_scale(cfg), folder, value_range))
            else:
                raise UserError(f'{loader}: {described["type"]} is neither a COCO nor a segmentation data set, the '
                                'two kinds that can be checked')
    return targets


def resize_scale(cfg: Config) -> tuple[int, int] | None:
    """(long, short) sides of the validation pipeline's Resize, or None without one."""
    for described in datasets_of(cfg.get('val_dataloader')):
        for step in described.get('pipeline') or ():
            scale = step.get('scale')
            if step.get('type') == 'Resize' and isinstance(scale, (list, tuple)):
                return max(scale), min(scale)
    return None


def label_target(split: str, images: Path, labels: Path, classes: list[str] | None, img_suffix: str | None = None,
                 seg_map_suffix: str = '.png') -> LabelTarget:
    """Pair the images of a folder with the label maps of another by their relative names."""
    found = [file for file in _images(images) if img_suffix is None or file.name.endswith(img_suffix)]
    pairs = []
    for image in found:
        name = str(image.relative_to(images)).removesuffix(img_suffix or image.suffix)
        pairs.append((image, labels / f'{name}{seg_map_suffix}'))
    known = {label for _, label in pairs}
    return LabelTarget(split, pairs, [file for file in _images(labels) if file not in known], labels, classes)


def _images(folder: Path | UrlPath) -> list[Path | UrlPath]:
    if not is_elsewhere(folder):
        return image_files(folder)
    return [folder / name for name in list_files(folder) if name.lower().endswith(IMAGE_SUFFIXES)]


def _converted(folder: Path) -> list[Target]:
    info = DatasetInfo.read(folder)
    targets = []
    for split, described in info.splits.items():
        images = folder / described.img_prefix
        if info.task == 'det':
            targets.append(CocoTarget(split, folder / described.ann_file, images, info.classes, data_folder=folder))
        else:
            targets.append(label_target(split, images, folder / described.seg_prefix, info.classes, info.img_suffix,
                                        info.seg_map_suffix))
        targets[-1].value_range = info.value_range
    return targets


def _label_folders(path: Path) -> list[Target]:
    classes = [entry.name for entry in read_classes(None, path)] if find_class_file(path) else None
    folders = [folder for folder in sorted((path / 'images').iterdir()) if folder.is_dir()]
    return [label_target(SPLIT_NAMES.get(folder.name, folder.name), folder, path / 'annotations' / folder.name, classes)
            for folder in folders] or [label_target('train', path / 'images', path / 'annotations', classes)]


def _keep_listed(target: LabelTarget, ann_file: str, images: Path, img_suffix: str) -> None:
    """If a config lists its images in a text file (paths below the folder, without suffix), keep only those."""
    if ann_file and Path(ann_file).is_file():
        listed = {line.strip() for line in Path(ann_file).read_text(encoding='utf-8').splitlines()}
        target.pairs = [pair for pair in target.pairs
                        if pair[0].relative_to(images).as_posix().removesuffix(img_suffix) in listed]
        target.orphans = []


def _image_folder(file: Path, root: Path) -> Path:
    """The folder of the first image that is found; `images` beside the json if none is, or the json is damaged."""
    try:
        for number, element in enumerate(stream_json(file)):
            if element.key == 'images':
                try:
                    return image_folder(file, root, element.value['file_name'])
                except (UserError, KeyError, TypeError):
                    continue
            if number > 10**4:
                break
    except UserError:
        pass  # the checks report the damage
    return (root if root.is_dir() else root.parent) / 'images'
