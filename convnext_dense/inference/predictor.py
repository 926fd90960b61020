"""Images in, plain results out: a trained detector or segmentor without data sets, loaders or runners."""
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DATASETS, MODELS, DefaultScope
from PIL import Image
from torch import nn

from ..checkpoints import load_checkpoint, read_checkpoint
from ..checkpoints.loading import has_our_backbone
from ..checkpoints.reading import find_state_dict
from ..config import datasets_of, load_config, value_range_of
from ..config.runs import open_run
from ..errors import UserError, few, first_line
from ..models import ConvNeXt, fold_for_inference
from ..models.compiling import compile_parts
from ..recipes.metafile import find_recipe
from ..utils.images import TILED_MAX_PIXELS, OversizedImageError, allow_pixels
from ..utils.read_ahead import read_ahead
from ..visualization.draw import UNREADABLE, Colour, check_readable, palette_of
from ..visualization.predictions import instances_of
from .arrays import to_rgb
from .protocols import without_annotations
from .results import Detections, Segmentation
from .tiled_model import TiledNetwork
from .tiling import Tiling

PRECISIONS = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}
Picture = str | os.PathLike | np.ndarray | Image.Image | BinaryIO


class Predictor:
    """A trained model, ready for images.

    Args:
        config: a config file, one of the package (``det/...``), a loaded Config, the folder of a run, whose config
            and best checkpoint are then used, or the name of a model-zoo entry (docs/recipes.md), whose fine-tuned
            weights are then downloaded.
        checkpoint: trained weights: a file, a URL or a name of the zoo; not needed with a run or a model-zoo entry. A
            loaded Config without them keeps random weights, for measurements.
        device: 'auto' (a GPU where there is one), 'cpu', 'cuda' or 'cuda:1'.
        cfg_options: ``key=value`` strings that change the config, as of the tools.
        score_thr: detections below this score are left out, 0 to 1, as with ``--score-thr`` of the command; 0 keeps
            everything that the config keeps.
        precision: 'fp32', or 'bf16' or 'fp16' for mixed precision, as of training; fp16 needs a GPU. A CPU with bf16
            instructions (AVX512_BF16, AMX) gains by bf16, others lose.
        compile: compile backbone, neck and decode head with ``torch.compile``; the first image of each size then takes
            minutes, and results are the same to float tolerance.
        optimize: fold factors, offsets and batch norms into the weights beside them (`fold_for_inference`), where the
            backbone is ours, and end NMS with the last box that is kept; results are the same to float tolerance. False
            keeps ``model`` as the config builds it.
        tile: side in pixels of the tiles into which larger images are cut (docs/large_images.md); default: never.
        overlap: of neighbouring tiles, as a part of their side, 0 to 0.9.

    Attributes:
        model: the detector or segmentor of mmdet or mmseg.
        task: 'det' or 'seg'.
        classes: names, in the order of the labels: those stored in the checkpoint, else those of the config's data set.
        palette: RGB colour of every class.
        value_range: (low, high), the values that become 0 and 255 in files with more than 8 bits a value; or None.

    Raises:
        UserError: no such config, run, model-zoo entry or GPU, weights that do not fit the model completely, another
            number of class names than the model predicts, fp16 without a GPU, or tiles that cannot work.
    """

    def __init__(self, config: str | os.PathLike | Config, checkpoint: str | os.PathLike | None = None,
                 device: str = 'auto', cfg_options: list[str] | None = None, score_thr: float = 0.3,
                 *, precision: str = 'fp32', compile: bool = False, optimize: bool = True,
                 tile: int | None = None, overlap: float = 0.2):
        self.tiling = None if tile is None else Tiling(tile, overlap)
        if not 0 <= score_thr <= 1:
            raise UserError(f'score_thr={score_thr}: expected a score from 0 to 1')
        self.score_thr = score_thr
        self.device = choose_device(device)
        self.dtype = choose_dtype(precision, self.device)
        if not isinstance(config, Config) and os.path.isdir(config):
            config, best = open_run(config)
            checkpoint = best if checkpoint is None else checkpoint
        elif checkpoint is None and not isinstance(config, Config):
            recipe = find_recipe(os.fspath(config))
            config, checkpoint = recipe.config, recipe.name
        cfg = deepcopy(config) if isinstance(config, Config) else load_config(os.fspath(config), cfg_options)
        self.task = {'mmdet': 'det', 'mmseg': 'seg'}.get(cfg.get('default_scope'))
        if self.task is None or not datasets_of(cfg.get('test_dataloader')):
            raise UserError(f'{cfg.filename} cannot predict: expected default_scope mmdet or mmseg and a '
                            f'test_dataloader, whose pipeline prepares the images')
        cfg.model.pop('init_cfg', None)
        cfg.model.backbone.pop('init_cfg', None)  # the checkpoint brings every weight
        dataset = datasets_of(cfg.test_dataloader)[0]
        self.value_range = value_range_of(dataset['pipeline'])
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            self.model = MODELS.build(cfg.model)
            if hasattr(self.model, 'labels_only'):
                self.model.labels_only = True
            known = DATASETS.build({**dataset, 'pipeline': [], 'lazy_init': True}).metainfo
            self.read_file, self.read_array, self.prepare = (Compose(steps) for steps in (
                dataset['pipeline'][:1], [dict(type='LoadImageFromNDArray')],
                without_annotations(dataset['pipeline'][1:])))
        meta = {} if checkpoint is None else load_weights(self.model, os.fspath(checkpoint)).get('meta') or {}
        self.model.to(self.device).eval()
        if optimize:
            self.optimize()
        if compile:
            compile_parts(self.model, ('backbone', 'neck', 'decode_head'))  # with RoI heads, RPN is a small part
        meta = {**known, **meta.get('dataset_meta', {})}
        self.classes = tuple(meta['classes'])
        self.palette: list[Colour] = palette_of(meta, self.classes)
        count = predicted_classes(self.model)
        if count not in (None, len(self.classes)):
            raise UserError(f'{cfg.filename} predicts {count} classes, but there are {len(self.classes)} class names '
                            f'({few(self.classes)}): set metainfo=dict(classes=...) of its test set to the classes of '
                            'the weights')

    def optimize(self) -> None:
        """Make `model` one for inference alone: folded weights, where the backbone is ours, and NMS that ends early."""
        if isinstance(self.model.backbone, ConvNeXt):
            self.model = fold_for_inference(self.model)
        if self.task == 'det':
            from ..detection.nms import stop_nms_early  # needs mmcv's operators
            stop_nms_early(self.model)

    def __call__(self, images: Picture | Sequence[Picture], batch_size: int = 1,
                 value_range: tuple[float, float] | None = None):
        """Predict one image, or a list of them.

        Args:
            images: a path, a file object, a PIL image or an array: uint8 RGB (H, W, 3), RGBA or grey, floats from 0
                to 1, and with `value_range` any numbers (`arrays.to_rgb`); a list gives a list of results in its
                order. Files are read as the config reads them.
            batch_size: images that go through the network together, where they have the same size.
            value_range: (low, high), the values of black and white in arrays and PIL images; not for files. Default:
                for more than 8 bits, that of the config.

        Returns:
            `Detections` or `Segmentation`, at the size of the image.

        Raises:
            UserError: an image cannot be read or prepared, or an array is no image.
        """
        single = isinstance(images, str | os.PathLike | np.ndarray | Image.Image) or hasattr(images, 'read')
        images = [images] if single else list(images)
        results = []
        batches = self._batches(images, batch_size, value_range)
        for sources, samples in batches if len(images) <= batch_size else read_ahead(batches):
            found = self.predict(samples)
            for result, source in zip(found, sources, strict=True):
                result.image = source
            results += found
        return results[0] if single else results

    def _batches(self, images: Sequence[Picture], batch_size: int, value_range: tuple[float, float] | None
                 ) -> Iterator[tuple[list, list[dict]]]:
        """Images, as files or RGB arrays, and their samples, for `predict`, up to ``batch_size`` at a time."""
        for start in range(0, len(images), batch_size):
            read = [self._read(image, value_range) for image in images[start:start + batch_size]]
            # without a range, what is drawn on can be read from the file again
            sources = [found['img'][..., ::-1] if name is None or self.value_range else name for name, found in read]
            yield sources, [self._prepare(*each) for each in read]

    def load(self, image: Picture, value_range: tuple[float, float] | None = None) -> dict:
        """One image after the config's test pipeline, for `predict`; arguments and errors as of a call."""
        return self._prepare(*self._read(image, value_range))

    def _read(self, image: Picture, value_range: tuple[float, float] | None) -> tuple[str | None, dict]:
        """The path of an image, None for one in memory, and what the pipeline's first transform makes of it."""
        if isinstance(image, str | os.PathLike):
            return os.fspath(image), self._read_path(os.fspath(image))
        if hasattr(image, 'read'):
            with tempfile.TemporaryDirectory() as folder:  # readers of the MM stack take paths
                file = Path(folder, 'image')
                with file.open('wb') as copy:
                    shutil.copyfileobj(image, copy)
                return None, self._read_path(str(file), 'the file object')
        deep = image.dtype != np.uint8 if isinstance(image, np.ndarray) else image.mode[0] in 'IF'
        array = to_rgb(image, self.value_range if deep and value_range is None else value_range)
        return None, self.read_array(dict(img=array[..., ::-1], img_id=0))  # BGR, as files are

    def _read_path(self, path: str, name: str | None = None) -> dict:
        name = path if name is None else name
        with nullcontext() if self.tiling is None else allow_pixels(TILED_MAX_PIXELS):
            return self._read_allowed(path, name)

    def _read_allowed(self, path: str, name: str) -> dict:
        try:
            check_readable(path, name, self.value_range)
        except OversizedImageError as error:
            if self.tiling is None:
                raise UserError(f'{error}, or predict it in tiles (--tile 1024)') from error
            raise
        try:
            return self.read_file(dict(img_path=path, img_id=0))
        except (OSError, AssertionError, AttributeError, ValueError, cv2.error) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(UNREADABLE.format(name)) from error

    def _prepare(self, path: str | None, read: dict) -> dict:
        height, width = read['img'].shape[:2]
        if self.tiling is not None and self.tiling.cuts(height, width):
            return dict(image=read['img'][..., ::-1])
        read['img'] = np.ascontiguousarray(read['img'])
        try:
            return self.prepare(read)
        except (ValueError, ZeroDivisionError, cv2.error) as error:
            name = 'the array' if path is None else path
            raise UserError(f'{name} has {width}x{height} pixels, and the test pipeline of the config fails on it '
                            f'({" ".join(str(error).split())[-150:]}): cut or pad it to another shape') from error

    def _prepare_tile(self, tile: np.ndarray) -> dict:
        return self._prepare(None, self.read_array(dict(img=tile, img_id=0)))

    @torch.no_grad()
    def predict(self, samples: Sequence[dict]) -> list[Detections | Segmentation]:
        """Results of samples that `load` gave.

        Samples of one shape go through the network together. Different shapes do not: padding to a common one would
        change the results. Images that are cut are predicted one after the other.

        Raises:
            UserError: the network does not take an image of this shape.
        """
        by_shape = defaultdict(list)
        results = [None] * len(samples)
        for index, sample in enumerate(samples):
            if 'image' in sample:
                results[index] = self._predict_tiled(sample['image'])
            else:
                by_shape[sample['inputs'].shape].append(index)
        for indices in by_shape.values():
            try:
                with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                    found = self.model.test_step(pseudo_collate([samples[index] for index in indices]))
            except ValueError as error:  # as of a backbone, for an image that is a few pixels high
                shape = 'x'.join(map(str, reversed(samples[indices[0]]['data_samples'].ori_shape[:2])))
                raise UserError(f'the network does not take an image of {shape} pixels ({first_line(error)}): cut or '
                                'pad it to another shape') from error
            for index, sample in zip(indices, found, strict=True):
                results[index] = self.result(sample)
        return results

    def _predict_tiled(self, image: np.ndarray) -> Detections | Segmentation:
        network = TiledNetwork(self.model, self._prepare_tile, self.tiling, self.classes)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            if self.task == 'seg':
                return Segmentation(network.segment(image), self.classes, self.palette)
            found = replace(network.detect(image), palette=self.palette)
        return found[(found.scores >= self.score_thr) & np.isfinite(found.boxes).all(axis=1)]

    def result(self, sample) -> Detections | Segmentation:
        """The plain result of one data sample of mmdet or mmseg."""
        if self.task == 'det':
            found = instances_of(sample.pred_instances).above(self.score_thr)  # the least certain first
            found = Detections(found.labels, found.boxes, found.masks, found.scores, self.classes,
                               tuple(sample.ori_shape[:2]), self.palette)
            return found[::-1]
        dtype = np.uint8 if len(self.classes) <= 255 else np.uint16
        labels = sample.pred_sem_seg.data.squeeze(0).cpu().numpy().astype(dtype)
        return Segmentation(labels, self.classes, self.palette)


def load_weights(model: nn.Module, path: str) -> dict:
    """Fill a model completely from a checkpoint, also one with another backbone than ours; returns the checkpoint.

    Raises:
        UserError: the file cannot be read, or does not have exactly the model's weights.
    """
    if has_our_backbone(model):
        return load_checkpoint(model, path, complete=True)
    checkpoint = read_checkpoint(path)
    try:
        model.load_state_dict(find_state_dict(checkpoint, path))
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise UserError(f'{path} does not fit the model of the config: {" ".join(lines[1:2]).strip()[:300]}') from error
    return checkpoint


def predicted_classes(model: nn.Module) -> int | None:
    """Number of classes that a detector or segmentor of mmdet or mmseg predicts; None where its heads do not say."""
    head = getattr(model, 'decode_head', None) or getattr(getattr(model, 'roi_head', model), 'bbox_head', None)
    head = head[-1] if isinstance(head, nn.ModuleList) else head  # the stages of a cascade
    return getattr(head, 'num_classes', None)


def choose_device(device: str) -> torch.device:
    """The torch device of 'auto' or a name.

    Raises:
        UserError: a GPU was asked for, and torch sees none.
    """
    if device == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    if device.startswith('cuda') and not torch.cuda.is_available():
        raise UserError(f"device '{device}' was asked for, but torch sees no GPU: use device='cpu'")
    return torch.device(device)


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The torch type of 'fp32', 'bf16' or 'fp16'.

    Raises:
        UserError: another name, or fp16 on a CPU.
    """
    if precision not in PRECISIONS:
        raise UserError(f'precision {precision!r} is unknown: expected {few(PRECISIONS)}')
    if precision == 'fp16' and device.type == 'cpu':
        raise UserError("precision='fp16' was asked for on a CPU, which has no fast fp16: use 'bf16', or a GPU")
    return PRECISIONS[precision]


__all__ = ['Detections', 'Predictor', 'Segmentation', 'without_annotations']
