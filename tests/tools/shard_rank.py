"""One of two gloo processes that train with and without --shard; see test_sharding.py.

Arguments: task, folder of the data, folder for everything else.
"""
import importlib
import json
import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from tool_runs import CONFIGS, DATA, forget_earlier_runs  # noqa: E402

# twenty iterations, of which each accumulates two; a checkpoint in the middle; one task has validations and a best one
OPTIONS = {'det': ['train_cfg.max_epochs=10', 'train_cfg.val_interval=100', 'default_hooks.checkpoint.interval=5',
                   'default_hooks.checkpoint.save_best=None'],
           'seg': ['train_cfg.max_iters=20', 'train_cfg.val_interval=10', 'default_hooks.checkpoint.interval=10']}
HALF = {'det': 'epoch_5.pth', 'seg': 'iter_10.pth'}
RECIPE = ("custom_hooks = [dict(type='EMAHook', momentum=0.1)]\n"
          "optim_wrapper = dict(accumulative_counts=2, optimizer=dict(weight_decay=0.05),\n"
          "                     constructor='LayerDecayOptimWrapperConstructor',\n"
          "                     paramwise_cfg=dict(decay_rate=0.9, decay_type='layer_wise'))\n")


def arguments(task: str, data: Path, folder: Path, name: str) -> list[str]:
    """Of the train tool, for a run in ``folder / name``."""
    config = folder / f'{task}.py'
    if not config.is_file():
        config.write_text(f'_base_ = {str(CONFIGS[task])!r}\n{RECIPE}')
    return [str(config), '--data-root', str(data / DATA[task]), '--work-dir', str(folder / name), '--cfg-options',
            *OPTIONS[task], 'default_hooks.checkpoint.max_keep_ckpts=-1',
            'model.backbone.drop_path_rate=0.4', 'randomness.deterministic=True', 'find_unused_parameters=True']


def main(task: str, data: Path, folder: Path) -> None:
    from convnext_dense.engine.runner import DenseRunner
    from convnext_dense.optim.sharding import state_bytes
    train = importlib.import_module('convnext_dense.cli.train')
    sizes, original = {}, DenseRunner.train

    def measured_train(runner):
        model = original(runner)
        sizes[Path(runner.work_dir).name] = state_bytes(runner.optim_wrapper.optimizer)
        return model

    DenseRunner.train = measured_train
    for name, more in (('whole', []), ('shards', ['--shard']),
                       ('resumed', ['--shard', '--resume', str(folder / 'shards' / HALF[task])])):
        train.main([*arguments(task, data, folder, name), '--launcher', 'pytorch', *more])
        forget_earlier_runs()
    (folder / f'rank{os.environ["RANK"]}.json').write_text(json.dumps(sizes))


if __name__ == '__main__':
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
