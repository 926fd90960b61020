"""Write the pictures of docs/gallery.md: python docs/site/gallery.py, from a checkout.

They show generated images only, since photographs of public data sets may not be copied freely.
"""
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools.coco import COCO

from convnext_dense.cli import browse_dataset
from convnext_dense.datasets.shapes import ShapesParams, generate_shapes
from convnext_dense.inference.results import Detections
from convnext_dense.visualization.draw import side_by_side

OUT = Path(__file__).resolve().parents[1] / 'images/gallery'
CLASSES = ('circle', 'square', 'triangle')
COLOURS = [(230, 159, 0), (86, 180, 233), (0, 158, 115)]


def annotated(data: Path, index: int) -> Detections:
    """The annotations of a generated validation image, with scores that fall from 0.98."""
    coco = COCO(str(data / 'coco/annotations/instances_val2017.json'))
    image = coco.imgs[sorted(coco.imgs)[index]]
    items = coco.imgToAnns[image['id']]
    boxes = np.array([item['bbox'] for item in items], float)
    boxes[:, 2:] += boxes[:, :2]
    return Detections(np.array([item['category_id'] - 1 for item in items]), boxes,
                      np.stack([coco.annToMask(item) for item in items]).astype(bool),
                      np.linspace(0.98, 0.62, len(items)), CLASSES, (image['height'], image['width']), COLOURS,
                      data / 'coco/val2017' / image['file_name'])


def crowd() -> Detections:
    """Eighty small circles of one class."""
    random, canvas = np.random.default_rng(0), np.full((320, 320, 3), 60, np.uint8)
    centres = [(x + random.integers(-6, 7), y + random.integers(-6, 7))
               for y in range(24, 320, 38) for x in range(24, 320, 34)]
    rows, columns = np.mgrid[:320, :320]
    masks = np.stack([(columns - x)**2 + (rows - y)**2 < random.integers(30, 110) for x, y in centres])
    canvas[masks.any(axis=0)] = (150, 110, 190)
    boxes = [(columns[mask].min(), rows[mask].min(), columns[mask].max() + 1, rows[mask].max() + 1) for mask in masks]
    scores = np.linspace(0.99, 0.5, len(masks))
    return Detections(np.zeros(len(masks), int), np.array(boxes, float), masks, scores, ('nucleus',), (320, 320),
                      [(255, 196, 0)], canvas)


def write(name: str, picture: np.ndarray) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(OUT / f'{name}.jpg', quality=82, optimize=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, 'shapes')
        generate_shapes(data, ShapesParams(seed=3, train=8, val=8, size=128))
        for task, config, part in (('det', 'det/mask-rcnn_convnext-atto_fpn_1xb8-4e_shapes.py', 'coco'),
                                   ('seg', 'seg/upernet_convnext-atto_1xb8-700i_shapes-128x128.py', 'ade')):
            sheet = Path(folder, f'{task}.png')
            browse_dataset.main([config, '--data-root', str(data / part), '--number', '4', '--out', str(sheet)])
            with Image.open(sheet) as image:
                height = round(900 * image.height / image.width)
                write(f'browse-{task}', np.array(image.convert('RGB').resize((900, height))))
        found, many = annotated(data, 1), crowd()
        write('draw', side_by_side([('draw()', found.draw()), ("hide=['boxes', 'scores']",
                                                               found.draw(hide=['boxes', 'scores']))]))
        write('draw-instances', side_by_side([('draw()', many.draw()),
                                              ("colour_by='instance', hide=['boxes']",
                                               many.draw(colour_by='instance', hide=['boxes']))]))


if __name__ == '__main__':
    main()
