"""Every change to code that is not ours: one function each, with its reason.

Works with OpenMMLab's packages and with the onedl forks, with mmcv with or without compiled operators, and with
torch 2.4 or newer. `tests/mm/test_patches.py` has a test for each that fails when upstream no longer needs it.
"""
import logging
import pickle
import re
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from ..errors import UserError
from . import operators, panoptic
from .environment import installed

# import name: (registry of that package, our module that adds to it when that registry is first used)
SUBCLASSES = {
    'mmdet': [
        ('DATASETS', 'convnext_dense.datasets.coco'),
        ('DATASETS', 'convnext_dense.datasets.shapes_det'),
        ('METRICS', 'convnext_dense.evaluation.coco_metric'),
        ('MODELS', 'convnext_dense.detection.data_preprocessor'),
        ('MODELS', 'convnext_dense.detection.float32_heads'),
        ('MODELS', 'convnext_dense.detection.roi_extractor'),
        ('MODELS', 'convnext_dense.detection.static_roi'),
        ('MODELS', 'convnext_dense.detection.static_rpn'),
        ('MODELS', 'convnext_dense.inference.det_tta'),
        ('MODELS', 'convnext_dense.mm.ssd'),
        ('TRANSFORMS', 'convnext_dense.datasets.transforms.det'),
        ('TRANSFORMS', 'convnext_dense.datasets.transforms.loading'),
    ],
    'mmseg': [
        ('DATASETS', 'convnext_dense.datasets.shapes_seg'),
        ('METRICS', 'convnext_dense.evaluation.iou_metric'),
        ('MODELS', 'convnext_dense.segmentation.data_preprocessor'),
        ('MODELS', 'convnext_dense.segmentation.encoder_decoder'),
        ('MODELS', 'convnext_dense.segmentation.float32_loss'),
        ('MODELS', 'convnext_dense.segmentation.linear_head'),
        ('MODELS', 'convnext_dense.segmentation.uper_head'),
        ('TRANSFORMS', 'convnext_dense.datasets.transforms.loading'),
        ('TRANSFORMS', 'convnext_dense.datasets.transforms.seg'),
    ],
}
_applied: set[str] = set()


def before_mm_imports() -> None:
    """What must happen before mmcv.ops, mmdet or mmseg are imported. Without mmengine there is nothing to do."""
    if not _first('before_mm_imports'):
        return
    operators.install()
    panoptic.install()
    disable_broken_mmpretrain()
    allow_own_checkpoints()
    register_subclasses()
    leave_out_notes()


def _first(name: str) -> bool:
    """Whether mmengine is there and the patch ``name`` has not been applied to this process."""
    if name in _applied or not installed('mmengine'):
        return False
    _applied.add(name)
    return True


def leave_out_notes() -> None:
    """Do not show what mmseg warns of at every start, whatever the config: how its own classes call each other."""
    for start in ('``build_loss`` would be deprecated', 'Default ``avg_non_ignore`` is False', 'The draw is False',
                  '`reduce_zero_label` will be deprecated'):
        warnings.filterwarnings('ignore', message=re.escape(start), category=UserWarning, module='mmseg')


def compute_on_cpu() -> None:
    """Have mmengine use the CPU although there is a GPU: it decides once, when it is imported."""
    import mmengine.device.utils as device_utils
    device_utils.DEVICE = 'cpu'


def disable_broken_mmpretrain() -> None:
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


def allow_own_checkpoints() -> None:
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


def resolve_configs(own_prefix: str, find_config: Callable[[str], Path]) -> None:
    """Let `convnext_dense::det/...` work as a `_base_`.

    mmengine looks only into a closed list of packages, finds them through pkg_resources, which setuptools 81 removed,
    and misses editable installs.

    Args:
        own_prefix: what such a base begins with.
        find_config: returns the file of such a base.
    """
    if not _first('resolve_configs'):
        return
    from mmengine.config import Config
    stock = Config._get_cfg_path

    def get_cfg_path(cfg_path, filename):
        if cfg_path.startswith(own_prefix):
            return str(find_config(cfg_path)), None  # None: types keep the scope of the config that inherits them
        return stock(cfg_path, filename)

    Config._get_cfg_path = staticmethod(get_cfg_path)


def escape_dumped_configs() -> None:
    """Have a config that mmengine dumps read back as it was, whatever its strings hold.

    `Config.fromfile` replaces `{{$NAME:default}}` and the like anywhere in a file's text, with what may then be code,
    and `Config.dump` writes strings as they are: a class name could so run code when a run's config is read again.
    """
    if not _first('escape_dumped_configs'):
        return
    from mmengine.config import Config
    stock = Config.pretty_text.fget
    Config.pretty_text = property(lambda self: stock(self).replace('{{', r'\x7b\x7b'))  # it has them in strings only


def read_data_anywhere() -> None:
    """Have mmengine read data from tar shards and from the URLs of `utils.storage`, with retries and a cache.

    Its own backends read local files, https without retries, and s3 with a package that is not public; the latter two
    remain under the names ``http`` and ``petrel`` (``backend_args``). Without aiohttp, http and https stay as they are.
    """
    if not _first('read_data_anywhere'):
        return
    from mmengine.fileio import register_backend

    from ..utils.storage import SCHEMES
    from .data_backend import DiskBackend, RemoteBackend
    remote = [scheme for scheme, package in SCHEMES.items() if package != 'aiohttp' or installed(package)]
    register_backend('data', RemoteBackend, force=True, prefixes=remote)
    register_backend('disk', DiskBackend, force=True, prefixes='')


def register_subclasses() -> None:
    """Have mmdet's and mmseg's registries import our subclasses of their classes when first used, not before.

    `import convnext_dense` then stays quick, works without mmdet and mmseg, and is all that a config needs.
    """
    for package, entries in SUBCLASSES.items():
        if not installed(package):
            continue
        try:
            registries = import_module(f'{package}.registry')
        except Exception as error:  # whatever a broken installation raises; `require` reports it when it is needed
            _log(f'{package} is installed but cannot be imported ({type(error).__name__}: {error})', logging.WARNING)
            continue
        for name, module in entries:
            getattr(registries, name)._locations.append(module)


def stand_in_for_mmpretrain(backbone: type) -> None:
    """Where mmpretrain is absent, let stock configs that ask for its ConvNeXt have ours.

    mmdet's and mmseg's ConvNeXt configs say ``type='mmpretrain.ConvNeXt'`` and import mmpretrain in
    ``custom_imports``, which fails without it. Our backbone takes the same arguments and weights.

    Args:
        backbone: the class that the name is to mean.
    """
    if installed('mmpretrain') or not _first('stand_in_for_mmpretrain'):
        return
    import mmengine.config.config
    from mmengine.registry import MODELS, Registry
    Registry('model', parent=MODELS, scope='mmpretrain', locations=[backbone.__module__]).register_module(
        name=backbone.__name__, module=backbone)
    stock = mmengine.config.config.import_modules_from_strings

    def import_modules(imports, *args, **kwargs):
        names = [imports] if isinstance(imports, str) else imports
        if isinstance(names, list):
            left = [name for name in names if str(name).split('.')[0] != 'mmpretrain']
            if len(left) < len(names):
                _log('mmpretrain is not installed: of its models there is only ConvNeXt, which is ours')
            imports = left
        return stock(imports, *args, **kwargs)

    mmengine.config.config.import_modules_from_strings = import_modules


def share_samples_with_rpn(losses: Callable) -> None:
    """Have mmdet's two-stage detectors compute all losses at once where their RPN head ``reads_no_labels``.

    mmdet copies the samples deeply, masks of every object included, to set the copy's labels to 0.

    Args:
        losses: from a detector, its images and their data samples.
    """
    if not _first('share_samples_with_rpn'):
        return
    from mmdet.models.detectors import TwoStageDetector
    stock = TwoStageDetector.loss

    def loss(self, batch_inputs, batch_data_samples):
        static = getattr(getattr(self, 'rpn_head', None), 'reads_no_labels', False)
        return (losses if static else stock)(self, batch_inputs, batch_data_samples)

    TwoStageDetector.loss = loss


def load_safely(read_checkpoint: Callable) -> None:
    """Have mmengine's CheckpointLoader read local files, URLs and its own model tables with ``read_checkpoint``.

    Covers stock Runners, resuming, ``init_detector`` and the like, whatever default of ``weights_only`` the installed
    mmengine and torch have: torch 2.4 and 2.5 default to unsafe, and onedl-mmengine retries unsafely.
    """
    if not _first('load_safely'):
        return
    from mmengine.runner.checkpoint import (
        CheckpointLoader,
        _process_mmcls_checkpoint,
        get_deprecated_model_names,
        get_external_models,
        get_mmcls_models,
        get_torchvision_models,
    )

    def load_from_file_or_url(filename, map_location=None):
        return read_checkpoint(filename, map_location)

    def load_from_mmengine_table(filename, map_location=None):
        scheme, _, name = filename.partition('://')
        if scheme in ('open-mmlab', 'openmmlab'):
            table = get_external_models()
            name = get_deprecated_model_names().get(name, name)
        else:
            table = get_mmcls_models() if scheme == 'mmcls' else get_torchvision_models()
        if name not in table:
            raise UserError(f'{filename}: mmengine\'s table of {scheme} weights has no {name}')
        checkpoint = read_checkpoint(table[name], map_location)
        return _process_mmcls_checkpoint(checkpoint) if scheme == 'mmcls' else checkpoint

    CheckpointLoader.register_scheme(['', 'http://', 'https://'], load_from_file_or_url, force=True)
    CheckpointLoader.register_scheme(
        ['modelzoo://', 'torchvision://', 'open-mmlab://', 'openmmlab://', 'mmcls://'], load_from_mmengine_table,
        force=True)


def load_strictly(has_our_backbone: Callable, load_in_runner: Callable) -> None:
    """Have any Runner, stock ones included, fill a model that has our backbone completely or not at all.

    mmengine loads with ``strict=False`` and logs what did not fit; applies to ``load_from``, testing and resuming.
    """
    if not _first('load_strictly'):
        return
    from mmengine.runner import Runner
    stock = Runner.load_checkpoint

    def load_checkpoint(self, filename, map_location='cpu', *args, **kwargs):
        if has_our_backbone(self.model):
            return load_in_runner(self, filename, map_location)
        return stock(self, filename, map_location, *args, **kwargs)

    Runner.load_checkpoint = load_checkpoint


def _log(message: str, level: int = logging.INFO) -> None:
    from mmengine.logging import print_log
    print_log(message, logger='current', level=level)
