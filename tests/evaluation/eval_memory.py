"""Memory and time of a distributed evaluation: prints them for each number of gloo processes, whose metrics must agree.

    python tests/evaluation/eval_memory.py --images 5000 --per-image 100 --ranks 1 2 3

Ground truth and detections with masks are generated for 100 images and repeated; ranks have unequal shares.
"""
import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import torch
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import Evaluator
from torch import distributed

import convnext_dense

DIFFERENT = 100  # images


def write_case(folder: Path, images: int, per_image: int) -> None:
    """``gt.json`` of all images, ``detections.json`` of the different ones."""
    from convnext_dense.benchmark.detections import enlarge, generated_ground_truth, noisy_detections
    content = generated_ground_truth(min(DIFFERENT, images))
    (folder / 'detections.json').write_text(json.dumps(noisy_detections(content, per_image)))
    (folder / 'gt.json').write_text(json.dumps(enlarge(content, images)))


def resident(key: str) -> float:
    """MiB of this process: VmRSS now, VmHWM the most since the mark was cleared."""
    line = next(line for line in Path('/proc/self/status').read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


def sample(image: dict, found: list[dict]) -> dict:
    """What a detector gives for an image, with masks as run lengths."""
    boxes = torch.tensor([one['bbox'] for one in found])
    boxes[:, 2:] += boxes[:, :2]
    masks = [dict(size=one['segmentation']['size'], counts=one['segmentation']['counts'].encode()) for one in found]
    return dict(img_id=image['id'], ori_shape=(image['height'], image['width']), pred_instances=dict(
        bboxes=boxes, scores=torch.tensor([one['score'] for one in found]),
        labels=torch.tensor([one['category_id'] - 1 for one in found]), masks=masks))


def rank_main(rank: int, ranks: int, folder: str, answers) -> None:
    convnext_dense.prepare()
    torch.set_num_threads(1)
    folder = Path(folder)
    distributed.init_process_group('gloo', init_method=f'file://{folder}/meeting{ranks}', rank=rank, world_size=ranks)
    from convnext_dense.evaluation.coco_metric import FastCocoMetric
    content = json.loads((folder / 'gt.json').read_text())
    by_image = defaultdict(list)
    for one in json.loads((folder / 'detections.json').read_text()):
        by_image[one['image_id']].append(one)
    metric = FastCocoMetric(ann_file=str(folder / 'gt.json'), metric=['bbox', 'segm'])
    evaluator = Evaluator([metric])
    evaluator.dataset_meta = dict(classes=[category['name'] for category in content['categories']])
    images = content['images']
    del content
    before = resident('VmRSS')
    Path('/proc/self/clear_refs').write_text('5')  # the mark is what there is now
    share = list(DefaultSampler(images, shuffle=False, round_up=False))
    start = time.perf_counter()
    for index in share:
        evaluator.process([sample(images[index], by_image[index % len(by_image) + 1])])
    matched = time.perf_counter()
    held = resident('VmRSS') - before
    compute = metric.collect(len(images))
    sent = time.perf_counter()
    metrics = compute() if rank == 0 else None
    answers.put(dict(rank=rank, images=len(share), held=held, peak=resident('VmHWM') - before,
                     matching=matched - start, sending=sent - matched, computing=time.perf_counter() - sent,
                     metrics=metrics))
    distributed.barrier()
    distributed.destroy_process_group()


def measure(ranks: int, folder: str) -> dict:
    """Metrics of an evaluation with so many processes; prints a line for each."""
    context = multiprocessing.get_context('spawn')
    answers = context.Queue()
    processes = [context.Process(target=rank_main, args=(rank, ranks, folder, answers)) for rank in range(ranks)]
    for process in processes:
        process.start()
    found = sorted((answers.get(timeout=1200) for _ in processes), key=lambda one: one['rank'])
    for process in processes:
        process.join()
    for one in found:
        print(f'{ranks} process(es), rank {one["rank"]}: {one["images"]} images matched in {one["matching"]:.1f} s, '
              f'{one["held"]:.0f} MiB; sent in {one["sending"]:.1f} s, AP computed in {one["computing"]:.1f} s; '
              f'peak {one["peak"]:.0f} MiB above the ground truth', flush=True)
    return found[0]['metrics']


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=int, default=5000)
    parser.add_argument('--per-image', type=int, default=100)
    parser.add_argument('--ranks', type=int, nargs='+', default=[1, 2, 3])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_case(Path(folder), args.images, args.per_image)
        metrics = [measure(ranks, folder) for ranks in args.ranks]
    equal = all(json.dumps(one) == json.dumps(metrics[0]) for one in metrics)
    print(f'box AP {metrics[0]["coco/bbox_mAP"]}, mask AP {metrics[0]["coco/segm_mAP"]}: '
          f'{"equal" if equal else "DIFFERENT"} for {args.ranks} process(es)')
    sys.exit(0 if equal else 1)


if __name__ == '__main__':
    main()
