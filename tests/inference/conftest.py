"""Random weights for the tiny configs, and images to predict."""
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from mmengine.registry import MODELS, DefaultScope  # noqa: E402
from tool_runs import CONFIGS  # noqa: E402

from convnext_dense.config import load_config  # noqa: E402


def random_checkpoint(cfg, file: Path, seed: int = 0) -> Path:
    """Weights for a config's model, spread widely enough that classes, boxes and masks differ from place to place."""
    torch.manual_seed(seed)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    model.init_weights()
    state = model.state_dict()
    for name, tensor in state.items():
        if name.endswith(('fc_cls.weight', 'fc_reg.weight', 'conv_logits.weight', 'conv_seg.weight', 'rpn_reg.weight',
                          'rpn_cls.weight')):
            state[name] = 0.3 * torch.randn_like(tensor)
    torch.save({'state_dict': state, 'meta': {}}, file)
    return file


@pytest.fixture(scope='session')
def tiny() -> dict[str, Path]:
    """task -> the tests' smallest config."""
    return CONFIGS


@pytest.fixture(scope='session')
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    """task -> random weights of the tiny config."""
    folder = tmp_path_factory.mktemp('weights')
    return {task: random_checkpoint(load_config(str(config)), folder / f'{task}.pth')
            for task, config in CONFIGS.items()}


@pytest.fixture(scope='session')
def images(tmp_path_factory) -> list[Path]:
    """PNG files (no loss) of blurred noise: three of 64x64 pixels, one of 48x80."""
    folder, random = tmp_path_factory.mktemp('images'), np.random.default_rng(0)
    files = []
    for index, (height, width) in enumerate([(64, 64), (48, 80), (64, 64), (64, 64)]):
        noise = cv2.GaussianBlur(random.integers(0, 256, (height, width, 3), np.uint8), (0, 0), 2).astype(float)
        image = 255 * (noise - noise.min()) / (noise.max() - noise.min())
        files.append(folder / f'{index}.png')
        cv2.imwrite(str(files[-1]), image.astype(np.uint8))
    return files


@pytest.fixture(scope='session')
def shapes(make_shapes) -> Path:
    """Two training and three validation images of 64 pixels, as coco/ and ade/."""
    return make_shapes(train=2, val=3)
