"""Start-up time and memory of COCO annotations in several processes: FastCocoDataset beside mmdet's CocoDataset."""
import argparse
import gc
import json
import multiprocessing
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from torch.utils.data import DataLoader

from ..datasets.json_stream import stream_json
from ..errors import UserError
from ..evaluation.coco_data import silent
from ..utils.progress import progress_bar
from .backbone import describe_machine

DATASETS = {'ours, first time': 'FastCocoDataset', 'ours': 'FastCocoDataset', 'mmdet': 'CocoDataset'}
CLASSES = tuple(f'class {number}' for number in range(80))
CORNERS = 30  # of each generated polygon; instances_train2017.json has 30 on average


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('--annotations', type=Path, metavar='FILE', help='a COCO json file (default: a generated one)')
    parser.add_argument('--images', type=int, default=120_000, help='of the generated file (default: %(default)s)')
    parser.add_argument('--objects', type=int, default=9, help='of each of its images (default: %(default)s)')
    parser.add_argument('--ranks', type=int, default=2, help='training processes (default: %(default)s)')
    parser.add_argument('--workers', type=int, default=4, help='loader processes of each (default: %(default)s)')
    parser.add_argument('--samples', type=int, default=4000, help='read by each worker (default: %(default)s)')


def run(args: argparse.Namespace) -> tuple[dict, str]:
    """Measure; returns the figures and the table to print.

    Raises:
        UserError: a count below 1, or a system without /proc.
    """
    for name in ('images', 'objects', 'ranks', 'workers', 'samples'):
        if getattr(args, name) < 1:
            raise UserError(f'benchmark annotations: --{name} must be at least 1, not {getattr(args, name)}')
    if not Path('/proc/self/smaps').exists():
        raise UserError('benchmark annotations: memory is read from /proc/self/smaps, which only Linux has')
    with TemporaryDirectory() as folder:
        os.environ['CONVNEXT_DENSE_CACHE'] = folder
        tiny, large = Path(folder) / 'tiny.json', args.annotations or Path(folder) / 'large.json'
        write_annotations(tiny, 1, 1)
        if args.annotations is None:
            write_annotations(large, args.images, args.objects)
        rows = {name: _measure(kind, tiny, large, args) for name, kind in DATASETS.items()}
        result = dict(machine=describe_machine('cpu'), bytes=large.stat().st_size, ranks=args.ranks,
                      workers=args.workers, rows=rows)
    return result, format_result(result)


def format_result(result: dict) -> str:
    """The table to print."""
    lines = [f'{result["bytes"] / 2**20:.0f} MiB of annotations, {result["ranks"]} ranks x {result["workers"]} workers',
             f'{"data set":18}{"images":>10}{"start":>10}{"processes":>12}{"PSS of each":>14}{"of annotations":>16}']
    for name, row in result['rows'].items():
        pss, without = np.mean(row['pss']) / 2**20, np.mean(row['without']) / 2**20
        lines.append(f'{name:18}{row["images"]:10}{max(row["seconds"]):8.2f} s{len(row["pss"]):12}{pss:10.0f} MiB'
                     f'{pss - without:12.0f} MiB')
    lines.append('PSS: proportional set size, where a page counts as 1/n in each of n processes, of the index and of '
                 'all that is no file; mean over all processes. "Of annotations": less that with one image. Start: the '
                 'slowest rank.')
    return '\n'.join(lines)


def write_annotations(file: Path, images: int, objects: int) -> None:
    """Write random annotations in COCO's layout: polygons of `CORNERS` corners on images of 640 x 480 pixels."""
    generator = np.random.default_rng(0)
    angles = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    with file.open('w') as out, progress_bar('images generated', images, 'image', disable=images < 1000) as bar:
        categories = [dict(id=number, name=name) for number, name in enumerate(CLASSES, 1)]
        out.write(f'{{"categories": {json.dumps(categories)}, "images": [')
        out.write(', '.join(f'{{"id": {number}, "file_name": "{number:012}.jpg", "height": 480, "width": 640}}'
                            for number in range(images)))
        out.write('], "annotations": [')
        for image in range(images):
            corner, size = generator.uniform(0, 350, (objects, 2)), generator.uniform(5, 130, (objects, 2))
            polygons = (corner[:, None] + size[:, None] * (circle + 1) / 2).round(2).reshape(objects, -1).tolist()
            boxes = np.concatenate([corner, size], axis=1).round(2).tolist()
            labels = generator.integers(1, len(CLASSES) + 1, objects).tolist()
            for number, (box, label, polygon) in enumerate(zip(boxes, labels, polygons, strict=True), image * objects):
                out.write((', ' if number else '') + json.dumps(dict(
                    id=number + 1, image_id=image, category_id=label, bbox=box, area=round(box[2] * box[3] * 0.78, 2),
                    iscrowd=0, segmentation=[polygon])))
            bar.update()
        out.write(']}')


def _measure(kind: str, tiny: Path, large: Path, args: argparse.Namespace) -> dict:
    """Seconds to start of every rank, and the PSS in bytes of every rank and worker after all have read samples."""
    context = multiprocessing.get_context('spawn')
    barrier, answers = context.Barrier(args.ranks), context.Queue()
    settings = kind, (str(tiny), str(large)), _classes(large), args.workers, args.samples, barrier, answers
    ranks = [context.Process(target=_rank, args=settings, daemon=False) for _ in range(args.ranks)]
    for rank in ranks:
        rank.start()
    found = []
    while len(found) < args.ranks:
        if any(rank.exitcode not in (None, 0) for rank in ranks):
            for rank in ranks:
                rank.terminate()
            raise UserError(f'benchmark annotations: a process that reads {large} with {kind} ended, see above')
        if not answers.empty():
            found.append(answers.get())
        time.sleep(0.05)
    for rank in ranks:
        rank.join()
    return dict(images=found[0]['images'], seconds=[one['seconds'] for one in found],
                pss=sum((one['pss'] for one in found), []), without=sum((one['without'] for one in found), []))


def _rank(kind: str, files: tuple[str, str], classes: tuple[str, ...], workers: int, samples: int, barrier,
          answers) -> None:
    """One training process: it reads the tiny file, for everything that does not grow, and then the large one."""
    from mmengine.registry import DATASETS as registry
    from mmengine.registry import DefaultScope
    pss = []
    with DefaultScope.overwrite_default_scope('mmdet'):
        for file in files:
            barrier.wait()
            start = time.perf_counter()
            with silent():
                dataset = registry.build(dict(type=kind, ann_file=file, data_prefix=dict(img='images/'), pipeline=[],
                                              metainfo=dict(classes=classes),
                                              filter_cfg=dict(filter_empty_gt=True, min_size=32)))
            seconds = time.perf_counter() - start
            pss.append(_read(dataset, workers, samples, barrier))
    answers.put(dict(images=len(dataset), seconds=seconds, without=pss[0], pss=pss[1]))


def _read(dataset, workers: int, samples: int, barrier) -> list[int]:
    """PSS of this process and of its workers when all have read samples."""
    order = np.random.default_rng(0).integers(0, len(dataset), samples * workers)
    loader = DataLoader(dataset, 8, sampler=order.tolist(), num_workers=workers, collate_fn=len,
                        persistent_workers=True, multiprocessing_context='fork', worker_init_fn=_touch)
    iterator = iter(loader)
    for _ in iterator:
        pass
    barrier.wait()
    folder = os.environ['CONVNEXT_DENSE_CACHE']
    pss = [_pss(pid, folder) for pid in (os.getpid(), *(worker.pid for worker in iterator._workers))]
    barrier.wait()
    return pss


def _touch(_) -> None:
    """Have a worker write to every object it got from its rank, as it does sooner or later: they are shared no more."""
    gc.collect()


def _classes(file: Path) -> tuple[str, ...]:
    """Names of the file's categories."""
    return tuple(element.value['name'] for element in stream_json(file) if element.key == 'categories')


def _pss(pid: int, folder: str) -> int:
    """Proportional set size of a process in bytes, of files only those in a folder.

    Libraries are left out: their share depends on how many other programs have them open.
    """
    total, counted = 0, False
    for line in Path(f'/proc/{pid}/smaps').read_text().splitlines():
        name, _, value = line.partition(':')
        if ' ' in name:  # the first line of a mapping: addresses, permissions, offset, device, inode and path
            path = line.split(maxsplit=5)[5:]
            counted = not path or not path[0].startswith('/') or path[0].startswith(folder)
        elif name == 'Pss' and counted:
            total += int(value.split()[0]) * 1024
    return total
