"""One of several gloo processes that evaluate together; see test_iou_ranks.py.

Arguments: rank, number of ranks, number of samples, batch size, whether the sampler pads, rendezvous file, result file.
"""
import json
import sys

import torch
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import Evaluator
from torch import distributed
from torch.utils.data import BatchSampler

import convnext_dense  # noqa: F401  (prepares the stack before mmseg is imported)

CLASSES = 7


def sample(index: int) -> dict:
    """Every sample has maps of its own size and content."""
    generator = torch.Generator().manual_seed(index)
    label, prediction = torch.randint(0, CLASSES, (2, 1, 10 + index, 12), generator=generator)
    label[0, 0, :3] = 255
    return dict(gt_sem_seg=dict(data=label), pred_sem_seg=dict(data=prediction), img_path=f'{index}.jpg')


def main(rank: int, ranks: int, size: int, batch: int, round_up: int, meeting: str, out: str) -> None:
    if ranks > 1:
        distributed.init_process_group('gloo', init_method=f'file://{meeting}', rank=rank, world_size=ranks)
    from convnext_dense.evaluation.iou_metric import FastIoUMetric
    metric = FastIoUMetric()
    evaluator = Evaluator([metric])
    evaluator.dataset_meta = dict(classes=[str(i) for i in range(CLASSES)])
    sampler = DefaultSampler(range(size), shuffle=False, round_up=bool(round_up))
    for indices in BatchSampler(sampler, batch, drop_last=False):
        evaluator.process([sample(index) for index in indices])
    metrics = evaluator.evaluate(size)
    with open(out, 'w') as file:
        json.dump(dict(seen=len(sampler), matrix=metric.confusion_matrix.tolist(), mIoU=float(metrics['mIoU'])), file)
    if ranks > 1:
        distributed.destroy_process_group()


if __name__ == '__main__':
    main(*map(int, sys.argv[1:6]), *sys.argv[6:])
