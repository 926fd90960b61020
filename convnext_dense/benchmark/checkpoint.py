"""How long a training loop waits for a checkpoint that is written beside it, and how long writing takes."""
import argparse
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch

from ..architectures import ARCHITECTURES
from ..engine.checkpoint_writer import CheckpointWriter, save
from ..errors import UserError
from ..models import ConvNeXt
from ..utils.files import atomic_write
from .backbone import describe_machine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('--arch', choices=list(ARCHITECTURES), default='tiny', help='default: %(default)s')
    parser.add_argument('--size', type=int, default=64, help='image side in training (default: %(default)s)')
    parser.add_argument('--checkpoints', type=int, default=5, help='written, after the first (default: %(default)s)')
    parser.add_argument('--folder', type=Path, help='on the disk to write to (default: a temporary one)')


def run(args: argparse.Namespace) -> tuple[dict, str]:
    """Train a backbone with AdamW and write checkpoints; returns the figures and the table to print.

    Raises:
        UserError: no checkpoint is to be written.
    """
    if args.checkpoints < 1:
        raise UserError(f'benchmark checkpoint: --checkpoints must be at least 1, not {args.checkpoints}')
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    model = ConvNeXt(args.arch).to(device)
    optimizer = torch.optim.AdamW(model.parameters())
    images = torch.rand(1, 3, args.size, args.size, device=device)

    def step() -> float:
        start = time.perf_counter()
        sum(output.square().mean() for output in model(images)).backward()
        optimizer.step()
        optimizer.zero_grad()
        if device == 'cuda':
            torch.cuda.synchronize()
        return time.perf_counter() - start

    alone = [step() for _ in range(5)][1:]
    checkpoint = {'state_dict': model.state_dict(), 'optimizer': optimizer.state_dict()}
    with TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / 'checkpoint.pth'
        writer, beside = CheckpointWriter(), []
        for _ in range(args.checkpoints + 1):
            writer.write(checkpoint, path)
            while writer.is_writing:
                beside.append(step())
            writer.wait()
        start = time.perf_counter()
        with atomic_write(path, sync=True) as part:
            save(checkpoint, part)
        waiting = time.perf_counter() - start
        size = path.stat().st_size
    (first, _), *later = writer.seconds
    stall, write = median(seconds for seconds, _ in later), median(seconds for _, seconds in later)
    result = dict(machine=describe_machine(device), arch=args.arch, bytes=size, first_stall=first, stall=stall,
                  write=write, share=stall / write, synchronous=waiting, step_alone=median(alone),
                  step_beside=median(beside))
    return result, format_result(result)


def format_result(result: dict) -> str:
    """The table to print."""
    return '\n'.join([
        f'ConvNeXt-{result["arch"]} and AdamW, checkpoints of {result["bytes"] / 2**20:.0f} MiB, medians',
        f'the loop waits          {1000 * result["stall"]:8.1f} ms '
        f'(the first time {1000 * result["first_stall"]:.1f} ms)',
        f'until it is on the disk {1000 * result["write"]:8.1f} ms, of which the loop waits {result["share"]:.1%}',
        f'written by the loop     {1000 * result["synchronous"]:8.1f} ms',
        f'a training step         {1000 * result["step_alone"]:8.1f} ms, '
        f'{1000 * result["step_beside"]:.1f} ms while a checkpoint is written'])
