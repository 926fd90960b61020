"""AP of a tiled mosaic beside that of its images one by one; run as a script, it trains the model and prints both.

    python tests/inference/mosaic.py --data ../shared/data --side 8000

Eight COCO images, at most 96 pixels a side, lie in a grid on a grey ground, each equally often. The model has learned
them by heart in frames of one to four of them; one by one, an image is in such a frame alone.
"""
import argparse
import json
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / 'tools')]  # as a script, too
from test_overfit import eight_images  # noqa: E402
from tool_runs import TOOL_TESTS, must_run  # noqa: E402
from torch import from_numpy  # noqa: E402
from torchvision.ops import batched_nms  # noqa: E402

from convnext_dense.config import load_config  # noqa: E402
from convnext_dense.evaluation.coco_data import index  # noqa: E402
from convnext_dense.evaluation.coco_eval import evaluate  # noqa: E402
from convnext_dense.inference import tiling  # noqa: E402
from convnext_dense.inference.predictor import Detections, Predictor  # noqa: E402
from convnext_dense.utils.run_lengths import EncodedMasks, encode_crop  # noqa: E402

SIZE, GAP = 96, 32  # together a multiple of the network's stride, so that images lie in the grid as in training
CROP = 2 * (SIZE + GAP) + GAP
NOTHING = np.zeros((0, 0, 3), np.uint8), []  # an image without pixels and objects
GREY = (134, 126, 114)  # near the mean that images are normalised with, but not zero after it
ITERATIONS = 300
SETTINGS = ['model.test_cfg.rpn.nms_pre=1000', 'model.test_cfg.rpn.max_per_img=1000',
            'model.test_cfg.rcnn.max_per_img=300']  # for the objects of a tile; the same one by one


def read_images(annotations: Path, folder: Path) -> list[tuple[np.ndarray, list[tuple[int, np.ndarray]]]]:
    """(image, objects) of each image, RGB, at most `SIZE` pixels a side; an object is (category id, mask)."""
    content, images = json.loads(annotations.read_text()), []
    for entry in content['images']:
        image = cv2.imread(str(folder / entry['file_name']))[..., ::-1]
        scale = SIZE / max(image.shape[:2])
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        objects = []
        for item in content['annotations']:
            if item['image_id'] == entry['id']:
                polygons = [(np.array(part) * scale).tolist() for part in item['segmentation']]
                rle = coco_mask.merge(coco_mask.frPyObjects(polygons, *image.shape[:2]))
                objects.append((item['category_id'], coco_mask.decode(rle).astype(bool)))
        images.append((image, objects))
    return images


def build(images: list, side: int) -> tuple[np.ndarray, list[tuple[int, int, int, np.ndarray]]]:
    """A mosaic of `side` pixels and its objects: (category id, top, left, mask)."""
    mosaic, objects = np.full((side, side, 3), GREY, np.uint8), []
    cells = [(y, x) for y in range(GAP, side - SIZE, SIZE + GAP)
             for x in range(GAP, side - SIZE, SIZE + GAP)]
    for number, (y, x) in enumerate(cells[:len(cells) // len(images) * len(images)]):
        image, found = images[(number + number // len(images)) % len(images)]
        mosaic[y:y + image.shape[0], x:x + image.shape[1]] = image
        objects += [(category, y, x, mask) for category, mask in found]
    return mosaic, objects


def ground_truth(sizes: list[tuple[int, int]], objects: list[list[tuple]], categories: list[dict]) -> dict:
    """COCO annotations of images with objects as of `build`."""
    content = dict(images=[dict(id=number, height=size[0], width=size[1], file_name=f'{number}.png')
                           for number, size in enumerate(sizes, 1)], categories=categories, annotations=[])
    for number, (size, found) in enumerate(zip(sizes, objects, strict=True), 1):
        for category, top, left, mask in found:
            rle = encode_crop(mask, top, left, size)
            content['annotations'].append(dict(
                id=len(content['annotations']) + 1, image_id=number, category_id=category, iscrowd=0,
                segmentation=dict(rle, counts=rle['counts'].decode()), area=float(coco_mask.area(rle)),
                bbox=coco_mask.toBbox(rle).tolist()))
    return content


def write_crops(images: list, folder: Path, categories: list[dict], count: int = 72) -> None:
    """Training data: one to four images with ground around them, so that they are known beside others and alone."""
    random, found, order = np.random.default_rng(0), [], []
    for _ in range(count):
        order = order or random.permutation(len(images)).tolist()
        cells = [images[order.pop()], NOTHING, NOTHING, NOTHING] if len(found) % 3 == 0 else \
            [images[index] for index in random.permutation(len(images))[:4]]
        mosaic, objects = build([cells[index] for index in random.permutation(4)], CROP)
        cv2.imwrite(str(folder / f'{len(found) + 1}.png'), mosaic[..., ::-1])
        found.append(objects)
    content = ground_truth([(CROP, CROP)] * count, found, categories)
    (folder / 'train.json').write_text(json.dumps(content))
    few = [image for image in content['images'] if image['id'] <= 4]
    (folder / 'val.json').write_text(json.dumps({**content, 'images': few, 'annotations': [
        item for item in content['annotations'] if item['image_id'] <= 4]}))


def train(folder: Path) -> Path:
    """The checkpoint of a model that has learned the crops of a folder."""
    scale = f'({CROP}, {CROP})'
    must_run('train', TOOL_TESTS / 'overfit_coco.py', '--work-dir', folder / 'run', '--data-root', folder,
             '--cfg-options', f'train_dataloader.dataset.ann_file={folder / "train.json"}',
             f'val_dataloader.dataset.ann_file={folder / "val.json"}', f'val_evaluator.ann_file={folder / "val.json"}',
             f'train_dataloader.dataset.data_prefix.img={folder}/', f'val_dataloader.dataset.data_prefix.img={folder}/',
             f'train_dataloader.dataset.pipeline.2.scale={scale}', f'val_dataloader.dataset.pipeline.1.scale={scale}',
             'train_dataloader.batch_size=1', f'train_cfg.max_iters={ITERATIONS}',
             f'train_cfg.val_interval={ITERATIONS}',
             f'param_scheduler.1.end={ITERATIONS}', f'default_hooks.checkpoint.interval={ITERATIONS}', cwd=folder)
    return folder / f'run/iter_{ITERATIONS}.pth'


def average_precision(content: dict, results: list) -> dict[str, float]:
    """'bbox' and 'segm' AP, per cent, of one result per image."""
    coco = COCO()
    index(coco, content)
    ids = [category['id'] for category in content['categories']]
    items = [{**item, 'category_id': ids[item['category_id'] - 1]}
             for number, result in enumerate(results, 1) for item in result.to_coco(image_id=number)]
    return {kind: 100 * evaluate(coco, items, kind, backend='faster', cat_ids=ids,
                                 max_dets=(1, 10, 100_000)).stats()['mAP'] for kind in ('bbox', 'segm')}


def nms_alone(pieces, tiles, size, margin):
    """What merging by class-wise NMS would give, as a stand-in for `tiling.merge`."""
    keep = batched_nms(from_numpy(pieces.boxes), from_numpy(pieces.scores), from_numpy(pieces.labels), 0.5)
    return pieces[keep.numpy()]


def compare(checkpoint: Path, images: list, categories: list[dict], side: int, tile: int, overlap: float) -> dict:
    """AP, per cent, of the images one by one, of the tiled mosaic, and of the same detections merged by NMS alone."""
    cfg = load_config(str(TOOL_TESTS / 'overfit_coco.py'), SETTINGS)
    cfg.test_dataloader.dataset.pipeline[1] = dict(type='Resize', scale_factor=1.0, keep_ratio=True)
    predictor = Predictor(cfg, checkpoint, device='cpu', score_thr=0, tile=tile, overlap=overlap)
    framed = [build([image, NOTHING, NOTHING, NOTHING], CROP) for image in images]
    results = {'one by one': average_precision(
        ground_truth([picture.shape[:2] for picture, _ in framed], [found for _, found in framed], categories),
        predictor([picture for picture, _ in framed]))}
    mosaic, objects = build(images, side)
    expected = ground_truth([mosaic.shape[:2]], [objects], categories)
    merge, seen, start = tiling.merge, [], time.process_time()
    try:
        tiling.merge = lambda *args: seen.append(args) or merge(*args)
        found = predictor(mosaic)
    finally:
        tiling.merge = merge
    results['seconds'] = time.process_time() - start
    results['tiles'] = average_precision(expected, [found])
    tiles = predictor.tiling.tiles(side, side)
    edges = {edge for tile in tiles for edge in tile if 0 < edge < side}
    results['at edges'], results['elsewhere'] = times_found(found, expected, edges)
    pieces = nms_alone(*seen[0])
    found = replace(found, labels=pieces.labels, boxes=pieces.boxes, scores=pieces.scores,
                    masks=EncodedMasks(pieces.rles, mosaic.shape[:2]))
    results['NMS alone'] = average_precision(expected, [found])
    results['at edges, NMS alone'], _ = times_found(found, expected, edges)
    return {**results, 'objects': len(objects), 'number': len(tiles)}


def times_found(found: Detections, expected: dict, edges: set[int]) -> list[dict[str, int]]:
    """How many objects there are, found once, and more often: of those across an edge of a tile, and of the others.

    A detection with a score of 0.5 or more finds the object of its class that it overlaps most, from an IoU of 0.5 on.
    """
    ids = [category['id'] for category in expected['categories']]
    boxes = np.array([item['bbox'] for item in expected['annotations']])
    boxes[:, 2:] += boxes[:, :2]
    labels = np.array([ids.index(item['category_id']) for item in expected['annotations']])
    times = np.zeros(len(boxes), int)
    for label, box in zip(*(values[found.scores >= 0.5] for values in (found.labels, found.boxes)), strict=True):
        overlaps = np.where(labels == label, tiling.iou(boxes, np.repeat(box[None], len(boxes), 0)), 0)
        times[overlaps.argmax()] += overlaps.max() >= 0.5
    lines = np.array(sorted(edges))
    cut = ((boxes[:, None, :2] < lines[:, None]) & (lines[:, None] < boxes[:, None, 2:])).any((1, 2))
    return [dict(objects=int(own.sum()), once=int((times[own] == 1).sum()), repeated=int((times[own] > 1).sum()))
            for own in (cut, ~cut)]


def prepare(data: Path, folder: Path) -> tuple[Path, list, list[dict]]:
    """Checkpoint, which is trained where the folder has none, images and categories."""
    folder.mkdir(parents=True, exist_ok=True)
    eight_images(data / 'coco/annotations/instances_train2017.json', folder / 'eight.json')
    images = read_images(folder / 'eight.json', data / 'coco/train2017')
    categories = json.loads((folder / 'eight.json').read_text())['categories']
    checkpoint = folder / f'run/iter_{ITERATIONS}.pth'
    if not checkpoint.is_file():
        write_crops(images, folder, categories)
        train(folder)
    return checkpoint, images, categories


def describe(results: dict) -> str:
    """What `compare` found, and the peak memory of this process."""
    return '\n'.join([
        f'{results["objects"]} objects, {results["number"]} tiles',
        *(f'  {name:12} box AP {results[name]["bbox"]:.2f}, mask AP {results[name]["segm"]:.2f}'
          for name in ('one by one', 'tiles', 'NMS alone')),
        *(f'  {name}: of {results[name]["objects"]} objects {results[name]["once"]} are found once, '
          f'{results[name]["repeated"]} more often' for name in ('at edges', 'at edges, NMS alone', 'elsewhere')),
        f'  {results["seconds"]:.0f} s of processor time, peak memory '
        f'{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** 20:.2f} GiB'])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', type=Path, required=True, help='folder with coco/')
    parser.add_argument('--side', type=int, default=8000)
    parser.add_argument('--tile', type=int, default=640)
    parser.add_argument('--overlap', type=float, default=0.25)
    parser.add_argument('--folder', type=Path, help='for crops and model, which is then not trained again')
    args = parser.parse_args()
    trained = prepare(args.data.resolve(), (args.folder or Path(tempfile.mkdtemp())).resolve())
    print(f'{args.side} x {args.side} pixels, tiles of {args.tile}, overlap {args.overlap}: '
          + describe(compare(*trained, args.side, args.tile, args.overlap)))


if __name__ == '__main__':
    main()
