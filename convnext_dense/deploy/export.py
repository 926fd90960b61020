"""Export a trained model: build the graph, write it, prove it on images; a file appears when all of that went well."""
import os
import shutil
import tempfile
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from torch import nn

from ..config import datasets_of, load_config
from ..errors import UserError
from ..inference.inputs import find_inputs
from ..inference.predictor import Predictor, without_annotations
from ..models.convnext import Block
from ..models.folding import fold_for_inference
from ..runtime import Predictor as RuntimePredictor
from ..runtime.metadata import LAYOUT, Metadata
from ..utils.files import atomic_write
from ..version import __version__
from .formats import OPSETS, check_name, convert_openvino, write
from .losses import check_losses, evaluation_config, measure_losses
from .proof import LIMITS, Differences, check, compare
from .quantize import quantize

SAMPLES = 4  # images that are compared where the user names none
LOADING = ('LoadImageFromFile', 'Resize')  # what a test pipeline may do to an image
PRECISIONS = ('float32', 'float16', 'int8')


@dataclass(frozen=True)
class Options:
    """How to export.

    Args:
        kind: 'onnx', 'torch' or 'openvino'.
        images: files, folders or globs to compare on; default: the first of the config's test set.
        size: (height, width) for a graph of one size; None: any.
        batch: images for a graph of one batch size; None: any.
        precision: 'float32', 'float16' (weights and most of the computation) or 'int8' (convolutions and matrix
            products; ONNX and OpenVINO).
        opset: of ONNX.
        calibrate: files, folders or globs of images by which the ranges of int8 are chosen.
        max_loss: AP or mIoU, in points, that int8 may lose on the config's test set.
    """
    kind: str = 'onnx'
    images: Sequence[str] = ()
    size: tuple[int, int] | None = None
    batch: int | None = None
    precision: str = 'float32'
    opset: int = 18
    calibrate: Sequence[str] = ()
    max_loss: float = 1.0


def export(config: str | Config, checkpoint: str | None, out: str | os.PathLike, options: Options = Options(),
           cfg_options: list[str] | None = None, data_root: str | None = None) -> Differences:
    """Export a detector or segmentor and compare the file with the trained model.

    Args:
        config: a config file, one of the package, or a loaded Config.
        checkpoint: trained weights: a file, a URL or a name of the zoo.
        out: file to write; its suffix is the format's.
        options: how.
        cfg_options: ``KEY=VALUE`` that override settings of the config.
        data_root: folder of the config's test set.

    Returns:
        The largest differences seen, of int8 also AP or mIoU before and after.

    Raises:
        UserError: a model, pipeline, format or option that cannot be exported, no images to compare on, a file that
            predicts otherwise than the model, or int8 that loses too much. Nothing is written then.
    """
    out = check_name(out, options.kind)
    check_options(options)
    cfg = deepcopy(config) if isinstance(config, Config) else load_config(os.fspath(config), cfg_options, data_root)
    resize = resize_of(cfg)
    images = sample_images(cfg, options.images)
    calibration = [source.path for source in find_inputs(options.calibrate)] if options.calibrate else []
    if options.precision == 'int8':
        with tempfile.TemporaryDirectory() as folder:
            evaluation_config(cfg, checkpoint, folder)  # what is missing is said before the work
    reference = Predictor(cfg, checkpoint, device='cpu', score_thr=0, optimize=False)
    graph = build_graph(reference, options.precision)
    metadata = describe(cfg, reference, resize, options)
    example = torch.zeros((options.batch or 2, 3, *(options.size or example_size(metadata))), dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder, out.name)
        if options.precision == 'int8':
            between = part.with_suffix('.onnx')
            before = replace(metadata, precision='float32')
            write(graph, example, before, between)
            prove(reference, between, images, before, out)  # what is rounded is the trained model
            quantize(between, calibration, metadata)
            if part != between:
                convert_openvino(between, metadata, part)
            seen = prove(reference, part, images, metadata, out)
            seen.losses = measure_losses(cfg, checkpoint, part)
            check_losses(seen.losses, options.max_loss, str(out))
        else:
            write(graph, example, metadata, part)
            seen = prove(reference, part, images, metadata, out)
        place(part, out)
    return seen


def check_options(options: Options) -> None:
    """Raises UserError for an opset, a size or a precision that there is not."""
    if options.opset not in OPSETS:
        raise UserError(f'--opset {options.opset}: expected {OPSETS.start} to {OPSETS.stop - 1}')
    if options.size is not None and min(options.size) < 32 or options.batch is not None and options.batch < 1:
        raise UserError(f'--size {options.size} and --batch {options.batch}: expected sides of at least 32 pixels, the '
                        "network's stride, and at least one image")
    if options.precision not in PRECISIONS:
        raise UserError(f'--precision {options.precision}: expected {", ".join(PRECISIONS)}')
    if options.precision == 'int8':
        if options.kind == 'torch':
            raise UserError('--precision int8 goes with --to onnx and --to openvino: use one of them')
        if not options.calibrate:
            raise UserError('--precision int8 needs --calibrate IMAGE...: some hundred images of the kind that will be '
                            'predicted')
    elif options.calibrate:
        raise UserError(f'--calibrate is for --precision int8, and this is {options.precision}: leave it out')


def resize_of(cfg: Config) -> dict:
    """The scale and keep_ratio of a test pipeline's Resize, as the metadata has them.

    Raises:
        UserError: the pipeline does something else to images.
    """
    steps = without_annotations(datasets_of(cfg.test_dataloader)[0]['pipeline'])
    others = [step.type for step in steps if step.type not in LOADING and not step.type.endswith('Inputs')]
    resizes = [step for step in steps if step.type == 'Resize']
    wrong = others or len(resizes) > 1 or any(
        step.get('interpolation', 'bilinear') != 'bilinear' or not isinstance(step.get('scale'), tuple | list | int)
        for step in resizes)
    if wrong:
        raise UserError(f'the test pipeline of {cfg.filename} has {", ".join(others) or "another Resize"}, which an '
                        'exported model does not do: expected LoadImageFromFile and at most one bilinear Resize to a '
                        'scale')
    if not resizes:
        return dict(scale=None, keep_ratio=True)
    scale = resizes[0].scale
    return dict(scale=[scale, scale] if isinstance(scale, int) else list(scale),
                keep_ratio=bool(resizes[0].get('keep_ratio', False)))


def sample_images(cfg: Config, patterns: Sequence[str]) -> list[Path]:
    """The images to compare on: the user's, or the first of the test set.

    Raises:
        UserError: there are none.
    """
    if patterns:
        return [source.path for source in find_inputs(patterns)]
    dataset = datasets_of(cfg.test_dataloader)[0]
    prefix = dataset.get('data_prefix') or {}
    folder = Path(dataset.get('data_root') or '', prefix.get('img') or prefix.get('img_path') or '')
    if not folder.is_dir():
        raise UserError(f'there are no images to compare the exported model on: {folder} does not exist; name some '
                        'with --images')
    return [source.path for source in find_inputs([str(folder)])][:SAMPLES]


def build_graph(predictor: Predictor, precision: str) -> nn.Module:
    """The plain graph of a model, constant factors folded, on the CPU."""
    model = predictor.model
    if any(isinstance(module, Block) and module.norm.weight is not None for module in model.modules()):
        model = fold_for_inference(model)
    if predictor.task == 'det':
        from ..detection.plain import PlainDetector
        graph = PlainDetector(model)
    else:
        from ..segmentation.plain import PlainSegmentor
        graph = PlainSegmentor(model)
    return (to_half(graph) if precision == 'float16' else graph).eval()


def to_half(graph: nn.Module) -> nn.Module:
    """A copy whose network computes in float16; boxes, scores and pooling stay in float32."""
    graph = deepcopy(graph)
    heads = [graph.head] if hasattr(graph, 'head') else [
        graph.proposals.head, *graph.boxes.heads, *(graph.masks.heads if graph.masks is not None else ())]
    for part in (graph.backbone, graph.neck, *heads):
        part.half()
    return graph


def describe(cfg: Config, predictor: Predictor, resize: dict, options: Options) -> Metadata:
    """The metadata of the file."""
    test, data = cfg.model.get('test_cfg') or {}, predictor.model.data_preprocessor
    rcnn = test.get('rcnn') or {}
    slides = test.get('mode') == 'slide'
    return Metadata(
        layout=LAYOUT, version=__version__, task=predictor.task, config=Path(cfg.filename or 'a config').stem,
        classes=list(predictor.classes), palette=[list(map(int, colour)) for colour in predictor.palette],
        # mmengine's name, then mmseg's
        channels='RGB' if getattr(data, '_channel_conversion', getattr(data, 'channel_conversion', False)) else 'BGR',
        mean=data.mean.flatten().tolist(), std=data.std.flatten().tolist(), **resize,
        size=list(options.size) if options.size else None, batch=options.batch, precision=options.precision,
        opset=options.opset if options.kind != 'torch' else None, score_threshold=rcnn.get('score_thr'),
        mask_threshold=rcnn.get('mask_thr_binary'), window=list(test.crop_size) if slides else None,
        stride=list(test.stride) if slides else None)


def example_size(metadata: Metadata) -> tuple[int, int]:
    """(height, width) of the images that are traced: small, unequal, and of no special remainder."""
    return 133, 197


def prove(reference: Predictor, part: Path, images: Sequence[Path], metadata: Metadata, out: Path) -> Differences:
    """Predict the images with both and compare.

    Raises:
        UserError: they disagree; not of int8, whose loss is measured.
    """
    runtime = RuntimePredictor(part, device='cpu', score_thr=0)
    if metadata.size is not None:  # the reference resizes and pads, too
        prepared = [runtime.load(image) for image in images]
        pictures = [np.ascontiguousarray(sample.inputs.transpose(1, 2, 0)) for sample in prepared]
        pictures = pictures if metadata.channels == 'RGB' else [picture[..., ::-1] for picture in pictures]
        images = pictures
    expected = [reference(image) for image in images]
    found = [runtime(image) for image in images]
    seen = compare(expected, found)
    if metadata.precision in LIMITS:
        check(seen, LIMITS[metadata.precision], str(out))
    return seen


def place(part: Path, out: Path) -> None:
    """Move the finished file to its name; an OpenVINO model has a second one beside it."""
    pairs = [(part.with_suffix('.bin'), out.with_suffix('.bin'))] if part.suffix == '.xml' else []
    for source, target in [*pairs, (part, out)]:
        with atomic_write(target) as written:
            shutil.move(source, written)
