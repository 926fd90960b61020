"""Runs the data tools as a user does, and writes the sources that the real data does not come in."""
from pathlib import Path

import numpy as np
from PIL import Image
from tool_runs import ToolResult, run_tool

# Of CamVid's own label_colors.txt, the classes that SegNet's 11 are made of; 'Unlabelled' is its Void.
CAMVID_COLOURS = {'Sky': (128, 128, 128), 'Building': (128, 0, 0), 'Pole': (192, 192, 128), 'Road': (128, 64, 128),
                  'Pavement': (0, 0, 192), 'Tree': (128, 128, 0), 'SignSymbol': (192, 128, 128), 'Fence': (64, 64, 128),
                  'Car': (64, 0, 128), 'Pedestrian': (64, 64, 0), 'Bicyclist': (0, 128, 192), 'Unlabelled': (0, 0, 0)}


LOSSES = 3  # exit status when something was left out


def convert(*arguments, status: int = 0, **options) -> ToolResult:
    """The convert tool; fails unless it ends with `status`."""
    finished = run_tool('convert_dataset', *arguments, **options)
    assert finished.code == status, f'{finished.code}\n{finished.out[-2000:]}{finished.err[-4000:]}'
    return finished


def camvid_copy(camvid: Path, folder: Path, step: int, mask_of) -> list[str]:
    """Every `step`-th CamVid pair: the image linked, the labels as `mask_of(labels)` paints them; returns names."""
    names = []
    for split in ('train', 'val'):
        (folder / 'images' / split).mkdir(parents=True)
        (folder / 'masks' / split).mkdir(parents=True)
        for file in sorted((camvid / 'annotations' / split).iterdir())[::step]:
            mask_of(np.asarray(Image.open(file))).save(folder / 'masks' / split / file.name)
            (folder / 'images' / split / f'{file.stem}.jpg').symlink_to(camvid / f'images/{split}/{file.stem}.jpg')
            names.append(f'{split}/{file.name}')
    return names


def small_pairs(folder: Path, labels: list[np.ndarray], suffix: str = '.png') -> Path:
    """Grey images of the labels' sizes in `images/`, the labels in `masks/`."""
    (folder / 'images').mkdir(parents=True)
    (folder / 'masks').mkdir()
    for number, label in enumerate(labels):
        Image.fromarray(np.full((*label.shape[:2], 3), 90 + number, np.uint8)).save(
            folder / f'images/{number}{suffix}')
        Image.fromarray(label).save(folder / f'masks/{number}.png')
    return folder
