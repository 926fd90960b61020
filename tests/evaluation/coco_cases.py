"""Ground truth and detections of the cases that COCO's rules treat specially, and pycocotools on its own."""
import contextlib
import copy
import io

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

HEIGHT, WIDTH = 120, 160  # so that all three size bins occur


def indexed(content: dict) -> COCO:
    coco = COCO()
    coco.dataset = copy.deepcopy(content)
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def pycocotools_says(content: dict, detections: list[dict], kind: str, **params) -> COCOeval:
    """pycocotools as its own demo runs it, nothing of ours between; the finished COCOeval."""
    coco, drop = indexed(content), 'segmentation' if kind == 'bbox' else 'bbox'
    found = [{key: copy.copy(value) for key, value in one.items() if key != drop} for one in detections]
    with contextlib.redirect_stdout(io.StringIO()):
        results = coco.loadRes(found) if found else indexed({**content, 'annotations': []})
        evaluator = COCOeval(coco, results, kind)
        for name, value in params.items():
            setattr(evaluator.params, name, value)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator


def random_case(seed: int, images: int = 6, objects: int = 5, found: int = 12, categories=(1, 2, 3)) -> tuple:
    """Rectangles and rectangles with a hole as ground truth, and noisy copies of them as detections."""
    rng = np.random.default_rng(seed)
    content = dict(images=[dict(id=i + 1, height=HEIGHT, width=WIDTH) for i in range(images)],
                   categories=[dict(id=c, name=f'class {c}') for c in categories], annotations=[])
    detections = []
    for image in content['images']:
        boxes = []
        for _ in range(objects):
            box = random_box(rng)
            boxes.append((box, int(rng.choice(categories))))
            content['annotations'].append(dict(id=len(content['annotations']) + 1, image_id=image['id'], iscrowd=0,
                                               category_id=boxes[-1][1], **shape(box, rng.random() < 0.5)))
        for _ in range(found):
            box, category = boxes[rng.integers(len(boxes))] if boxes and rng.random() < 0.7 else (random_box(rng), 1)
            category = int(rng.choice(categories)) if rng.random() < 0.2 else category
            detection = shape(jittered(rng, box), rng.random() < 0.3)
            detection.pop('area')
            detections.append(dict(image_id=image['id'], category_id=category, score=float(rng.random()), **detection))
    return content, detections


def random_box(rng) -> tuple[int, int, int, int]:
    w, h = int(rng.integers(1, WIDTH)), int(rng.integers(1, HEIGHT))
    return int(rng.integers(WIDTH - w)), int(rng.integers(HEIGHT - h)), w, h


def jittered(rng, box) -> tuple[int, int, int, int]:
    x, y, w, h = np.array(box) + rng.integers(-3, 4, 4)
    x, y = int(x.clip(0, WIDTH - 2)), int(y.clip(0, HEIGHT - 2))
    return x, y, int(w.clip(1, WIDTH - x)), int(h.clip(1, HEIGHT - y))


def shape(box, hole: bool = False) -> dict:
    """bbox, area and segmentation (run-length encoding) of a rectangle, perhaps with its middle missing."""
    x, y, w, h = box
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[y:y + h, x:x + w] = 1
    if hole and w > 4 and h > 4:
        mask[y + 2:y + h - 2, x + 2:x + w - 2] = 0
    rle = coco_mask.encode(np.asfortranarray(mask))
    return dict(bbox=[float(v) for v in box], area=int(mask.sum()),
                segmentation=dict(size=list(rle['size']), counts=rle['counts'].decode()))


def crowd():
    content, detections = random_case(1)
    for annotation in content['annotations'][::3]:
        annotation['iscrowd'] = 1
    return content, detections


def category_of_crowds_only():
    content, detections = random_case(2)
    for annotation in content['annotations']:
        annotation['iscrowd'] = int(annotation['category_id'] == 2)
    return content, detections


def image_without_ground_truth():
    content, detections = random_case(3)
    content['annotations'] = [a for a in content['annotations'] if a['image_id'] not in (2, 5)]
    return content, detections


def image_without_detections():
    content, detections = random_case(4)
    return content, [d for d in detections if d['image_id'] not in (1, 6)]


def no_ground_truth_at_all():
    content, detections = random_case(5)
    return {**content, 'annotations': []}, detections


def no_detections_at_all():
    return random_case(6)[0], []


def nothing_at_all():
    return {**random_case(6)[0], 'annotations': []}, []


def tied_scores():
    content, detections = random_case(7, found=30)
    for detection in detections:
        detection['score'] = round(detection['score'], 1)
    return content, detections


def all_scores_equal():
    content, detections = random_case(8)
    return content, [{**detection, 'score': 0.5} for detection in detections]


def zero_area():
    """Every third mask empty, every third box without width or height, on both sides."""
    content, detections = random_case(9)
    empty = shape((0, 0, 0, 0))
    for side in (content['annotations'], detections):
        for entry in side[::3]:
            entry['segmentation'] = dict(empty['segmentation'])
        for entry in side[1::3]:
            entry['bbox'][2 + entry['image_id'] % 2] = 0.0
    for annotation in content['annotations'][::3]:
        annotation['area'] = 0
    return content, detections


def more_than_100_detections():
    return random_case(10, images=2, objects=8, found=260, categories=(1, 2))


def category_ids_with_gaps():
    return random_case(11, categories=(90, 7, 13))


def category_without_objects():
    content, detections = random_case(12)
    content['categories'].append(dict(id=44, name='class 44'))
    return content, detections + [{**detections[0], 'category_id': 44}]


def only_large_objects():
    content, detections = random_case(13)
    content['annotations'] = [a for a in content['annotations'] if a['area'] > 96 ** 2]
    return content, detections


def same_detection_many_times():
    content, detections = random_case(14)
    return content, detections * 4


CASES = [crowd, category_of_crowds_only, image_without_ground_truth, image_without_detections, no_ground_truth_at_all,
         no_detections_at_all, nothing_at_all, tied_scores, all_scores_equal, zero_area, more_than_100_detections,
         category_ids_with_gaps, category_without_objects, only_large_objects, same_detection_many_times]


def as_results(detections: list[dict], content: dict) -> list[dict]:
    """The same detections as mmdet's metric keeps them: one dict of arrays per image."""
    labels = {category['id']: label for label, category in enumerate(content['categories'])}
    results = []
    for image in content['images']:
        own = [detection for detection in detections if detection['image_id'] == image['id']]
        boxes = np.array([detection['bbox'] for detection in own], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        results.append(dict(img_id=image['id'], bboxes=boxes,
                            scores=np.array([detection['score'] for detection in own], np.float32),
                            labels=np.array([labels[detection['category_id']] for detection in own], np.int64),
                            masks=[dict(detection['segmentation']) for detection in own]))
    return results
