"""Static quantisation of an ONNX file to int8 by onnxruntime's own quantiser."""
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..runtime import Predictor
from ..runtime.backends import needed
from ..runtime.metadata import KEY, Metadata
from ..utils.quiet import quiet

# What computes in int8: convolutions and matrix products with constant weights. Normalisation, activations, box
# decoding, suppression and pooling stay in float32, and so do the layers that give scores and box deltas.
QUANTISED = ('Conv', 'MatMul', 'Gemm')
FLOAT_LAYERS = ('conv_seg.weight', 'fc_cls.weight', 'fc_reg.weight', 'rpn_cls.weight', 'rpn_reg.weight',
                'conv_logits.weight')


def quantize(file: Path, images: Sequence[Path], metadata: Metadata) -> None:
    """Quantise an ONNX file in place.

    Activations become uint8, by the lowest and highest values seen in the images, and weights int8 with a scale per
    output channel, in QDQ format, which onnxruntime and OpenVINO read.

    Args:
        file: written in float32 by `formats.write`.
        images: calibration images.
        metadata: of the quantised file.
    """
    onnx = needed('onnx', '--precision int8')
    needed('onnxruntime', '--precision int8')
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process
    with tempfile.TemporaryDirectory() as folder:
        prepared, quantised = Path(folder, 'prepared.onnx'), Path(folder, 'quantised.onnx')
        with quiet():  # the quantiser writes hints to the root logger
            quant_pre_process(file, prepared, skip_symbolic_shape=True)
            quantization.quantize_static(
                prepared, quantised, calibration_reader(file, images), quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
                per_channel=True, op_types_to_quantize=list(QUANTISED),
                nodes_to_quantize=quantised_nodes(onnx.load(prepared).graph))
        model = onnx.load(quantised)
        del model.metadata_props[:]
        model.metadata_props.add(key=KEY, value=metadata.to_json())
        onnx.save(model, file)


def quantised_nodes(graph) -> list[str]:
    """Names of the nodes of an ONNX graph that compute in int8."""
    constants = {tensor.name for tensor in graph.initializer}
    return [node.name for node in graph.node if node.op_type in QUANTISED and node.input[1] in constants
            and not node.input[1].endswith(FLOAT_LAYERS)]


def calibration_reader(file: Path, images: Sequence[Path]):
    """onnxruntime's CalibrationDataReader of image files, each resized as the file's metadata says."""
    from onnxruntime.quantization import CalibrationDataReader
    predictor = Predictor(file, device='cpu')

    def batches() -> Iterator[dict[str, np.ndarray]]:
        for image in images:
            inputs = predictor.load(image).inputs[None]
            yield {predictor.backend.input: np.repeat(inputs, predictor.metadata.batch or 1, 0)}

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.batches = batches()

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    return Reader()
