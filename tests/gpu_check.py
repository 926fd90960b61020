"""Everything that needs a GPU, in one call of under nine minutes, with one table last: `make gpu`.

    python tests/gpu_check.py              # on a machine with a GPU; no network is needed
    python tests/gpu_check.py --dry-run    # the same commands on the CPU, as small as they can be, to see that they run

Every command has a limit of its own and the whole has one; what no longer fits is left out, and the table says so.
Outputs and results in json stay in a folder. The exit status is 1 if a command failed or ran out of time.
"""
import argparse
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

ROOT = Path(__file__).resolve().parents[1]
MASK_RCNN = 'det/mask-rcnn_convnext-t-in1k_fpn_8xb2-amp-ms-crop-3x_coco.py'
UPERNET = 'seg/upernet_convnext-t-in1k_8xb2-amp-160k_ade20k-512x512.py'
SHAPES = {'det': 'det/mask-rcnn_convnext-atto_fpn_1xb8-4e_shapes.py',
          'seg': 'seg/upernet_convnext-atto_1xb8-700i_shapes-128x128.py'}
TINY = {task: f'tests/tools/tiny_{task}.py' for task in ('det', 'seg')}
FOLDER = {'det': 'coco', 'seg': 'ade'}
METRIC = {'det': 'coco/segm_mAP', 'seg': 'mIoU'}
LEAST = 5  # seconds that must be left to start a command


@dataclass
class Step:
    """A command, its limit in seconds, and how its folder and output become a phrase for the table."""
    name: str
    command: list
    limit: float
    summary: Callable[[Path, str], str]


def tool(name: str, *args) -> list:
    return [sys.executable, ROOT / 'tools' / f'{name}.py', *args]


def steps(folder: Path, data: Path | None, dry: bool) -> list[Step]:
    """Everything in order of importance; what comes first still runs where time is short."""
    device = 'cpu' if dry else 'cuda'
    shapes = folder / 'shapes'
    machine = ('import torch; print("torch", torch.__version__, "on", '
               'torch.cuda.get_device_name() if torch.cuda.is_available() else "a CPU")')
    found = [Step('machine', [sys.executable, '-c', machine], 60, last_line)]
    if not dry:
        files = sorted(str(file) for file in (ROOT / 'tests').glob('*/test_*.py') if 'mark.gpu' in file.read_text())
        found.append(Step('GPU tests', [sys.executable, '-m', 'pytest', '-q', '-m', 'gpu', *files], 150, last_line))
    found.append(Step('operators', tool('check_ops', '--device', device), 90, operators))
    for task, config in (('det', TINY['det'] if dry else MASK_RCNN), ('seg', TINY['seg'] if dry else UPERNET)):
        real = ['--data-root', data / 'coco'] if data and not dry and task == 'det' else []
        size = [] if dry or real else ['--size', 800, 1216] if task == 'det' else ['--size', 512, 512]
        amount = ['--rounds', 1, '--no-memory'] if dry else ['--batches', 2, 8, '--rounds', 7, '--amp', 'fp16']
        file = folder / f'train_{task}.json'
        found.append(Step(f'training step, {task}', tool('benchmark', 'train', config, '--compare', '--device', device,
                                                         *amount, *size, *real, '--json', file), 100, training_step))
        if not dry:
            file = folder / f'host_{task}.json'
            found.append(Step(f'64x64 images, {task}', tool(
                'benchmark', 'train', config, '--compare', '--device', device, '--size', 64, 64, '--amp', 'fp16',
                '--no-memory', '--json', file), 60, training_step))
    found.append(Step('fused kernels', tool(
        'benchmark', 'kernels', '--device', device, '--arch', architecture(), '--json', folder / 'kernels.json',
        *(['--channels', 8, '--dtypes', 'float32', '--shape', 1, 4, 4] if dry else
          ['--channels', 96, 768, '--shape', 8, 128, 128, '--dtypes', 'bfloat16', 'float32'])), 80, kernels))
    small = ['--size', 64, 64, '--dtypes', 'float32', '--groups', 'forward', '--peers'] if dry else [
        '--size', 800, 1216, '--batch', 2, '--dtypes', 'bfloat16', '--groups', 'forward', 'forward+backward']
    found.append(Step('backbone', tool('benchmark', 'backbone', '--device', device, '--rounds', 1 if dry else 9,
                                       '--no-memory', *small, '--json', folder / 'backbone.json'), 60, backbone))
    found.append(Step('shapes', tool('make_shapes', '--out', shapes, *(['--train', 8, '--val', 2, '--size', 64]
                                                                       if dry else ['--train', 400, '--val', 40])),
                      60, last_line))
    for amp in ('off',) if dry else ('fp16', 'bf16', 'off'):
        for task in ('det', 'seg'):
            length = {'det': 'train_cfg.max_epochs=1' if dry else 'train_cfg.max_epochs=4',
                      'seg': 'train_cfg.max_iters=4' if dry else 'train_cfg.max_iters=300'}[task]
            found.append(Step(f'train, {task}, {amp}', tool(
                'train', (TINY if dry else SHAPES)[task], '--device', device, '--amp', amp, '--seed', 0,
                '--data-root', shapes / FOLDER[task], '--work-dir', folder / f'{task}_{amp}', '--cfg-options', length),
                90, training(task, folder / f'{task}_{amp}')))
    for task, config, size in () if dry else (('seg', UPERNET, (512, 512)), ('det', MASK_RCNN, (800, 1216))):
        for mode in ('default', 'reduce-overhead'):  # compiling takes minutes
            found.append(Step(f'compiled step, {task}, {mode}', tool(
                'benchmark', 'train', config, '--compare', '--device', device, '--batches', 2, '--rounds', 7, '--amp',
                'fp16', '--size', *size, '--compile', mode, '--json', folder / f'compiled_{task}_{mode}.json'),
                150, training_step))
    return found


def architecture() -> int:
    """Compute capability of the GPU times ten; 90 without one."""
    import torch
    major, minor = torch.cuda.get_device_capability() if torch.cuda.is_available() else (9, 0)
    return 10 * major + minor


def last_line(folder: Path, output: str) -> str:
    lines = [line.strip('= ') for line in output.splitlines() if line.strip()]
    return lines[-1][:110] if lines else ''


def operators(folder: Path, output: str) -> str:
    """The largest difference between CPU and GPU, and how many cases have other indices."""
    found = re.search(r'against themselves on the CPU.*?\n(.*?)(\n\n|\Z)', output, re.DOTALL)
    rows = [line.split() for line in found[1].splitlines()[1:]] if found else []
    if not rows:
        return last_line(folder, output)
    worst = max(rows, key=lambda row: float(row[-2]))
    differ = sum(int(row[-3]) for row in rows)
    return f'{len(rows)} rows; largest difference {worst[-2]} ({worst[0]}), {differ} with other indices'


def training_step(folder: Path, output: str) -> str:
    """Ratio, images per second and waits of each batch size."""
    texts = []
    for block in re.split(r'\n(?=\d+ images a step)', output)[1:]:
        images, whole, waits, ratio = (re.search(pattern, block) for pattern in (
            r'(\d+) images', r'\| images per second \| (\S+) \| (\S+)', r'\| waits \| (\d+) \| (\d+)',
            r'stock / ours: median (\S+),'))
        texts.append(f'{images[1]} images: out of memory' if whole is None else
                     f'{images[1]} images: {ratio[1]}x, {whole[2]} images/s, {waits[2]} waits (stock {waits[1]})')
    return '; '.join(texts) or last_line(folder, output)


def kernels(folder: Path, output: str) -> str:
    """Plain over fused time of each operator at the first channels and type."""
    rows = json.loads((folder / 'kernels.json').read_text())['rows']
    timed = [row for row in rows if 'fused_ms' in row]
    text = ', '.join(f"{row['operator']} {row['dtype']} {row['channels']}: {row['plain_ms'] / row['fused_ms']:.2f}x"
                     for row in timed)
    return text or last_line(folder, output)


def backbone(folder: Path, output: str) -> str:
    """Our time over that of the fastest peer, for each group."""
    rows = json.loads((folder / 'backbone.json').read_text())['rows']
    ours = [row for row in rows if row['name'] == 'ours']
    return ', '.join(f"{row['dtype']} {row['group']}: {row['median_ms']:.1f} ms"
                     + (f" ({row['of_fastest_peer']:.2f} of the fastest peer)" if 'of_fastest_peer' in row else '')
                     for row in ours)


def training(task: str, work_dir: Path) -> Callable[[Path, str], str]:
    """First and last loss, and the last metric."""
    def summary(folder: Path, output: str) -> str:
        lines = [json.loads(line) for file in sorted(work_dir.glob('*/vis_data/scalars.json'))
                 for line in file.read_text().splitlines()]
        losses = [line['loss'] for line in lines if 'loss' in line]
        metrics = [line[METRIC[task]] for line in lines if METRIC[task] in line]
        return (f'loss {losses[0]:.3g} to {losses[-1]:.3g}, ' if losses else '') + (
            f'{METRIC[task]} {metrics[-1]:.4g}' if metrics else 'no metric')
    return summary


def run_steps(todo: list[Step], folder: Path, limit: float) -> list[dict]:
    """Run one after the other; a row of name, seconds, state and text for each."""
    end, rows = monotonic() + limit, []
    for number, step in enumerate(todo):
        left = end - monotonic()
        if left < LEAST:
            rows.append(dict(name=step.name, seconds=0.0, state='no time left', text=''))
            continue
        print(f'[{limit - left:.0f} s] {step.name}', flush=True)
        start, log = monotonic(), folder / f'{number:02}.log'
        state = run_command([str(part) for part in step.command], log, min(step.limit, left))
        output = log.read_text(errors='replace')
        if state == 'ok':
            try:
                text = step.summary(folder, output)
            except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
                state, text = 'failed', f'its result could not be read: {error!r}'
        else:
            text = last_line(folder, output)
            print(output[-3000:], flush=True)
        rows.append(dict(name=step.name, seconds=monotonic() - start, state=state, text=text))
        (folder / 'rows.json').write_text(json.dumps(rows, indent=1))
    return rows


def run_command(command: list[str], log: Path, limit: float) -> str:
    """'ok', 'failed' or 'timed out'; a command that takes too long is ended with its children."""
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))}
    with log.open('w') as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT, env=environment,
                                   start_new_session=True)
        try:
            return 'failed' if process.wait(limit) else 'ok'
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return 'timed out'


def table(rows: list[dict]) -> str:
    lines = ['| what | seconds | state | result |', '| --- | ---: | --- | --- |']
    return '\n'.join(lines + [f"| {row['name']} | {row['seconds']:.0f} | {row['state']} | {row['text']} |"
                              for row in rows])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--dry-run', action='store_true', help='the smallest form of everything, on the CPU')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/gpu'), help='folder for outputs and results')
    parser.add_argument('--data', type=Path,
                        default=Path(os.environ.get('CONVNEXT_DENSE_DATA', ROOT / '../shared/data')),
                        help='folder with coco/, whose images the training step then takes')
    parser.add_argument('--limit', type=float, default=520, help='seconds for everything')
    args = parser.parse_args(argv)
    folder = args.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    data = args.data.resolve() if (args.data / 'coco').is_dir() else None
    rows = run_steps(steps(folder, data, args.dry_run), folder, args.limit)
    print(table(rows))
    return int(any(row['state'] in ('failed', 'timed out') for row in rows))


if __name__ == '__main__':
    sys.exit(main())
