"""What is installed: packages, their versions, and what to say when one is missing.

Two distributions own the names mmengine, mmcv, mmdet and mmseg: OpenMMLab's and the maintained onedl forks. Nothing
outside this package (`convnext_dense.mm`) depends on which one is installed.
"""
import importlib.util
import os
import sys
from importlib import import_module, metadata

from ..errors import UserError

PROCESS_VARIABLES = {'pytorch': 'WORLD_SIZE', 'slurm': 'SLURM_NTASKS', 'mpi': 'OMPI_COMM_WORLD_SIZE'}
RANK_VARIABLES = {'pytorch': 'RANK', 'slurm': 'SLURM_PROCID', 'mpi': 'OMPI_COMM_WORLD_RANK'}
INSTALL_HINT = "pip install 'convnext-dense[openmmlab]'"


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
             'onedl-mmsegmentation', 'onnx', 'onnxruntime', 'openvino')
    found = {'python': '.'.join(map(str, sys.version_info[:3]))}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def launched_rank(launcher: str) -> int:
    """Rank of this process among those that ``launcher`` started, by its environment; 0 without a launcher."""
    return int(os.environ.get(RANK_VARIABLES.get(launcher, ''), 0))


def launched_processes(launcher: str) -> int:
    """Number of processes that ``launcher`` started, by the environment; 1 without a launcher."""
    return int(os.environ.get(PROCESS_VARIABLES.get(launcher, ''), 1))
