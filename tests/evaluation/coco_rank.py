"""One of several gloo processes that evaluate together; see test_coco_ranks.py.

Arguments: rank, number of ranks, number of images, batch size, whether the sampler pads, folder for all files.
"""
import json
import sys
from pathlib import Path

from coco_cases import random_case
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import Evaluator
from torch import distributed
from torch.utils.data import BatchSampler

import convnext_dense  # noqa: F401  (prepares the stack before mmdet is imported)


def main(rank: int, ranks: int, images: int, batch: int, round_up: int, folder: str) -> None:
    if ranks > 1:
        distributed.init_process_group('gloo', init_method=f'file://{folder}/meeting', rank=rank, world_size=ranks)
    from test_coco_metric import samples_of

    from convnext_dense.evaluation.coco_metric import FastCocoMetric
    content, detections = random_case(3, images=images, objects=6, found=15)
    file = Path(folder, f'{rank}.gt.json')
    file.write_text(json.dumps(content))
    metric = FastCocoMetric(ann_file=str(file), metric=['bbox', 'segm', 'proposal_fast'], classwise=True)
    evaluator = Evaluator([metric])
    evaluator.dataset_meta = dict(classes=[category['name'] for category in content['categories']])
    samples = samples_of(content, detections)
    sampler = DefaultSampler(samples, shuffle=False, round_up=bool(round_up))
    for indices in BatchSampler(sampler, batch, drop_last=False):
        evaluator.process([samples[index] for index in indices])
    metrics = evaluator.evaluate(images)
    found = {kind: evaluation.stats() for kind, evaluation in metric.evaluations.items()}
    Path(folder, f'{rank}.json').write_text(json.dumps(dict(seen=len(sampler), metrics=metrics, exact=found)))
    if ranks > 1:
        distributed.destroy_process_group()


if __name__ == '__main__':
    main(*map(int, sys.argv[1:6]), sys.argv[6])
