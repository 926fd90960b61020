"""Image and label files of a data set: all present before training, and named when one turns out to be wrong."""
import io
import os
from collections.abc import Callable, Iterator
from functools import partial

import cv2
import numpy as np
from mmengine.dist import is_main_process

from ..errors import UserError
from ..utils.data_source import is_usable_file, read_file
from ..utils.image_values import check_values
from ..utils.images import image_size
from ..utils.storage import is_url

FILE_KEYS = ('img_path', 'seg_map_path')  # where a sample's record has its files


def check_files(dataset) -> None:
    """Refuse a data set with missing or empty files, and have it name a damaged or unfit one when that is loaded.

    Only sizes are looked at, which takes some seconds for all of COCO; wrappers (RepeatDataset, ConcatDataset, ...)
    are seen through.

    Raises:
        UserError: names the first file that is missing or empty.
    """
    for leaf in leaves(dataset):
        if not hasattr(leaf, 'get_data_info'):
            continue
        if is_main_process():
            for index in range(len(leaf)):
                for file in _files(leaf, index):
                    if not is_usable_file(file):
                        raise _unreadable(file, leaf)
        leaf.prepare_data = partial(_prepare_or_name_file, leaf)


def leaves(dataset) -> Iterator:
    """The built data sets inside wrappers (RepeatDataset, ConcatDataset, ...), at any depth."""
    inner = [dataset.dataset] if hasattr(dataset, 'dataset') else getattr(dataset, 'datasets', [])
    for entry in inner:
        yield from leaves(entry)
    if not inner:
        yield dataset


def _files(dataset, index: int) -> list[str]:
    """Paths or URLs of a sample's files, without URLs that a backend of the config reads."""
    if hasattr(dataset, 'sample_files'):  # ours, which need not read the annotations for it
        files = dataset.sample_files(index)
    else:
        info = dataset.get_data_info(index)
        files = [info[key] for key in FILE_KEYS if isinstance(info.get(key), str)]
    return [file for file in files if not (is_url(file) and getattr(dataset, 'backend_args', None))]


def _prepare_or_name_file(dataset, index: int):
    """The data set's own ``prepare_data``.

    Names a file that is no image or has too many pixels to be decoded, and labels that no class has.
    """
    image = dataset.get_data_info(index).get('img_path')
    for file in _files(dataset, index):
        _check_header(file, partial(check_values, value_range=loaded_range(dataset)) if file == image else image_size)
    try:
        sample = type(dataset).prepare_data(dataset, index)
    except UserError:
        raise
    except Exception as error:  # readers fail in many ways, mostly without the name of the file
        for file in _files(dataset, index):
            if not _is_image(file):
                raise _unreadable(file, dataset) from error
        raise
    _check_labels(dataset, index, sample)
    return sample


def loaded_range(dataset) -> tuple[float, float] | None:
    """The `value_range` with which a built data set loads its images (`LoadImageWithRange`), or None."""
    dataset = next(leaves(dataset))
    steps = getattr(getattr(dataset, 'pipeline', None), 'transforms', [])
    return next((step.value_range for step in steps if hasattr(step, 'value_range')), None)


def _check_header(file: str, check: Callable) -> None:
    """Refuse what an image's header says to be unfit; what PIL cannot identify goes to its reader."""
    try:
        check(file if os.path.isfile(file) else io.BytesIO(read_file(file)), name=file)
    except OSError:
        pass


def _check_labels(dataset, index: int, sample) -> None:
    """Refuse a label map with a value beyond the classes, which triggers a device-side assert on CUDA."""
    if not isinstance(sample, dict) or 'gt_sem_seg' not in getattr(sample.get('data_samples'), 'keys', tuple)():
        return
    labels, classes = sample['data_samples'].gt_sem_seg.data, dataset.metainfo.get('classes') or ()
    ignored = getattr(dataset, 'ignore_index', 255)
    beyond = labels[(labels >= len(classes)) & (labels != ignored)]
    if classes and beyond.numel():
        file = dataset.get_data_info(index).get('seg_map_path')
        reduced = ' (after reduce_zero_label)' if getattr(dataset, 'reduce_zero_label', False) else ''
        raise UserError(f'{file} has the label {int(beyond.max())}{reduced}, but there are {len(classes)} classes, so '
                        f'0 to {len(classes) - 1} and {ignored} are expected: fix the label maps, or set metainfo and '
                        'every num_classes to the classes they have')


def _is_image(file: str) -> bool:
    try:
        content = np.frombuffer(read_file(file), np.uint8)
    except OSError:
        return False
    return content.size > 0 and cv2.imdecode(content, cv2.IMREAD_UNCHANGED) is not None


def _unreadable(file: str, dataset) -> UserError:
    return UserError(f'image {file} of {type(dataset).__name__} could not be read: it is missing, empty or not an '
                     'image; repair it, or remove it from the data set')
