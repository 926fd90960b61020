"""The only module that looks at versions of torch or the MM packages, or patches anything in them.

Two distributions own the names mmengine, mmcv, mmdet and mmseg: OpenMMLab's and the maintained onedl forks.
Everything here works with either, with mmcv with or without compiled operators, and with torch 2.4 or newer.
"""
import importlib.util
import logging
import os
import pickle
import sys
from collections.abc import Callable
from importlib import import_module, metadata

from .errors import UserError

INSTALL_HINT = "pip install 'convnext-dense[openmmlab]'"

_prepared = False


def prepare() -> None:
    """Make the installed MM stack usable; called once by ``import convnext_dense``, harmless when called again.

    Must run before mmcv.ops, mmdet or mmseg are imported. Without mmengine there is nothing to prepare.
    """
    global _prepared
    if _prepared or not installed('mmengine'):
        return
    from . import ops
    ops.install()
    _disable_broken_mmpretrain()
    _allow_own_checkpoints()
    _amp_without_gpu()
    _keep_checkpoints_until_written()
    _resolve_own_configs()
    _register_lazily()
    _load_safely_and_strictly()
    _prepared = True


def installed(package: str) -> bool:
    """Whether ``package`` (an import name) can be found, without importing it."""
    if sys.modules.get(package, True) is None:
        return False
    return importlib.util.find_spec(package) is not None


def require(*packages: str) -> None:
    """Raise unless every import name in ``packages`` can be imported.

    Raises:
        UserError: names the package, why its import fails, and the command that helps.
    """
    for package in packages:
        if not installed(package):
            raise UserError(f'{package} is not installed, and this needs it: {INSTALL_HINT}')
        try:
            import_module(package)
        except Exception as error:  # whatever a third-party package raises on import is the finding itself
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f'{package} is installed but its import fails ({type(error).__name__}: {reason}): '
                            f'install versions that belong together with {INSTALL_HINT}') from error


def versions() -> dict[str, str]:
    """Installed versions of what results depend on, distribution name -> version."""
    names = ('torch', 'torchvision', 'numpy', 'opencv-python', 'pycocotools', 'faster-coco-eval', 'mmengine',
             'mmcv-lite', 'mmcv', 'mmdet', 'mmsegmentation', 'onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection',
             'onedl-mmsegmentation')
    found = {'python': '.'.join(map(str, sys.version_info[:3]))}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def use_device(device: str) -> None:
    """Choose where everything runs: 'auto' (a GPU where there is one), 'cuda' or 'cpu'.

    Raises:
        UserError: 'cuda' was asked for and torch sees no GPU.
    """
    import torch
    if device == 'cuda' and not torch.cuda.is_available():
        raise UserError('--device cuda was asked for, but torch sees no GPU: '
                        'use --device cpu, or check the driver with nvidia-smi and that torch is a CUDA build')
    if device == 'cpu' or not torch.cuda.is_available():
        # Adam's moments of small gradients are denormal numbers, on which CPUs crawl: 18 s in the place of 3 s an
        # iteration were seen. Set before torch starts its threads, which inherit it.
        torch.set_flush_denormal(True)
    if device == 'cpu':
        os.environ['CUDA_VISIBLE_DEVICES'] = '-1'
        # mmengine decides once, when it is imported
        import mmengine.device.utils as device_utils
        device_utils.DEVICE = 'cpu'
        _amp_without_gpu()


def _disable_broken_mmpretrain() -> None:
    """Let mmdet's optional import of mmpretrain fail the way mmdet expects.

    mmpretrain 1.2 dies with a TypeError under transformers 5, and `import mmdet.models` dies with it; a None in
    sys.modules turns that into the ImportError which mmdet catches.
    """
    if not installed('mmpretrain') or 'mmpretrain' in sys.modules:
        return
    try:
        import_module('mmpretrain.models')
    except Exception as error:  # any failure means the same: mmdet must not see it
        for name in [name for name in sys.modules if name.split('.')[0] == 'mmpretrain']:
            del sys.modules[name]
        sys.modules['mmpretrain'] = None
        _log(f'mmpretrain cannot be imported here ({type(error).__name__}); it is treated as not installed',
             logging.WARNING)


def _allow_own_checkpoints() -> None:
    """Let ``torch.load(weights_only=True)`` read what mmengine itself writes into its checkpoints.

    The message hub holds HistoryBuffers: numpy arrays, and references to HistoryBuffer's own methods, which pickle
    spells ``getattr(HistoryBuffer, 'mean')``. Nothing on this list runs code from the file.
    """
    import numpy as np
    import torch
    from mmengine.logging.history_buffer import HistoryBuffer

    def history_buffer_method(owner, name):
        """All that `getattr` means in a checkpoint: one of HistoryBuffer's statistics."""
        if owner is not HistoryBuffer or name not in ('min', 'max', 'mean', 'current'):
            raise pickle.UnpicklingError(f'WeightsUnpickler error: Unsupported GLOBAL builtins.getattr of {name!r}')
        return getattr(HistoryBuffer, name)

    def encoded(text, encoding):
        """Pickle's protocol 2 writes bytes as text; torch 2.4 does not allow that by itself."""
        return text.encode('latin1' if encoding == 'latin1' else 'ascii')

    multiarray = import_module('numpy._core.multiarray' if np.lib.NumpyVersion(np.__version__) >= '2.0.0'
                               else 'numpy.core.multiarray')
    dtypes = {type(np.dtype(name)) for name in ('float64', 'float32', 'int64', 'int32', 'uint8', 'bool')}
    allowed = [HistoryBuffer, np.ndarray, np.dtype, *dtypes, _named(history_buffer_method, 'builtins.getattr'),
               _named(encoded, '_codecs.encode')]
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):  # as the numpy that wrote the file spells it
        allowed.append(_named(lambda *args: multiarray._reconstruct(*args), f'{module}._reconstruct'))
        allowed.append(_named(lambda *args: multiarray.scalar(*args), f'{module}.scalar'))
    torch.serialization.add_safe_globals(allowed)


def _named(function: Callable, path: str) -> Callable:
    """``function`` under the name ``path``, by which torch looks up what a pickle asks for (torch 2.4 included)."""
    function.__module__, _, function.__name__ = path.rpartition('.')
    function.__qualname__ = function.__name__
    return function


def _amp_without_gpu() -> None:
    """Where there is no GPU, build AmpOptimWrapper as one that works there."""
    from mmengine.device import get_device
    from mmengine.registry import OPTIM_WRAPPERS
    if get_device() == 'cpu':
        from .optim.amp import CpuAmpOptimWrapper
        OPTIM_WRAPPERS.register_module(name='AmpOptimWrapper', module=CpuAmpOptimWrapper, force=True)


def _keep_checkpoints_until_written() -> None:
    """Replace mmengine's CheckpointHook, which removes the old file before it writes the new one."""
    from mmengine.registry import HOOKS

    from .hooks import KeepUntilWritten
    HOOKS.register_module(name='CheckpointHook', module=KeepUntilWritten, force=True)


def _resolve_own_configs() -> None:
    """Let `convnext_dense::det/...` work as a `_base_`.

    mmengine looks only into a closed list of packages, finds them through pkg_resources, which setuptools 81 removed,
    and misses editable installs.
    """
    from mmengine.config import Config

    from .config import OWN_PREFIX, find_config
    stock = Config._get_cfg_path

    def get_cfg_path(cfg_path, filename):
        if cfg_path.startswith(OWN_PREFIX):
            return str(find_config(cfg_path)), None  # None: types keep the scope of the config that inherits them
        return stock(cfg_path, filename)

    Config._get_cfg_path = staticmethod(get_cfg_path)


# import name: (registry of that package, our module that adds to it when it is first used)
LAZY_MODULES = {
    'mmdet': [('DATASETS', 'convnext_dense.datasets.shapes_det'), ('METRICS', 'convnext_dense.evaluation.coco_metric'),
              ('MODELS', 'convnext_dense.inference.det_tta')],
    'mmseg': [('DATASETS', 'convnext_dense.datasets.shapes_seg'), ('METRICS', 'convnext_dense.evaluation.iou_metric'),
              ('MODELS', 'convnext_dense.inference.slide')],
}


def _register_lazily() -> None:
    """Have mmdet's and mmseg's registries import our subclasses of their classes when first used, not before.

    `import convnext_dense` then stays quick, works without mmdet and mmseg, and is all that a config needs.
    """
    for package, entries in LAZY_MODULES.items():
        if not installed(package):
            continue
        try:
            registries = import_module(f'{package}.registry')
        except Exception as error:  # whatever a broken installation raises; `require` says it to who needs the package
            _log(f'{package} is installed but cannot be imported ({type(error).__name__}: {error})', logging.WARNING)
            continue
        for name, module in entries:
            getattr(registries, name)._locations.append(module)


def _load_safely_and_strictly() -> None:
    """Send what stock mmengine code loads through `convnext_dense.checkpoints`.

    Every file that its CheckpointLoader reads is read safely; a Runner, stock ones included, whose model has our
    backbone is filled strictly, in ``load_from``, testing and resuming alike.
    """
    from mmengine.runner import Runner

    from .checkpoints import loading
    loading.register_with_mmengine()
    stock = Runner.load_checkpoint

    def load_checkpoint(self, filename, map_location='cpu', *args, **kwargs):
        if loading.has_our_backbone(self.model):
            return loading.load_in_runner(self, filename, map_location)
        return stock(self, filename, map_location, *args, **kwargs)

    Runner.load_checkpoint = load_checkpoint


def _log(message: str, level: int = logging.INFO) -> None:
    from mmengine.logging import print_log
    print_log(message, logger='current', level=level)
