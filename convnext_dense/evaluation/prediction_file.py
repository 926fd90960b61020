"""``predictions.npz``: all predictions of one evaluation, as arrays and JSON, which can be read without running code.

The file is a zip archive that ``numpy.load`` opens. Layout, for N images and D detections:

- ``images.json``: ``format`` and ``version``; ``task``, 'det' or 'seg'; ``images``, a list of N objects with
  ``img_path``, ``ori_shape`` (height, width) and, for 'det', ``img_id`` and ``detections``, their number.
- 'det': ``boxes`` (D, 4; x1, y1, x2, y2 in pixels), ``scores`` (D,) and ``labels`` (D,), image after image. With masks
  also ``mask_counts``, the bytes of all compressed COCO run lengths, and ``mask_lengths`` (D,), the bytes of each.
- 'seg': ``labels_0`` to ``labels_{N - 1}``, each (height, width) of its image.
"""
import json
import os
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmengine.registry import METRICS

from ..errors import UserError
from ..utils.files import atomic_write
from ..utils.images import max_pixels
from ..visualization.predictions import check_run_lengths, encode_mask

PREDICTIONS = 'predictions.npz'
FORMAT, VERSION = 'convnext_dense predictions', 1
LABEL_MAP = re.compile(r'labels_\d+\.npy')


@METRICS.register_module()
class DumpPredictions(BaseMetric):
    """Write all predictions of an evaluation to one ``.npz`` file; computes no metric.

    Args:
        out_file: the file.
        **options: mmengine's: collect_device, collect_dir.
    """

    def __init__(self, out_file: str, **options):
        super().__init__(**options)
        self.out_file = out_file

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the predictions of a batch; ``data_batch`` is not used."""
        self.results += [plain_prediction(sample) for sample in data_samples]

    def compute_metrics(self, results: list[dict]) -> dict:
        """Write the predictions of all images."""
        write_predictions(self.out_file, results)
        print_log(f'predictions written to {self.out_file}', logger='current')
        return {}


def plain_prediction(sample: Mapping) -> dict:
    """A data sample of mmdet or mmseg, as a dict, in numpy arrays and Python types.

    Returns:
        ``img_path`` and ``ori_shape`` (height, width); for detection ``img_id``, ``bboxes`` (D, 4), ``scores`` (D,),
        ``labels`` (D,) and, if there are, ``masks`` (D run-length encodings); for segmentation ``labels``
        (height, width).
    """
    image = dict(img_path=str(sample['img_path']), ori_shape=tuple(int(side) for side in sample['ori_shape'][:2]))
    if 'pred_sem_seg' in sample:
        labels = _array(sample['pred_sem_seg']['data']).reshape(image['ori_shape'])
        fits = labels.size == 0 or 0 <= labels.min() <= labels.max() < 256
        return {**image, 'labels': labels.astype(np.uint8 if fits else np.int32)}
    found = sample['pred_instances']
    prediction = dict(image, img_id=sample['img_id'], bboxes=_array(found['bboxes']).reshape(-1, 4),
                      scores=_array(found['scores']), labels=_array(found['labels']).astype(np.int64))
    if 'masks' in found:
        masks = found['masks']
        # masks are run-length encodings already where another metric of the same evaluation has encoded them
        prediction['masks'] = list(masks) if isinstance(masks, (list, tuple)) else [
            encode_mask(mask) for mask in _array(masks)]
        for mask in prediction['masks']:
            if tuple(mask['size']) != image['ori_shape']:
                raise UserError(f'{image["img_path"]}: a predicted mask is {tuple(mask["size"])} (height, width), the '
                                f'image {image["ori_shape"]}: have the model return masks of the original size')
    return prediction


def write_predictions(path: str | os.PathLike, predictions: Sequence[Mapping]) -> None:
    """Write predictions, as `plain_prediction` returns them, of one task."""
    detection = bool(predictions) and 'bboxes' in predictions[0]
    images = [{key: prediction[key] for key in ('img_id', 'img_path', 'ori_shape') if key in prediction}
              | ({'detections': len(prediction['labels'])} if detection else {}) for prediction in predictions]
    header = dict(format=FORMAT, version=VERSION, task='det' if detection else 'seg', images=images)
    with atomic_write(path) as part, zipfile.ZipFile(part, 'w') as archive:
        archive.writestr('images.json', json.dumps(header, indent=0))
        if detection:
            for name, array in _detection_arrays(predictions).items():
                _write_array(archive, name, array, zipfile.ZIP_STORED)
        else:
            for index, prediction in enumerate(predictions):
                _write_array(archive, f'labels_{index}', prediction['labels'], zipfile.ZIP_DEFLATED)


def read_predictions(path: str | os.PathLike) -> Sequence[dict]:
    """Read a file of `write_predictions`; nothing in it is executed. Label maps are read when they are asked for.

    Returns:
        One dict per image, as of `plain_prediction`.

    Raises:
        UserError: the file cannot be read, or is something else.
    """
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError('it is no zip archive')
        for info in archive.zip.infolist():  # label maps have a known size; anything else may not grow when it is read
            expected = zipfile.ZIP_DEFLATED if LABEL_MAP.fullmatch(info.filename) else zipfile.ZIP_STORED
            if info.compress_type != expected:
                raise ValueError(f'{info.filename} is not compressed as expected')
        header = json.loads(archive['images.json'])
        if header['format'] != FORMAT or header['version'] != VERSION:
            raise ValueError(f'format {header["format"]!r}, version {header["version"]!r}; expected {FORMAT!r}, '
                             f'version {VERSION}')
        images = [_checked_image(image) for image in header['images']]
        return LabelMaps(path, archive, images) if header['task'] == 'seg' else list(_detections(archive, images))
    except _DAMAGE as error:
        raise _unreadable(path, error) from error


def read_pickled_predictions(path: str | os.PathLike) -> list[dict]:
    """Read a pickle of mmdet or mmengine (``tools/test.py --out FILE.pkl``). A pickle can run any code when it is read.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    try:
        with open(path, 'rb') as file:
            return [plain_prediction(sample) for sample in pickle.load(file)]
    except (pickle.UnpicklingError, AttributeError, ImportError, *_DAMAGE) as error:
        raise _unreadable(path, error) from error


class LabelMaps(Sequence):
    """Predictions of a segmentor, whose label maps stay in the file until they are asked for.

    Args:
        path: of the file, for messages.
        archive: the open file.
        images: ``img_path`` and ``ori_shape`` of each image.
    """

    def __init__(self, path: str | os.PathLike, archive: np.lib.npyio.NpzFile, images: Sequence[dict]):
        self.path, self.archive, self.images = path, archive, images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict:
        image = self.images[index]
        name, (height, width) = f'labels_{range(len(self))[index]}', image['ori_shape']
        try:
            if self.archive.zip.getinfo(f'{name}.npy').file_size > 8 * height * width + 1000:
                raise ValueError(f'{name} is larger than its image')
            labels = self.archive[name]
            if labels.shape != (height, width) or labels.dtype.kind not in 'iu':
                raise ValueError(f'{name} is no label map of {height}x{width} pixels')
        except _DAMAGE as error:
            raise _unreadable(self.path, error) from error
        return {**image, 'labels': labels}


# what zipfile, zlib, json and numpy raise on damaged files
_DAMAGE = (ValueError, KeyError, TypeError, IndexError, OSError, EOFError, RuntimeError, MemoryError, struct.error,
           zipfile.BadZipFile, zlib.error)


def _unreadable(path: str | os.PathLike, error: Exception) -> UserError:
    return UserError(f'{path} cannot be read as predictions ({str(error) or type(error).__name__}): it is damaged or '
                     'cut off, or something else; remove it, and the report evaluates again')


def _detection_arrays(predictions: Sequence[Mapping]) -> dict[str, np.ndarray]:
    def joined(name: str, empty: np.ndarray) -> np.ndarray:
        return np.concatenate([empty, *(np.asarray(prediction[name], empty.dtype) for prediction in predictions)])

    arrays = dict(boxes=joined('bboxes', np.zeros((0, 4), np.float32)),
                  scores=joined('scores', np.zeros(0, np.float32)), labels=joined('labels', np.zeros(0, np.int64)))
    if 'masks' in predictions[0]:
        counts = [mask['counts'] for prediction in predictions for mask in prediction['masks']]
        counts = [text.encode('ascii') if isinstance(text, str) else text for text in counts]
        arrays['mask_counts'] = np.frombuffer(b''.join(counts), np.uint8)
        arrays['mask_lengths'] = np.array([len(text) for text in counts], np.int64)
    return arrays


def _write_array(archive: zipfile.ZipFile, name: str, array: np.ndarray, compression: int) -> None:
    info = zipfile.ZipInfo(f'{name}.npy')
    info.compress_type = compression
    with archive.open(info, 'w', force_zip64=True) as member:
        np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)


def _checked_image(image: Mapping) -> dict:
    height, width = image['ori_shape']
    if not (isinstance(image['img_path'], str) and type(height) is type(width) is int and height > 0 and width > 0
            and height * width <= max_pixels()):
        raise ValueError(f'an image {image["img_path"]!r} of {height}x{width} pixels')
    return {**image, 'ori_shape': (height, width)}


def _detections(archive: np.lib.npyio.NpzFile, images: Sequence[Mapping]) -> Iterator[dict]:
    counts = [image['detections'] for image in images]
    boxes, scores, labels = archive['boxes'], archive['scores'], archive['labels']
    total = sum(counts)
    if not (boxes.shape == (total, 4) and scores.shape == labels.shape == (total,) and min(counts, default=0) >= 0
            and boxes.dtype.kind == scores.dtype.kind == 'f' and labels.dtype.kind == 'i'):
        raise ValueError(f'arrays of other shapes than {total} detections have')
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise ValueError('boxes or scores that are not finite')
    masks = _masks(archive, images, counts) if 'mask_counts' in archive.files else None
    start = 0
    for image, count in zip(images, counts, strict=True):
        part = slice(start, start := start + count)
        prediction = dict(img_id=image['img_id'], img_path=image['img_path'], ori_shape=image['ori_shape'],
                          bboxes=boxes[part], scores=scores[part], labels=labels[part])
        yield prediction if masks is None else {**prediction, 'masks': masks[part]}


def _masks(archive: np.lib.npyio.NpzFile, images: Sequence[Mapping], counts: Sequence[int]) -> list[dict]:
    """Every mask as a COCO run-length encoding that fits its image."""
    data, lengths = archive['mask_counts'], archive['mask_lengths']
    if data.dtype != np.uint8 or data.ndim != 1 or lengths.shape != (sum(counts),) or lengths.dtype.kind != 'i' \
            or (lengths < 1).any() or lengths.sum() != data.size:
        raise ValueError('run lengths that do not fit the masks')
    sizes = np.repeat(np.array([image['ori_shape'] for image in images]).reshape(-1, 2), counts, axis=0)
    check_run_lengths(data, lengths, sizes.prod(axis=1))
    text, ends = data.tobytes(), np.cumsum(lengths)
    return [dict(size=size, counts=text[start:end])
            for size, start, end in zip(sizes.tolist(), ends - lengths, ends, strict=True)]


def _array(values) -> np.ndarray:
    values = getattr(values, 'tensor', values)  # mmdet's box types
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = values.float() if values.dtype == torch.bfloat16 else values  # numpy has no bfloat16
    return np.asarray(values)

