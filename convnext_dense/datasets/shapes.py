"""Generated data sets in COCO's and ADE20K's layouts: circles, squares and triangles, or many tiny crowded cells.

Drawing is in `shapes_render`; this module writes the files. Needs numpy, OpenCV and pycocotools only.
"""
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from reprlib import repr as short_repr

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from ..errors import UserError
from ..utils.files import written_whole
from ..utils.progress import progress_bar
from .layout import SPLITS
from .shapes_render import BACKGROUND_LABEL, CLASSES, TINY_CLASSES, Scene, render_scene, render_tiny

PARAMS_FILE = 'shapes.json'
GENERATOR_VERSION = 1  # increase it when the same parameters give other bytes
_ADE_FOLDER = {'train': 'training', 'val': 'validation'}
KINDS = {'shapes': (render_scene, CLASSES), 'tiny': (render_tiny, TINY_CLASSES)}
_SEED_OF = {'train': 0, 'val': 1}  # part of every image's seed


@dataclass(frozen=True)
class ShapesParams:
    """Parameters that determine a shapes data set.

    Args:
        seed: any integer >= 0.
        train: number of training images, >= 1.
        val: number of validation images, >= 1.
        size: height and width of every image in pixels, 64 to 2048.
        kind: a key of `KINDS`: 'shapes', two to five an image; 'tiny', cells of 6 to 16 pixels, 40 to 90 in 256 x 256.

    Raises:
        UserError: a value outside its range.
    """
    seed: int = 0
    train: int = 800
    val: int = 100
    size: int = 128
    kind: str = 'shapes'

    def __post_init__(self):
        for name, low, high in (('seed', 0, 2**32 - 1), ('train', 1, 10**6), ('val', 1, 10**6), ('size', 64, 2048)):
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high:
                raise UserError(f'shapes data: {name} must be an integer from {low} to {high}, found {value!r}')
        if self.kind not in KINDS:
            raise UserError(f'shapes data: kind must be one of {", ".join(KINDS)}, found {self.kind!r}')

    def count(self, split: str) -> int:
        """Number of images of 'train' or 'val'."""
        return {'train': self.train, 'val': self.val}[split]


def generate_shapes(out, params: ShapesParams, overwrite: bool = False) -> bool:
    """Write the data set to `out`, all of it or nothing.

    `out/coco` then has `annotations/instances_{train,val}2017.json`, `train2017` and `val2017`; `out/ade` has
    `images/{training,validation}` and `annotations/{training,validation}`. The same parameters give the same
    bytes with the same versions of numpy and OpenCV.

    Args:
        out: folder to create; its parents are created too.
        params: seed, number and size of the images.
        overwrite: replace a shapes data set with other parameters. A folder with anything else is never touched.

    Returns:
        Whether it was written; False if `out` already holds the same data set.

    Raises:
        UserError: `out` holds something else.
    """
    out = Path(out)
    if _is_present(out, params, overwrite):
        return False
    with written_whole(out) as part:
        _write_all(part, params)
    return True


def scene_of(params: ShapesParams, split: str, index: int) -> Scene:
    """Render one image of the data set in memory, without any file; `index` counts from 0."""
    rng = np.random.default_rng([params.seed, _SEED_OF[split], index])
    return KINDS[params.kind][0](rng, params.size)


def label_map_of(scene: Scene) -> np.ndarray:
    """ADE-style labels of a scene, uint8 (H, W): 1 background, then 2, 3, ... in the order of the kind's classes.

    0 stays free for unlabelled pixels, which ADE20K's convention (`reduce_zero_label=True`) ignores.
    """
    labels = np.full(scene.image.shape[:2], BACKGROUND_LABEL, np.uint8)
    for shape_class, mask in zip(scene.labels, scene.masks, strict=True):
        labels[mask] = BACKGROUND_LABEL + 1 + shape_class
    return labels


def _is_present(out: Path, params: ShapesParams, overwrite: bool) -> bool:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    wanted = _params_record(params)
    try:
        found = json.loads((out / PARAMS_FILE).read_text())
    except (OSError, ValueError, RecursionError):
        raise UserError(f'{out} exists and is not a shapes data set (no readable {PARAMS_FILE} in it): '
                              'choose another folder') from None
    if found == wanted:
        return True
    if overwrite:
        return False
    raise UserError(f'{out} holds a shapes data set with other parameters ({short_repr(found)}, wanted {wanted}): '
                          'choose another folder, or overwrite it (--overwrite)')


def _params_record(params: ShapesParams) -> dict:
    record = {'generator': GENERATOR_VERSION, **asdict(params)}
    if params.kind == 'shapes':
        del record['kind']  # data sets written before there were kinds stay valid
    return record


def _write_all(root: Path, params: ShapesParams) -> None:
    with progress_bar('images', params.train + params.val, 'image') as bar:
        for split in SPLITS:
            _write_split(root, split, params, bar.update)
    (root / PARAMS_FILE).write_text(json.dumps(_params_record(params), indent=2) + '\n')


def _write_split(root: Path, split: str, params: ShapesParams, count_one: Callable[[], object]) -> None:
    coco_images = _make_folder(root / 'coco' / f'{split}2017')
    ade_images = _make_folder(root / 'ade/images' / _ADE_FOLDER[split])
    ade_labels = _make_folder(root / 'ade/annotations' / _ADE_FOLDER[split])
    coco = _CocoFile(params)
    for index in range(params.count(split)):
        scene = scene_of(params, split, index)
        coco_name, ade_name = f'{index + 1:012d}.jpg', f'ADE_{split}_{index + 1:08d}'
        coco.add(scene, index + 1, coco_name)
        jpeg = _encode('.jpg', scene.image, cv2.IMWRITE_JPEG_QUALITY, 95)
        (coco_images / coco_name).write_bytes(jpeg)
        (ade_images / f'{ade_name}.jpg').write_bytes(jpeg)
        (ade_labels / f'{ade_name}.png').write_bytes(_encode('.png', label_map_of(scene)))
        count_one()
    coco.write(_make_folder(root / 'coco/annotations') / f'instances_{split}2017.json')


class _CocoFile:
    """Collects the instances of one split as COCO json."""

    def __init__(self, params: ShapesParams):
        self.content = {
            'info': {'description': 'convnext_dense shapes', 'parameters': _params_record(params)},
            'licenses': [],
            'images': [],
            'annotations': [],
            'categories': [{'id': i + 1, 'name': name, 'supercategory': 'shape'}
                           for i, name in enumerate(KINDS[params.kind][1])],
        }

    def add(self, scene: Scene, image_id: int, file_name: str) -> None:
        """Append an image and its instances; masks are run-length encoded, which is exact, unlike polygons."""
        height, width = scene.image.shape[:2]
        self.content['images'].append({'id': image_id, 'file_name': file_name, 'height': height, 'width': width})
        for shape_class, mask in zip(scene.labels, scene.masks, strict=True):
            rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
            self.content['annotations'].append({
                'id': len(self.content['annotations']) + 1,
                'image_id': image_id,
                'category_id': int(shape_class) + 1,
                'bbox': [float(v) for v in coco_mask.toBbox(rle)],
                'area': int(mask.sum()),
                'iscrowd': 0,
                'segmentation': {'size': [height, width], 'counts': rle['counts'].decode('ascii')},
            })

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(self.content, separators=(',', ':')) + '\n')


def _make_folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _encode(suffix: str, array: np.ndarray, *options: int) -> bytes:
    ok, data = cv2.imencode(suffix, array, options)
    if not ok:
        raise RuntimeError(f'OpenCV cannot encode a {suffix} image of shape {array.shape}')
    return data.tobytes()
