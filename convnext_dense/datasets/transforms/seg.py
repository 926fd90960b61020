"""mmseg's transforms that cost a segmentor's training pipeline most, with the same results in less time."""
import cv2
import mmcv
import numpy as np
from mmcv.transforms.utils import cache_randomness
from mmengine import fileio
from mmseg.datasets.transforms import LoadAnnotations, PackSegInputs, PhotoMetricDistortion, RandomCrop, RandomFlip
from mmseg.registry import TRANSFORMS

from ...errors import UserError
from .images import channels_first, flip, look_up, require_keys

VALUES = np.arange(256, dtype=np.uint8)  # all that a pixel can be


@TRANSFORMS.register_module()
class FastLoadAnnotations(LoadAnnotations):
    """mmseg's LoadAnnotations; takes what it takes, and changes labels by one look-up table.

    Raises:
        UserError: the data set's ``reduce_zero_label`` is not this one's.
    """

    def _load_seg_map(self, results: dict) -> None:
        require_keys(self, results, 'seg_map_path', 'reduce_zero_label', 'seg_fields')
        if self.reduce_zero_label is None:
            self.reduce_zero_label = results['reduce_zero_label']
        if self.reduce_zero_label != results['reduce_zero_label']:
            raise UserError(f'{type(self).__name__} has reduce_zero_label={self.reduce_zero_label}, but the data set '
                            f'has {results["reduce_zero_label"]}: set both alike')
        content = fileio.get(results['seg_map_path'], backend_args=self.backend_args)
        labels = read_labels(content, self.imdecode_backend).squeeze().astype(np.uint8)
        results['gt_seg_map'] = look_up(labels, label_table(self.reduce_zero_label, results.get('label_map')))
        results['seg_fields'].append('gt_seg_map')


def read_labels(content: bytes, backend: str) -> np.ndarray:
    """The values of a label map's file, as mmcv reads it.

    mmseg asks for Pillow because OpenCV turns a palette into colours. OpenCV reads gray values of 8 bits just as well
    in less time, and nothing from a file that is damaged, of which Pillow then says what is wrong.
    """
    if backend == 'pillow' and content.startswith(b'\x89PNG') and content[24:26] == b'\x08\x00':  # bits, kind of values
        labels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        if labels is not None and labels.ndim == 2:
            return labels
    return mmcv.imfrombytes(content, flag='unchanged', backend=backend)


def label_table(reduce_zero_label: bool, label_map: dict[int, int] | None) -> np.ndarray:
    """What each of 256 labels becomes: first 0 and 255 are 255 and the others one less, then ids get new ones."""
    reduced = np.where(VALUES == 255, VALUES, VALUES - 1) if reduce_zero_label else VALUES
    table = reduced.copy()
    for old, new in (label_map or {}).items():
        table[reduced == old] = new
    return table


@TRANSFORMS.register_module()
class FastRandomCrop(RandomCrop):
    """mmseg's RandomCrop; takes what it takes, and counts a crop's labels without sorting them."""

    def transform(self, results: dict) -> dict:
        """Crop a sample."""
        require_keys(self, results, 'img', *(['gt_seg_map'] if self.cat_max_ratio < 1 else []))
        return super().transform(results)

    @cache_randomness
    def crop_bbox(self, results: dict) -> tuple[int, int, int, int]:
        """A random (top, bottom, left, right), drawn again up to ten times while one class fills too much of it."""
        crop = self._draw(results['img'])
        if self.cat_max_ratio < 1:
            for _ in range(10):
                labels, counts = count_labels(self.crop(results['gt_seg_map'], crop))
                counts = counts[labels != self.ignore_index]
                if len(counts) > 1 and counts.max() / counts.sum() < self.cat_max_ratio:
                    break
                crop = self._draw(results['img'])
        return crop

    def _draw(self, image: np.ndarray) -> tuple[int, int, int, int]:
        top, left = (np.random.randint(0, max(image.shape[axis] - self.crop_size[axis], 0) + 1) for axis in (0, 1))
        return top, top + self.crop_size[0], left, left + self.crop_size[1]


def count_labels(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different labels of a map, ascending, and how often each is there."""
    if labels.dtype != np.uint8 or labels.size > 1 << 24:  # up to which OpenCV's float32 counts are whole numbers
        return np.unique(labels, return_counts=True)
    counts = cv2.calcHist([labels], [0], None, [256], [0, 256]).ravel().astype(np.int64)
    found = np.flatnonzero(counts)
    return found, counts[found]


@TRANSFORMS.register_module()
class FastRandomFlip(RandomFlip):
    """mmseg's RandomFlip; takes what it takes, and flips images and label maps with OpenCV."""

    def _flip(self, results: dict) -> None:
        require_keys(self, results, 'img')
        image = results['img']
        super()._flip(results)
        results['img'] = flip(image, results['flip_direction'])

    def _flip_seg_map(self, seg_map: np.ndarray, direction: str) -> np.ndarray:
        if self.swap_seg_labels is not None:
            return super()._flip_seg_map(seg_map, direction)
        return flip(seg_map, direction)


@TRANSFORMS.register_module()
class FastPhotoMetricDistortion(PhotoMetricDistortion):
    """mmseg's PhotoMetricDistortion; takes what it takes, and changes an image of uint8 by look-up tables.

    Each change but the conversion to HSV and back is a function of one value, of which there are 256.
    """

    def transform(self, results: dict) -> dict:
        """Distort a sample's image."""
        require_keys(self, results, 'img')
        image = results['img']
        if image.dtype != np.uint8:
            return super().transform(results)
        table = self.brightness(VALUES)
        contrast_first = np.random.randint(2) == 1
        if contrast_first:
            table = self.contrast(table)
        image = change(image, table)
        if np.random.randint(2):
            factor = np.random.uniform(self.saturation_lower, self.saturation_upper)
            image = change_hsv(image, 1, self.convert(VALUES, alpha=factor))
        if np.random.randint(2):
            delta = np.random.randint(-self.hue_delta, self.hue_delta)
            image = change_hsv(image, 0, ((VALUES.astype(int) + delta) % 180).astype(np.uint8))
        results['img'] = image if contrast_first else change(image, self.contrast(VALUES))
        return results


def change(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """An image after its values went through a table, of which VALUES itself changes nothing."""
    return image if table is VALUES else look_up(image, table)


def change_hsv(image: np.ndarray, channel: int, table: np.ndarray) -> np.ndarray:
    """A BGR image after one of hue, saturation and value went through a table."""
    hsv = mmcv.bgr2hsv(image)
    changed = look_up(cv2.extractChannel(hsv, channel), table)
    return mmcv.hsv2bgr(cv2.insertChannel(changed, hsv, channel))


@TRANSFORMS.register_module()
class FastPackSegInputs(PackSegInputs):
    """mmseg's PackSegInputs; takes what it takes, and reorders an image's channels with OpenCV."""

    def transform(self, results: dict) -> dict:
        """Pack a sample; without an image there are no inputs."""
        packed = super().transform({key: value for key, value in results.items() if key != 'img'})
        return {'inputs': channels_first(results['img']), **packed} if 'img' in results else packed
