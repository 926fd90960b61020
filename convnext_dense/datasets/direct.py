"""Data sets that are used as they are: converted folders, COCO folders, and others through links."""
from pathlib import Path, PurePath

from ..errors import UserError
from ..utils.images import read_header
from ..visualization.draw import distinct_colours
from .convert import FORMATS, coco, detect_format
from .convert.planning import plan_samples
from .convert.source import Options, Source
from .convert.value_range import find_range
from .convert.writing import write_dataset
from .json_stream import stream_json
from .json_values import is_integer
from .layout import INFO_FILE, SPLITS, DatasetInfo, SplitInfo, check_class_names


def open_dataset(folder: Path, links: Path) -> tuple[Path, DatasetInfo, list[str]]:
    """The data set in a folder: its root, what `dataset.json` says or would say, and notes.

    Args:
        folder: a converted data set; a COCO folder with train and val, which is read where it is; or any other format
            for detection or segmentation that needs no options.
        links: a folder that is written for such another format: its annotations converted, its images linked.

    Raises:
        UserError: the folder is none of these, or the converter would leave something out or ask.
    """
    folder = Path(folder)
    if (folder / INFO_FILE).is_file() or not folder.is_dir():
        return folder.resolve(), DatasetInfo.read(folder), []
    info = describe_coco(folder)
    if info is not None:
        return folder.resolve(), info, [f'{folder} is read as it is, as COCO']
    name = detect_format(folder)
    source = FORMATS[name].open_source(folder, Options())
    planned = plan_samples(source, None, 0)
    _refuse_losses(folder, source)
    value_range = find_range([(entry.sample.image, entry.values) for entry in planned], 'percentiles', source.notes)
    info = write_dataset(links, source, planned, name, 'symlink', value_range)
    return links.resolve(), info, [f'{folder} is {name}: annotations converted to {links}, images linked',
                                   *source.notes]


def _refuse_losses(folder: Path, source: Source) -> None:
    if source.skipped.has_losses or source.questions:
        first = next(iter([*source.skipped.reasons, *source.questions]))
        raise UserError(f'{folder} cannot be used as it is ({first}): convert it with convert_dataset, which lists '
                        'everything that is left out')


def describe_coco(folder: Path) -> DatasetInfo | None:
    """What dataset.json would say about a COCO folder, None if it has to be converted (ids as text, no split, ...).

    Raises:
        UserError: a json is damaged.
    """
    files = {coco.split_of_file(file, folder): file for file in coco.annotation_files(folder)}
    if not set(SPLITS) <= set(files):
        return None
    described, categories = {}, []
    for split in SPLITS:
        found = _describe_split(files[split], folder)
        if found is None:
            return None
        described[split], own = found
        categories.append(own)
    names = list(categories[0].values())
    if categories[0] != categories[1]:
        return None
    try:
        check_class_names(names)
    except ValueError:
        return None
    palette = [list(colour) for colour in distinct_colours(len(names))]
    has_masks = all(masks for _, masks in described.values())
    return DatasetInfo('det', names, palette, {split: info for split, (info, _) in described.items()}, 'coco',
                       has_masks=has_masks)


def _describe_split(file: Path, folder: Path) -> tuple[tuple[SplitInfo, bool], dict[int, str]] | None:
    images, categories, counts, masks, objects = [], {}, {}, 0, 0
    for key, value, _, _ in stream_json(file):
        if key not in ('images', 'categories', 'annotations'):
            continue
        if not isinstance(value, dict) or not is_integer(value.get('id')):
            return None
        if key == 'images':
            images.append(value)
        elif key == 'categories':
            categories[value['id']] = value.get('name')
        else:
            if not is_integer(value.get('image_id')) or not is_integer(value.get('category_id')):
                return None
            counts[value['category_id']] = counts.get(value['category_id'], 0) + 1
            masks, objects = masks + bool(value.get('segmentation')), objects + 1
    if not images or not categories or not set(counts) <= set(categories) \
            or not all(isinstance(name, str) for name in categories.values()):
        return None
    try:
        prefix = coco.image_folder(file, folder, str(images[0].get('file_name')))
        inner = prefix.resolve().relative_to(folder.resolve())
        if any(PurePath(str(image.get('file_name'))).name != image.get('file_name') for image in images):
            return None
        if any(read_header(prefix / str(image.get('file_name'))).is_deep for image in images):
            return None
    except (UserError, OSError, ValueError):  # an image elsewhere, or missing
        return None
    info = SplitInfo(len(images), {name: counts.get(number, 0) for number, name in categories.items()},
                     f'{inner.as_posix()}/', ann_file=file.relative_to(folder).as_posix())
    return (info, masks == objects > 0), categories
