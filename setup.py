"""Packaging of convnext_dense; tool settings are in pyproject.toml.

configs/ and tools/ live at the top of the repository and travel inside the package as
``convnext_dense/.mim/`` (the convention by which mmengine resolves ``convnext_dense::det/...``).
"""
import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
VERSION = re.search(r"__version__ = '(.+)'", (ROOT / 'convnext_dense/version.py').read_text())[1]


class BuildWithConfigsAndTools(build_py):
    """Copy configs/ and tools/ into the built package's .mim folder."""

    def run(self):
        super().run()
        if getattr(self, 'editable_mode', False):
            return  # a development install reads configs/ and tools/ from the repository itself (locations.py)
        for folder in ('configs', 'tools'):
            target = Path(self.build_lib) / 'convnext_dense/.mim' / folder
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(ROOT / folder, target, ignore=shutil.ignore_patterns('__pycache__'))


# What the MM packages import without declaring it: mmsegmentation needs ftfy and regex, mmengine 0.10.7
# needs pkg_resources for every `package::` base, which setuptools 81 removed.
UNDECLARED = ['ftfy', 'regex', 'setuptools<81']
# Backbones, checkpoints, evaluation. Not required by the package itself: its runtime for exported models does without.
TORCH = ['torch>=2.4', 'torchvision>=0.19', 'faster-coco-eval>=1.6', 'safetensors>=0.4', 'pyyaml>=6', 'filelock>=3.10',
         'fsspec>=2023.5']
EXPORT = ['onnx>=1.16', 'onnxscript>=0.3', 'onnxruntime>=1.18']

setup(
    name='convnext-dense',
    version=VERSION,
    description='ConvNeXt for detection and segmentation: backbones, recipes, checkpoints and exact evaluation',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['convnext_dense', 'convnext_dense.*']),
    package_data={'convnext_dense': ['py.typed', 'benchmark/*.cpp']},
    install_requires=[
        'numpy>=1.26',
        'opencv-python>=4.8',
        'pycocotools>=2.0.7',
        'matplotlib>=3.7',
        'pillow>=9',
        'tqdm>=4.60',
    ],
    extras_require={
        'torch': TORCH,
        'openmmlab': [*TORCH, 'mmengine==0.10.7', 'mmcv-lite==2.1.0', 'mmdet==3.3.0', 'mmsegmentation==1.2.2',
                      *UNDECLARED],
        'onedl': [*TORCH, 'onedl-mmengine>=0.10.12', 'onedl-mmcv>=2.3.6', 'onedl-mmdetection>=3.5.1',
                  'onedl-mmsegmentation>=1.4.2', *UNDECLARED],
        'hub': ['huggingface_hub>=0.23'],  # for hf-hub: checkpoints
        's3': ['s3fs>=2023.5'],  # data behind s3:// (docs/scaling.md)
        'docs': ['mkdocs-material>=9.5', 'mkdocstrings[python]>=0.26'],
        'export': EXPORT,
        'runtime': ['onnxruntime>=1.18'],  # exported models (docs/deploy.md), without torch
        'openvino': ['openvino>=2024.4'],
        # what the tests of s3:// need; half a minute, so not in 'test'
        'test-s3': ['s3fs>=2023.5', 'moto[s3]>=5', 'flask>=3', 'flask-cors>=4'],
        'test': [*EXPORT, 'openvino>=2024.4', 'pytest>=8', 'pytest-xdist>=3', 'ruff==0.17.5', 'import-linter>=2.5',
                 'wheel', 'timm>=1.0', 'transformers>=4.56', 'tidecv>=1.0.1', 'supervision>=0.25',
                 'nbclient>=0.10', 'ipykernel>=6'],
    },
    entry_points={'console_scripts': ['convnext-dense=convnext_dense.cli:main']},
    cmdclass={'build_py': BuildWithConfigsAndTools},
    classifiers=[
        'License :: OSI Approved :: Apache Software License',
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
)
