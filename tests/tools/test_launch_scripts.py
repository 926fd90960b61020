"""tools/dist_train.sh and slurm_train.sh: what they start, and that a stopped run's command line starts it again."""
import json
import subprocess
import sys

import pytest
from tool_runs import ROOT

from convnext_dense.cli.running import COMMAND, how_to_continue, stop

# stands for python and srun: records its arguments and the variable, and starts nothing
RECORDER = f"""#!{sys.executable}
import json, os, sys
print(json.dumps([sys.argv[1:], os.environ["{COMMAND}"]]))
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Run a command line in a shell; returns what would be started and the variable for the continuation."""
    for name in ('python', 'srun'):
        (tmp_path / name).write_text(RECORDER)
        (tmp_path / name).chmod(0o755)
    for name in ('NNODES', 'NODE_RANK', 'MASTER_ADDR', 'PORT', 'PYTHON', 'GPUS_PER_NODE', 'CPUS_PER_TASK', 'SRUN_ARGS'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('PATH', f'{tmp_path}:/usr/bin:/bin')

    def run(line: str):
        shell = subprocess.run(['bash', '-c', line], cwd=ROOT, text=True, capture_output=True, check=True)
        return json.loads(shell.stdout)
    return run


@pytest.mark.parametrize('line', [
    'tools/dist_train.sh "a b.py" 2 --cfg-options "x=dict(y=\'z w\')"',
    'NNODES=2 NODE_RANK=1 MASTER_ADDR=10.0.0.1 PORT=1234 tools/dist_train.sh c.py 8 --work-dir out',
    'tools/slurm_train.sh part "job 1" c.py 16 --amp off',
    'GPUS_PER_NODE=4 SRUN_ARGS="--mem=64G --exclusive" tools/slurm_train.sh part job c.py 16',
])
def test_the_printed_command_starts_the_same_with_resume(line, start, monkeypatch):
    started, command = start(line)
    monkeypatch.setenv(COMMAND, command)
    said = how_to_continue(['tools/train.py', *started[started.index('--launcher') - 1:]])
    printed = said.removeprefix('continue with: ')
    assert printed != said
    again, _ = start(printed)
    assert again == [*started, '--resume']
    monkeypatch.setenv(COMMAND, start(printed)[1])
    assert how_to_continue(['tools/train.py', '--launcher', 'pytorch']) == said, 'and once more after the next stop'


def test_another_launcher(monkeypatch):
    monkeypatch.delenv(COMMAND, raising=False)
    assert how_to_continue(['train.py', 'c.py', '--launcher=mpi']) == 'continue with the same command and --resume'


@pytest.mark.parametrize('launcher, variable', [('pytorch', 'RANK'), ('slurm', 'SLURM_PROCID'),
                                                ('mpi', 'OMPI_COMM_WORLD_RANK')])
def test_one_rank_says_it(launcher, variable, monkeypatch, capsys):
    monkeypatch.setattr('signal.signal', lambda *args: None)
    monkeypatch.setattr(sys, 'argv', ['train.py', '--launcher', launcher])
    said = []
    for rank in (0, 1):
        monkeypatch.setenv(variable, str(rank))
        with pytest.raises(SystemExit) as ended:
            stop(KeyboardInterrupt(), '; go on')
        assert ended.value.code == 130
        said.append(capsys.readouterr().err)
    assert said == ['interrupted; go on\n', '']
