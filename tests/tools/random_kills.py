"""Runs that are killed at random moments and resumed end as runs that are not: prints hashes of everything.

    python tests/tools/random_kills.py --task det seg --workers 0 2 --kills 20
"""
import argparse
import hashlib
import importlib
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from tool_runs import CONFIGS, DATA  # noqa: E402

ITERATIONS, EVERY = 16, 3  # of a run; between checkpoints: the tiny detector's epochs have four
OPTIONS = [
    'model.backbone.drop_path_rate=0.4', 'randomness.deterministic=True', 'default_hooks.checkpoint.by_epoch=False',
    f'default_hooks.checkpoint.interval={EVERY}', 'default_hooks.checkpoint.max_keep_ckpts=2',
    'default_hooks.checkpoint.minutes=0.02',
    'log_processor.window_size=5', 'param_scheduler.0.end=12']
METRICS = 0.2  # seconds that the computation of metrics is made longer, so that kills come in the middle of it
EMA = "custom_hooks = [dict(type='EMAHook', momentum=0.1, update_buffers=True)]\n"
TASKS = {'det': ['train_cfg.max_epochs=4'],
         'seg': [f'train_cfg.max_iters={ITERATIONS}', 'train_cfg.val_interval=4',
                 'model.decode_head.dropout_ratio=0.1']}


def digest(value) -> str:
    """Hash of all tensors, numbers and names in nested containers."""
    import torch
    found = hashlib.sha256()

    def add(node):
        if isinstance(node, dict):
            for key in sorted(node, key=str):
                found.update(str(key).encode())
                add(node[key])
        elif isinstance(node, (list, tuple)):
            for entry in node:
                add(entry)
        elif isinstance(node, torch.Tensor):
            found.update(node.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        else:
            found.update(repr(node).encode())
    add(value)
    return found.hexdigest()[:12]


def result(work_dir: Path) -> tuple[str, ...]:
    """Hashes of parameters, EMA, optimizer and schedules; the best checkpoint's name, score and weights."""
    from convnext_dense.checkpoints import read_checkpoint
    last = read_checkpoint(work_dir / f'iter_{ITERATIONS}.pth')
    hub = last['message_hub']['runtime_info']
    best = sorted(work_dir.glob('best_*.pth'))
    return (*(digest(last[part]) for part in ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers')),
            *(f'{file.name} {digest(read_checkpoint(file)["state_dict"])}' for file in best),
            f'score {hub.get("best_score")!r}', f'kept {hub.get("keep_ckpt_ids")}')


def start(arguments: list, work_dir: Path, die_after: float | None) -> int:
    """Train in a forked process, which has nothing to import; returns its status, -9 when it was killed."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.setpgid(0, 0)
    log = os.open(f'{work_dir}.log', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    from mmengine.hooks import Hook

    from convnext_dense.cli import train
    from convnext_dense.engine.runner import DenseRunner
    from convnext_dense.evaluation.coco_metric import FastCocoMetric
    from convnext_dense.evaluation.iou_metric import FastIoUMetric

    class Timed(Hook):
        priority = 'VERY_HIGH'

        def before_train(self, runner) -> None:
            self.began = time.perf_counter()
            if die_after is not None and not os.fork():  # a process that kills whatever this one is doing
                time.sleep(die_after)
                os.killpg(os.getppid(), signal.SIGKILL)
                os._exit(0)

        def after_train(self, runner) -> None:
            if die_after is None:
                Path(f'{work_dir}.seconds').write_text(str(time.perf_counter() - self.began))

    for metric in (FastCocoMetric, FastIoUMetric):
        def summarize(self, *args, original=metric._summarize):
            time.sleep(METRICS)
            return original(self, *args)
        metric._summarize = summarize
    original = DenseRunner.train

    def timed_train(self):
        self.register_hook(Timed())
        return original(self)

    DenseRunner.train = timed_train
    try:
        train.main([str(argument) for argument in arguments])
        status = 0
    except BaseException:
        traceback.print_exc()
        status = 1
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(os.getpid(), signal.SIGTERM)  # the process that would have killed
    os._exit(status)


def kill_often(task: str, workers: int, kills: int, data_root: Path, folder: Path, seed: int = 0) -> bool:
    """Kill runs ``kills`` times in all, resume each until it ends, and compare; prints a line a run."""
    config = folder / f'{task}_{workers}.py'
    config.write_text(f'_base_ = {str(CONFIGS[task])!r}\n{EMA}')

    def arguments(work_dir: Path, *more) -> list:
        loader = [f'train_dataloader.num_workers={workers}', f'train_dataloader.persistent_workers={workers > 0}']
        return [config, '--data-root', data_root / DATA[task], '--work-dir', work_dir, '--device', 'cpu', *more,
                '--cfg-options', *OPTIONS, *TASKS[task], *loader]

    whole = folder / f'{task}_{workers}_whole'
    status = start(arguments(whole), whole, None)
    assert status == 0, Path(f'{whole}.log').read_text()[-3000:]
    expected, seconds = result(whole), float(Path(f'{whole}.seconds').read_text())
    print(f'{task}, {workers} worker(s), never stopped: {" ".join(expected)} ({seconds:.1f} s)', flush=True)
    chosen, number, all_equal = random.Random(seed), 0, True
    while kills > 0:
        number += 1
        work_dir, moments = folder / f'{task}_{workers}_{number}', []
        while True:
            moment = chosen.uniform(0, seconds) if kills > 0 and len(moments) < 5 else None
            more = ['--resume'] if moments else []
            if start(arguments(work_dir, *more), work_dir, moment) == 0:
                break
            assert moment is not None, Path(f'{work_dir}.log').read_text()[-3000:]
            kills -= 1
            files = ', '.join(sorted(file.name for file in work_dir.glob('*.pth'))) if work_dir.exists() else ''
            moments.append(f'{moment:.2f} s [{files}]')
        equal = result(work_dir) == expected
        all_equal &= equal
        print(f'{task}, {workers} worker(s), killed {len(moments)} times after {"; ".join(moments)}: '
              f'{" ".join(result(work_dir))}: {"equal" if equal else "DIFFERENT"}', flush=True)
    return all_equal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--task', nargs='+', choices=list(CONFIGS), default=list(CONFIGS))
    parser.add_argument('--workers', nargs='+', type=int, default=[0, 2])
    parser.add_argument('--kills', type=int, default=20, help='for each task and number of workers')
    args = parser.parse_args()
    os.environ['CUDA_VISIBLE_DEVICES'] = '-1'
    import torch

    import convnext_dense
    torch.set_num_threads(1)
    convnext_dense.prepare()
    importlib.import_module('convnext_dense.engine.runner')  # once, not in every run
    importlib.import_module('mmdet.apis')
    importlib.import_module('mmseg.apis')
    from convnext_dense.datasets.shapes import ShapesParams, generate_shapes
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        generate_shapes(folder / 'shapes', ShapesParams(seed=0, train=8, val=4, size=64))
        done = [kill_often(task, workers, args.kills, folder / 'shapes', folder) for task in args.task
                for workers in args.workers]
    sys.exit(0 if all(done) else 1)


if __name__ == '__main__':
    main()
