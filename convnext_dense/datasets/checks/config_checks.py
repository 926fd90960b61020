"""Checks of a config that read no data: whether training would start, and whether its normalisation fits."""
from collections.abc import Iterator

import numpy as np
from mmengine.config import Config

from ...config import DATALOADERS
from ...config.preflight import check_config
from ...errors import UserError
from .findings import Findings

# ImageNet's mean and standard deviation, red green blue, as the official ConvNeXt code uses them (times 255).
MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
CLOSE = 1.0  # of 255: rounding in configs


def check_whole_config(cfg: Config, findings: Findings) -> None:
    """Report what training would refuse, and a normalisation that does not fit."""
    try:
        check_config(cfg, DATALOADERS[:2])
    except UserError as error:
        findings.add('config-refused', cfg.filename, value=str(error))
    for code, key, value in _normalisation(cfg):
        findings.add(code, cfg.filename, key, value)


def _normalisation(cfg: Config) -> Iterator[tuple[str, str, str]]:
    place = 'model.data_preprocessor'
    settings = cfg.model.get('data_preprocessor') or {}
    mean, std = settings.get('mean'), settings.get('std')
    if mean is None or std is None:
        yield 'norm-missing', place, 'no mean and std'
        return
    mean, std = np.array(mean, float), np.array(std, float)
    if mean.max() <= 1.5 or std.max() <= 1.5:
        yield 'norm-scale', place, f'mean {mean.tolist()}, std {std.tolist()}; times 255 they would fit'
        return
    is_rgb = bool(settings.get('bgr_to_rgb'))  # mmcv reads blue green red
    if mean.size == 3 and np.ptp(mean) > CLOSE:
        if np.allclose(mean, MEAN if not is_rgb else MEAN[::-1], atol=CLOSE):
            yield 'norm-order', place, (f'mean {mean.tolist()} is in the order {"BGR" if is_rgb else "RGB"}, but '
                                        f'bgr_to_rgb={is_rgb}')
            return
    wanted = (MEAN, STD) if is_rgb else (MEAN[::-1], STD[::-1])
    checkpoint = ((cfg.model.get('backbone') or {}).get('init_cfg') or {}).get('checkpoint') or cfg.get('load_from')
    if checkpoint and not (np.allclose(mean, wanted[0], atol=CLOSE) and np.allclose(std, wanted[1], atol=CLOSE)):
        yield 'norm-weights', place, (f'mean {mean.tolist()}, std {std.tolist()}, expected {wanted[0].tolist()} and '
                                      f'{wanted[1].tolist()} for {checkpoint}')
