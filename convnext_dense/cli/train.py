"""Train a recipe, on one or many GPUs or on a CPU."""
import argparse
from pathlib import Path

from ..errors import UserError
from .running import tool_line


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog='Many GPUs: tools/dist_train.sh CONFIG GPUS')
    parser.add_argument('config', help='a config file, one of the package (det/... or seg/...), or a folder of data, '
                                       'for which a project is made in --work-dir (default: work_dirs/<its name>)')
    parser.add_argument('--work-dir', help='folder for checkpoints and logs (default: work_dirs/<config name>)')
    parser.add_argument('--data-root', help='folder of the data, for every loader and evaluator')
    parser.add_argument('--resume', nargs='?', const=True, default=False, metavar='CHECKPOINT',
                        help='continue the newest run in the work dir (or WORK_DIR2, ...), or start from this '
                             'checkpoint of a run')
    parser.add_argument('--exist', choices=['new', 'stop'], default='new',
                        help='when the work dir has a run: train in WORK_DIR2, 3, ... (new), or stop with an error '
                             '(default: %(default)s)')
    parser.add_argument('--load-from', metavar='CHECKPOINT', help='start from these weights')
    parser.add_argument('--amp', choices=['fp16', 'bf16', 'off'], help='mixed precision (default: the recipe\'s)')
    parser.add_argument('--shard', action='store_true',
                        help='divide the state of the optimizer among the processes (ZeRO, stage 1)')
    parser.add_argument('--auto-scale-lr', action='store_true',
                        help='scale the learning rate by the batch size over the recipe\'s')
    parser.add_argument('--device', choices=['auto', 'cuda', 'cpu'], default='auto')
    parser.add_argument('--seed', type=int, help='random seed of weights, data order and augmentation')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='override settings of the config')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    return parser.parse_args(argv)


def project_config(data: Path, args: argparse.Namespace) -> str:
    """The config of a project for a folder of data, with the defaults of new_project; an earlier one is used again.

    Raises:
        UserError: the folder is no data set that can be used as it is, or there are several ranks.
    """
    from ..datasets.direct import open_dataset
    from ..projects.choose import plan_project, write_project
    folder = Path(args.work_dir or f'work_dirs/{data.resolve().name}')
    file = folder / 'config.py'
    if args.launcher != 'none' and not file.is_file():
        raise UserError(f'{data} is a folder of data, and several processes would write its config: make it with '
                        f'{tool_line("new_project", folder, "--data", data)}')
    if not file.is_file():
        root, info, notes = open_dataset(data, folder / 'data')
        device = None if args.device == 'auto' else args.device
        write_project(str(folder), plan_project(str(root), device=device, info=info))
        print('\n'.join([*notes, f'{file}: written with the defaults of new_project']))
    return str(file)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    from ..config import load_config
    from ..config.preflight import check_launcher
    from ..engine.runner import DenseRunner, prepare_training
    from ..engine.work_dir import new_work_dir, newest_work_dir, owned_work_dir
    from ..mm.device import use_device
    from ..mm.environment import launched_rank
    use_device(args.device)
    if Path(args.config).is_dir():
        args.config = project_config(Path(args.config), args)
        args.work_dir = None  # the project's own
    cfg = load_config(args.config, args.cfg_options, args.data_root, args.work_dir)
    if args.load_from:
        cfg.load_from = args.load_from
    if args.seed is not None:
        cfg.randomness = {**cfg.get('randomness', {}), 'seed': args.seed}
    check_launcher(args.launcher)
    if args.resume is True or cfg.get('resume'):
        cfg.work_dir = newest_work_dir(cfg.work_dir)
    elif not args.resume:
        cfg.work_dir = new_work_dir(cfg.work_dir, args.exist)
    with owned_work_dir(cfg.work_dir, launched_rank(args.launcher)):
        cfg = prepare_training(cfg, resume=args.resume, amp=args.amp, auto_scale_lr=args.auto_scale_lr,
                               launcher=args.launcher, shard=args.shard)
        runner = DenseRunner.from_cfg(cfg)
        runner.train()
    if runner.rank == 0:
        print(f'trained; look at the result with: {tool_line("report", cfg.work_dir)}')
