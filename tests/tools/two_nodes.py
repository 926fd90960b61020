"""Two torchrun agents on this machine as two nodes: ends one of their processes, and prints what the ranks say then.

    python tests/tools/two_nodes.py worker agent host frozen sigterm --task det --per-node 2
"""
import argparse
import os
import re
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from tool_runs import CONFIGS, DATA, ROOT, free_port, iterations, kill, launch  # noqa: E402

# what is ended, on which node (the first has the rendezvous), and how
ENDS = {'worker': ('worker', 1, signal.SIGKILL), 'agent': ('agent', 1, signal.SIGKILL),
        'host': ('agent', 0, signal.SIGKILL), 'frozen': ('worker', 1, signal.SIGSTOP),
        'sigterm': ('agent', 0, signal.SIGTERM)}
ENDLESS = ['train_cfg.val_interval=1000000', 'default_hooks.checkpoint.interval=1000000']
LENGTH = {'det': 'train_cfg.max_epochs=1000000', 'seg': 'train_cfg.max_iters=1000000'}


def children(parent: int) -> list[int]:
    """Processes that a process has started."""
    found = []
    for stat in Path('/proc').glob('[0-9]*/stat'):
        try:
            fields = stat.read_text().rpartition(')')[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[1]) == parent:
            found.append(int(stat.parent.name))
    return found


def is_alive(process: int) -> bool:
    try:
        return Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False


def wait_for_training(logs: list[Path], agents: list) -> None:
    """Rank 0, which writes the log, is on either node."""
    end = time.monotonic() + 300
    while not any(len(iterations(log.read_text())) >= 3 for log in logs):
        assert time.monotonic() < end and all(agent.poll() is None for agent in agents), \
            [log.read_text()[-3000:] for log in logs]
        time.sleep(0.1)


def end_one(scenario: str, data_root: Path, folder: Path, per_node: int = 1, task: str = 'seg', limit: float = 120
            ) -> list[str]:
    """Train on two nodes and end a process; returns what each rank said. Fails if they take longer than ``limit``."""
    kind, node, how = ENDS[scenario]
    config, port = folder / f'{scenario}.py', free_port()
    config.write_text(f'_base_ = {str(CONFIGS[task])!r}\n')
    logs = [folder / f'{scenario}_{number}.log' for number in (0, 1)]
    command = [ROOT / 'tools/dist_train.sh', config, per_node, '--data-root', data_root / DATA[task], '--work-dir',
               folder / scenario, '--cfg-options', *ENDLESS, LENGTH[task]]
    agents = []
    try:
        for log in logs:
            agents.append(launch(command, log, folder, NNODES='2', MASTER_ADDR='127.0.0.1', PORT=port))
            time.sleep(1)
        wait_for_training(logs, agents)
        workers = [children(agent.pid) for agent in agents]
        assert [len(found) for found in workers] == [per_node] * 2, workers
        start = time.monotonic()
        ended = workers[node][0] if kind == 'worker' else agents[node].pid
        os.kill(ended, how)
        left = [process for found in workers for process in found if how != signal.SIGSTOP or process != ended]
        while any(map(is_alive, left)) and time.monotonic() - start < limit:
            time.sleep(0.1)
        seconds = time.monotonic() - start
        said = [line for log in logs for line in log.read_text().splitlines()
                if re.match(r'error: rank|terminated', line)]
        print(f'{task}, {per_node} rank(s) a node, {scenario}: ended after {seconds:.1f} s', *said, sep='\n  ',
              flush=True)
        assert not any(map(is_alive, left)), f'{scenario}: ranks are still there after {limit} s'
        return said
    finally:
        for agent in agents:
            for process in children(agent.pid):
                os.kill(process, signal.SIGKILL)
            kill(agent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('scenarios', nargs='*', choices=list(ENDS), default=list(ENDS))
    parser.add_argument('--per-node', type=int, default=1)
    parser.add_argument('--task', choices=list(CONFIGS), default='seg')
    args = parser.parse_args()
    from convnext_dense.datasets.shapes import ShapesParams, generate_shapes
    with tempfile.TemporaryDirectory() as folder:
        generate_shapes(Path(folder) / 'shapes', ShapesParams(seed=0, train=32, val=4, size=64))
        for scenario in args.scenarios:
            end_one(scenario, Path(folder) / 'shapes', Path(folder), args.per_node, args.task)
            if scenario == 'sigterm':
                print('  saved:', sorted(file.name for file in (Path(folder) / scenario).glob('*.pth')))


if __name__ == '__main__':
    main()
