"""Data and one training run per task that the tests of the tools share."""
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from tool_runs import CHECKPOINTS, CONFIGS, DATA, ToolResult, must_run  # noqa: E402


@dataclass
class TrainedRun:
    """A finished run of a tiny config, started without --work-dir in a folder of its own."""
    task: str
    config: Path
    data_root: Path
    cwd: Path
    finished: ToolResult

    @property
    def work_dir(self) -> Path:
        return self.cwd / 'work_dirs' / self.config.stem

    @property
    def half(self) -> Path:
        """The checkpoint in the middle of the run."""
        return self.work_dir / CHECKPOINTS[self.task][0]

    @property
    def checkpoint(self) -> Path:
        """The checkpoint at the end of the run."""
        return self.work_dir / CHECKPOINTS[self.task][1]


@pytest.fixture(scope='session')
def shapes(make_shapes) -> Path:
    """Eight training and four validation images of 64 pixels, as coco/ and ade/."""
    return make_shapes(train=8, val=4)


@pytest.fixture(scope='session')
def trained(shapes, tmp_path_factory):
    """task -> `TrainedRun`; each task is trained once."""
    runs = {}

    def train(task: str) -> TrainedRun:
        if task not in runs:
            cwd, config, data_root = tmp_path_factory.mktemp(f'trained_{task}'), CONFIGS[task], shapes / DATA[task]
            finished = must_run('train', config, '--data-root', data_root, cwd=cwd)
            runs[task] = TrainedRun(task, config, data_root, cwd, finished)
        return runs[task]
    return train
