"""COCO-format data sets whose annotations lie in an index on disk, not in every process's memory."""
from collections.abc import Sequence

import numpy as np
from mmdet.datasets import CocoDataset
from mmengine.dataset.base_dataset import force_full_init
from mmengine.fileio import get_local_path
from mmengine.registry import DATASETS

from ..errors import UserError
from .coco_index import CocoIndex, open_index


@DATASETS.register_module()
class FastCocoDataset(CocoDataset):
    """mmdet's CocoDataset with the same samples in the same order, in memory that does not grow with the annotations.

    mmdet reads the json file in every process and keeps a pickled copy of every sample. Here one process of a machine
    writes an index (see `open_index`) and all read single images from it. The arguments are those of mmdet's
    CocoDataset; ``serialize_data`` changes nothing, and ``proposal_file`` is not supported.

    Attributes:
        index: of the annotation file.
        numbers: (len(self)), position in the annotation file of each sample's image.

    Raises:
        UserError: ``proposal_file``, or annotations that `open_index` refuses.
        ValueError: no image is left after filtering.
    """
    index: CocoIndex
    numbers: np.ndarray

    def full_init(self) -> None:
        """Open the index and filter the images; called by the constructor unless ``lazy_init``."""
        if self._fully_initialized:
            return
        if self.proposal_file is not None:
            raise UserError('FastCocoDataset has no proposal_file: use type="CocoDataset" for proposals from a file')
        if self.backend_args:  # another backend of mmengine's
            with get_local_path(self.ann_file, backend_args=self.backend_args) as file:
                self.index = open_index(file)
        else:
            self.index = open_index(self.ann_file)
        names = self.metainfo['classes']
        self.cat_ids = [entry['id'] for entry in self.index.categories if entry['name'] in names]
        self.cat2label = {category: label for label, category in enumerate(self.cat_ids)}
        self.numbers = self._filtered()
        if not len(self.numbers):  # in mmengine's words for an empty data set, which `build_dataloader` explains
            raise ValueError(f'need at least one array: no image of {self.ann_file} is left after filtering')
        self._fully_initialized = True
        if self._indices is not None:
            self.get_subset_(self._indices)

    def get_data_info(self, idx: int) -> dict:
        """The record of a sample: paths, size and instances, as mmdet's CocoDataset has them."""
        if not self._fully_initialized:
            self.full_init()
        image, annotations = self.index.annotated(self.numbers[idx])
        image['img_id'] = image['id']
        info = self.parse_data_info(dict(raw_img_info=image, raw_ann_info=annotations))
        info['sample_idx'] = idx if idx >= 0 else len(self) + idx
        return info

    def sample_files(self, idx: int) -> list[str]:
        """Paths of a sample's image and, where there is one, label map; without reading its annotations."""
        image = self.index.image(self.numbers[idx])
        image['img_id'] = image['id']
        info = self.parse_data_info(dict(raw_img_info=image, raw_ann_info=[]))
        return [info[key] for key in ('img_path', 'seg_map_path') if info[key]]

    @force_full_init
    def get_subset_(self, indices: int | Sequence[int]) -> None:
        """Keep some samples: the first ``indices`` of them, the last where it is negative, or those of a list."""
        self.numbers = self._chosen(indices)

    @force_full_init
    def get_subset(self, indices: int | Sequence[int]) -> 'FastCocoDataset':
        """A data set of some of the samples, chosen as in `get_subset_`."""
        return self._subset(self._chosen(indices))

    @force_full_init
    def __len__(self) -> int:
        return len(self.numbers)

    def _subset(self, numbers: np.ndarray) -> 'FastCocoDataset':
        subset = self._copy_without_annotation()
        subset.numbers = numbers
        return subset

    def _chosen(self, indices: int | Sequence[int]) -> np.ndarray:
        if isinstance(indices, int):
            return self.numbers[:indices] if indices >= 0 else self.numbers[indices:]
        return self.numbers[np.asarray(indices, int)]

    def _filtered(self) -> np.ndarray:
        """Numbers of the images that ``filter_cfg`` keeps, by mmdet's rules: all of them when testing."""
        kept = np.ones(len(self.index), bool)
        if not self.test_mode and self.filter_cfg is not None:
            if self.filter_cfg.get('filter_empty_gt', False):
                kept &= self.index.images_with(self.cat_ids)
            kept &= self.index.sizes.min(axis=1) >= self.filter_cfg.get('min_size', 0)
        return np.flatnonzero(kept)
