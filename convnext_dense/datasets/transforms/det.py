"""mmdet's transforms that cost a detector's training pipeline most, with the same results in less time."""
import numpy as np
import pycocotools.mask as coco_mask
from faster_coco_eval import mask_api_new_cpp as faster_mask
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, RandomFlip
from mmdet.registry import TRANSFORMS

from ...errors import UserError
from .images import channels_first, flip, require_keys
from .masks import RunLengthMasks


@TRANSFORMS.register_module()
class FastLoadAnnotations(LoadAnnotations):
    """mmdet's LoadAnnotations, whose bitmap masks stay run-length encoded until their pixels are read.

    Takes what LoadAnnotations takes. ``gt_masks`` is a `RunLengthMasks`, on which mmdet's Resize, RandomCrop,
    FilterAnnotations, RandomFlip and Pad touch no pixels.

    Raises:
        UserError: the image is not loaded yet, or an object has no mask, or one that is not of the image's size.
    """

    def _load_masks(self, results: dict) -> None:
        if not self.poly2mask:
            return super()._load_masks(results)
        require_keys(self, results, 'ori_shape')
        if not all('mask' in instance for instance in results.get('instances', [])):
            raise UserError(f'an object of {results.get("img_path")} has no segmentation, which {type(self).__name__} '
                            'with with_mask=True needs: add it to the annotation file, or set with_mask=False')
        height, width = results['ori_shape']
        counts = []
        for mask in self._process_masks(results):
            size, runs = run_lengths(mask, height, width)
            if tuple(size) != (height, width) or runs.sum() != height * width:
                raise UserError(f'a mask of {results.get("img_path")} is run-length code of {runs.sum()} pixels for '
                                f'{tuple(size)} (height, width), but the image has {(height, width)}: correct the '
                                'annotation file; tools/check_dataset.py finds such masks')
            counts.append(runs)
        results['gt_masks'] = RunLengthMasks.from_counts(counts, height, width)


def run_lengths(mask: list | dict, height: int, width: int) -> tuple[tuple[int, int], np.ndarray]:
    """The size that a COCO segmentation is of, (height, width), and its run lengths, int64; polygons by pycocotools.

    Code that cannot be read has no run lengths.
    """
    if isinstance(mask, list):
        mask = coco_mask.merge(coco_mask.frPyObjects(mask, height, width))
    try:
        counts = mask['counts']
        counts = counts if isinstance(counts, list) else faster_mask.toUncompressedRLE([mask])[0]['counts']
        runs = np.array(counts, np.int64)
    except (OverflowError, RuntimeError, TypeError, ValueError):
        return mask['size'], np.zeros(0, np.int64)
    return mask['size'], runs[:0] if (runs < 0).any() else runs


@TRANSFORMS.register_module()
class FastRandomFlip(RandomFlip):
    """mmdet's RandomFlip; takes what it takes, and flips an image with OpenCV."""

    def _flip(self, results: dict) -> None:
        require_keys(self, results, 'img')
        image, labels = results['img'], results.get('gt_seg_map')
        super()._flip(results)
        results['img'] = flip(image, results['flip_direction'])
        if labels is not None:
            results['gt_seg_map'] = flip(labels, results['flip_direction'])


@TRANSFORMS.register_module()
class FastPackDetInputs(PackDetInputs):
    """mmdet's PackDetInputs; takes what it takes, and reorders an image's channels with OpenCV."""

    def transform(self, results: dict) -> dict:
        """Pack a sample; without an image, as at the end of a pipeline of annotations only, there are no inputs."""
        packed = super().transform({key: value for key, value in results.items() if key != 'img'})
        return {'inputs': channels_first(results['img']), **packed} if 'img' in results else packed
