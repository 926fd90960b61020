"""Exported models beside PyTorch eager, interleaved, from files to results."""
import argparse
from functools import partial
from pathlib import Path

from ..deploy.proof import compare
from ..inference.predictor import Predictor
from ..runtime import Predictor as Exported
from .timing import interleaved_medians

STOCK, EAGER = 'PyTorch eager, mmdet or mmseg', 'PyTorch eager, this package'


def measure_exported(predictors: dict[str, Predictor], files: list[str], batch: list[Path], args: argparse.Namespace
                     ) -> dict:
    """Median milliseconds of a batch by model, and how results differ from eager's.

    Args:
        predictors: of `compare.build_pair`.
    """
    predictors['ours'].optimize()
    exported = {file: Exported(file, args.device, args.threads, score_thr=0) for file in files}

    def whole(runner):
        return runner.predict([runner.load(file) for file in batch])

    seconds = interleaved_medians({name: partial(whole, runner) for name, runner in {
        STOCK: predictors['stock'], EAGER: predictors['ours'], **exported}.items()}, args.rounds, 1, args.clock)
    expected = whole(predictors['ours'])
    return dict(latency_ms={name: 1e3 * value for name, value in seconds.items()},
                differences={file: str(compare(expected, whole(runner))) for file, runner in exported.items()},
                precision={file: runner.metadata.precision for file, runner in exported.items()})


def format_exported(result: dict) -> str:
    """The measurements as text with one Markdown table."""
    latency = result['latency_ms']
    clock = ' of processor time' if result['clock'] == 'cpu' else ''
    lines = [f"{Path(result['config']).stem}, {result['weights']}, {result['machine']}",
             f"network input {result['batch']}x{'x'.join(map(str, result['network_input']))}, medians of "
             f"{result['rounds']} interleaved rounds", '', f'| | precision | ms per batch{clock} | times as fast as '
             'mmdet or mmseg | as this package |', '| --- | --- | ---: | ---: | ---: |']
    lines += [f"| {name if name in (STOCK, EAGER) else Path(name).name} | {result['precision'].get(name, 'float32')} | "
              f'{value:.1f} | {latency[STOCK] / value:.2f} | {latency[EAGER] / value:.2f} |'
              for name, value in latency.items()]
    lines += ['', *(f'{Path(file).name} against PyTorch: {text}' for file, text in result['differences'].items())]
    return '\n'.join(lines)
