"""Writing a graph in each format, its metadata inside."""
import math
import os
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..runtime.backends import SUFFIXES, needed
from ..runtime.metadata import KEY, Metadata
from ..utils.files import check_writable
from ..utils.quiet import quiet

OPSETS = range(18, 22)  # RoiAlign's half-pixel mode is of 16; TensorRT 10 takes up to 22
INPUT = 'images'
BOOL = 9  # onnx.TensorProto.BOOL


def write(graph: nn.Module, images: Tensor, metadata: Metadata, file: Path) -> None:
    """Write a graph to a file, in the format of its suffix.

    Args:
        graph: takes ``images``; has `output_names`.
        images: an example, uint8 (N, 3, H, W). Where the metadata says no size, height and width may be others
            later; where it says no batch, the number of images.
    """
    dynamic = {axis: torch.export.Dim.DYNAMIC for axis, free in ((0, metadata.batch is None),
                                                                 (2, metadata.size is None),
                                                                 (3, metadata.size is None)) if free}
    with torch.no_grad(), quiet():
        WRITERS[SUFFIXES[file.suffix]](graph, images, {INPUT: dynamic or None}, metadata, file)


def write_torch(graph: nn.Module, images: Tensor, dynamic: dict, metadata: Metadata, file: Path) -> None:
    """A program of torch.export with JSON beside it in the archive."""
    program = torch.export.export(graph, (images,), dynamic_shapes=dynamic, strict=False)
    torch.export.save(program, file, extra_files={f'{KEY}.json': metadata.to_json()})


def write_onnx(graph: nn.Module, images: Tensor, dynamic: dict, metadata: Metadata, file: Path) -> None:
    """An ONNX file of standard operators, weights inside."""
    for package in ('onnx', 'onnxscript'):
        needed(package, f'export to {file.suffix}')
    translations = {torch.ops.aten.floor_divide.default: floor_divide, torch.ops.aten.remainder.Scalar: remainder,
                    torch.ops.aten.remainder.Tensor: remainder, torch.ops.aten.gelu.default: gelu}
    if metadata.task == 'det':
        translations[torch.ops.convnext_dense.nms_mask.default] = nms_mask
    program = torch.onnx.export(
        graph, (images,), dynamo=True, opset_version=metadata.opset, dynamic_shapes=dynamic, input_names=[INPUT],
        output_names=list(graph.output_names), optimize=True, verbose=False, custom_translation_table=translations)
    program.model.metadata_props[KEY] = metadata.to_json()
    program.save(file, external_data=False)


def write_openvino(graph: nn.Module, images: Tensor, dynamic: dict, metadata: Metadata, file: Path) -> None:
    """OpenVINO's FILE.xml and FILE.bin, converted from an ONNX file."""
    needed('openvino', f'export to {file.suffix}')
    between = file.with_suffix('.onnx')
    try:
        write_onnx(graph, images, dynamic, metadata, between)
        convert_openvino(between, metadata, file)
    finally:
        between.unlink(missing_ok=True)


def convert_openvino(source: Path, metadata: Metadata, file: Path) -> None:
    """Write an ONNX file as an OpenVINO model, metadata inside."""
    openvino = needed('openvino', f'export to {file.suffix}')
    model = openvino.convert_model(source)
    model.set_rt_info(metadata.to_json(), [KEY])
    openvino.save_model(model, file, compress_to_fp16=metadata.precision == 'float16')


def nms_mask(boxes, scores, iou_threshold: float):
    """The operator `detection.boxes.nms_mask` in ONNX: NonMaxSuppression, and its choice as a mask."""
    from onnxscript import opset18 as op
    picked = op.NonMaxSuppression(boxes, op.Unsqueeze(scores, [1]), op.Constant(value_int=2 ** 31 - 1),
                                  op.Constant(value_float=iou_threshold))
    places = op.Concat(op.Slice(picked, [0], [1], [1]), op.Slice(picked, [2], [3], [1]), axis=1)
    ones = op.Expand(op.Constant(value_float=1.0), op.Slice(op.Shape(picked), [0], [1]))
    zeros = op.Expand(op.Constant(value_float=0.0), op.Shape(scores))
    return op.Cast(op.ScatterND(zeros, places, ones), to=BOOL)


def floor_divide(dividend, divisor):
    """``//`` of the graphs, whose integers are never negative: the exporter's own has Mod, which TensorRT lacks."""
    from onnxscript import opset18 as op
    return op.Div(dividend, divisor)


def remainder(dividend, divisor):
    """``%`` of the graphs, as `floor_divide`."""
    from onnxscript import opset18 as op
    return op.Sub(dividend, op.Mul(op.Div(dividend, divisor), divisor))


def gelu(x, approximate: str = 'none'):
    """Exact GELU in the order of operators in which onnxruntime finds it, and computes it and the bias in one pass."""
    from onnxscript import opset18 as op
    root = op.CastLike(op.Constant(value_float=math.sqrt(2)), x)
    erf = op.Erf(op.Div(x, root))
    one, half = op.CastLike(op.Constant(value_float=1.0), x), op.CastLike(op.Constant(value_float=0.5), x)
    return op.Mul(op.Mul(x, op.Add(erf, one)), half)


WRITERS = {'torch': write_torch, 'onnx': write_onnx, 'openvino': write_openvino}


def suffix_of(kind: str) -> str:
    """The suffix of a format: 'onnx', 'torch' or 'openvino'."""
    return next(suffix for suffix, name in SUFFIXES.items() if name == kind)


def check_name(out: str | os.PathLike, kind: str) -> Path:
    """The file to write.

    Raises:
        UserError: its suffix is not the format's, it is a folder, or nothing can be written there.
    """
    out = Path(out)
    if out.suffix != suffix_of(kind):
        raise UserError(f'--out {out}: expected a name that ends in {suffix_of(kind)} with --to {kind}')
    if out.is_dir():
        raise UserError(f'--out {out} is a folder: expected the name of a file to write, as '
                        f'{out / ("model" + out.suffix)}')
    check_writable(out)
    return out
