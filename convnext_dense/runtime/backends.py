"""One class per format of exported files: open it, read its metadata, run it on a batch."""
import os
from collections.abc import Callable
from importlib import import_module, util
from pathlib import Path

import numpy as np

from ..errors import UserError, few, first_line
from .metadata import KEY, Metadata, read_metadata

SUFFIXES = {'.onnx': 'onnx', '.xml': 'openvino', '.pt2': 'torch'}


class OnnxBackend:
    """An ONNX file in onnxruntime.

    Args:
        device: 'auto' (CUDA where onnxruntime has it), 'cpu', 'cuda', or an execution provider's name.
        threads: of the CPU; None: as many as cores.
    """

    def __init__(self, file: str, device: str, threads: int | None):
        onnxruntime = needed('onnxruntime', file)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3
        available = onnxruntime.get_available_providers()
        provider = {'cpu': 'CPUExecutionProvider', 'cuda': 'CUDAExecutionProvider'}.get(device, device)
        if device == 'auto':
            provider = 'CUDAExecutionProvider' if 'CUDAExecutionProvider' in available else 'CPUExecutionProvider'
        if provider not in available:
            raise UserError(f"device '{device}': this onnxruntime has no {provider}: use 'cpu', or install a build "
                            f'that has it; there is {few(available)}')
        self.session = opened(file, lambda: onnxruntime.InferenceSession(
            file, options, providers=list(dict.fromkeys([provider, 'CPUExecutionProvider']))))
        self.metadata: Metadata = read_metadata(self.session.get_modelmeta().custom_metadata_map.get(KEY), file)
        self.input = self.session.get_inputs()[0].name

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """Outputs of the graph for uint8 images (N, 3, H, W)."""
        return self.session.run(None, {self.input: images})


class OpenVinoBackend:
    """An OpenVINO model, FILE.xml with FILE.bin beside it.

    Args:
        device: 'auto' and 'cpu' are OpenVINO's CPU; else one of its devices, as 'GPU'.
        threads: of the CPU; None: as OpenVINO chooses.
    """

    def __init__(self, file: str, device: str, threads: int | None):
        openvino = needed('openvino', file)
        core = openvino.Core()
        device = 'CPU' if device == 'auto' else device.upper()
        if device not in core.available_devices:
            raise UserError(f"device '{device}': OpenVINO sees none here: use 'cpu'; there is "
                            f'{few(core.available_devices)}')
        model = opened(file, lambda: core.read_model(file))
        info = model.get_rt_info([KEY]).astype(str) if model.has_rt_info([KEY]) else None
        self.metadata: Metadata = read_metadata(info, file)
        # without the hint OpenVINO may compute in bfloat16 where the CPU has it
        settings = dict(PERFORMANCE_HINT='LATENCY', INFERENCE_PRECISION_HINT='f32') if device == 'CPU' else {}
        if threads and device == 'CPU':
            settings['INFERENCE_NUM_THREADS'] = threads
        self.model = opened(file, lambda: core.compile_model(model, device, settings))

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """Outputs of the graph for uint8 images (N, 3, H, W)."""
        found = self.model([images])
        return [np.array(found[output]) for output in self.model.outputs]


class TorchBackend:
    """A program of torch.export; needs torch and torchvision, and no MM package.

    Args:
        device: 'auto' (a GPU where there is one), 'cpu' or 'cuda'.
        threads: of torch; None: as they are.
    """

    def __init__(self, file: str, device: str, threads: int | None):
        torch = needed('torch', file)
        needed('torchvision', file)
        import_module('convnext_dense.detection.boxes')  # registers the operator that a detector's graph has
        if device == 'auto':
            device = 'cuda' if torch.cuda.is_available() else 'cpu'
        if device.startswith('cuda') and not torch.cuda.is_available():
            raise UserError(f"device '{device}' was asked for, but torch sees no GPU: use 'cpu'")
        if threads:
            torch.set_num_threads(threads)
        extra = {f'{KEY}.json': ''}
        program = opened(file, lambda: torch.export.load(file, extra_files=extra))
        text = extra[f'{KEY}.json']
        self.metadata: Metadata = read_metadata(text.decode() if isinstance(text, bytes) else text, file)
        self.module, self.torch, self.device = program.module().to(device), torch, device

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """Outputs of the graph for uint8 images (N, 3, H, W)."""
        with self.torch.no_grad():
            try:
                outputs = self.module(self.torch.from_numpy(images).to(self.device))
            except AssertionError as error:  # a guard of the program
                raise UserError(f'the exported program does not take {len(images)} images of {images.shape[3]}x'
                                f'{images.shape[2]} pixels ({first_line(error)}): programs of any size take 65 pixels '
                                'or more a side') from error
            return [found.cpu().numpy() for found in outputs]


BACKENDS = {'onnx': OnnxBackend, 'openvino': OpenVinoBackend, 'torch': TorchBackend}


def open_model(file: str | os.PathLike, device: str = 'auto', threads: int | None = None):
    """The backend of a file, by its suffix.

    Raises:
        UserError: no such file, another suffix, a damaged file, a package or device that is not there.
    """
    file = os.fspath(file)
    kind = SUFFIXES.get(Path(file).suffix.lower())
    if kind is None:
        raise UserError(f'{file} is no exported model: expected a name that ends in {", ".join(SUFFIXES)}')
    if not Path(file).is_file():
        raise UserError(f'exported model {file}: no such file')
    return BACKENDS[kind](file, device, threads)


def is_exported(file: str | os.PathLike) -> bool:
    """Whether a name is that of an exported model, by its suffix."""
    return Path(file).suffix.lower() in SUFFIXES


def needed(package: str, file: str):
    """An imported package; raises UserError where it is not installed."""
    if util.find_spec(package) is None:
        raise UserError(f'{package} is not installed, and {file} needs it: pip install {package}')
    return import_module(package)


def opened(file: str, open_it: Callable):
    """What a runtime's own function returns; its errors become one sentence."""
    try:
        return open_it()
    except UserError:
        raise
    except Exception as error:  # every runtime has exceptions of its own for damaged files
        raise UserError(f'{file} cannot be opened ({first_line(error)}): it is damaged or incomplete, or needs a newer '
                        'version of the runtime; export the model again') from error
