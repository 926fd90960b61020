"""A rank that dies on another node is named, and a job that Slurm ends continues by itself."""
import os
import shutil
import sys

import pytest
from tool_runs import DATA, ROOT, TOOL_TESTS, iterations, run_command
from two_nodes import end_one

# a stand-in for Slurm on one machine: one rank, no launcher, and a queue in which a job waits for no one
SLURM = {
    'sbatch': 'while [ "$1" != "${1#-}" ] && [ "${1#--wrap=}" = "$1" ]; do\n'
              '  [ "$1" = -p ] && shift\n  echo "option $1" >> "$QUEUE"\n  shift\ndone\n'
              'echo "${1#--wrap=}" > "$QUEUE.job"\nexport SLURM_JOB_ID=7\nexec bash "$QUEUE.job"\n',
    'srun': 'while [ "$1" != "$PYTHON" ]; do shift; done\n'
            'exec "${@//slurm/none}"\n',
    'scontrol': 'echo "$@" >> "$QUEUE"\nexport SLURM_RESTART_COUNT=1\nexec bash "$QUEUE.job"\n',
}


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """`sbatch`, `srun` and `scontrol` as above; returns the file in which they note what they are asked."""
    (tmp_path / 'bin').mkdir()
    for name, script in SLURM.items():
        (tmp_path / 'bin' / name).write_text(f'#!/usr/bin/env bash\nset -eu\n{script}')
        (tmp_path / 'bin' / name).chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path / "bin"}:{os.environ["PATH"]}')
    monkeypatch.setenv('QUEUE', str(tmp_path / 'queue'))
    monkeypatch.delenv('SLURM_JOB_ID', raising=False)
    return tmp_path / 'queue'


@pytest.mark.slow
def test_a_job_that_is_ended_goes_back_into_the_queue_and_continues(shapes, slurm, tmp_path):
    tools = shutil.copytree(ROOT / 'tools', tmp_path / 'tools')  # its path has no 'slurm' in it
    config = tmp_path / 'ended.py'
    config.write_text(f'_base_ = {str(TOOL_TESTS / "tiny_seg.py")!r}\n'
                      "custom_imports = dict(imports=['convnext_dense', 'kill_moments'])\n"
                      "custom_hooks = [dict(type='KillAt', moment='train', number=5, how='SIGUSR1')]\n")
    # the second run has three iterations left, so that it is not ended
    log = run_command([tools / 'slurm_train.sh', 'part', 'job', config, 1, '--data-root', shapes / DATA['seg'],
                       '--work-dir', tmp_path / 'run'], tmp_path / 'log', tmp_path, REQUEUE='1', PYTHON=sys.executable,
                      PYTHONPATH=str(TOOL_TESTS))
    asked = slurm.read_text()
    assert 'option --requeue' in asked and 'option --signal=USR1@120' in asked and asked.endswith('requeue 7\n')
    assert 'job 7 goes back into the queue' in log
    assert [iteration for _, iteration in iterations(log)] == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.slow
def test_a_rank_that_is_killed_is_named(shapes, tmp_path):
    said = end_one('worker', shapes, tmp_path)
    assert len(said) == 1 and ' died first (' in said[0] and said[0].endswith(
        '; continue with the same command and --resume'), said
