"""Training goes on while metrics are computed, and ends as if it waited: metrics, best checkpoint, weights."""
import multiprocessing
import os
import re
import signal

import pytest
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from tool_runs import CHECKPOINTS, CONFIGS, DATA, differing, must_run, run_tool, scalars

from convnext_dense.checkpoints import read_checkpoint
from convnext_dense.engine import hooks
from convnext_dense.engine.hooks import SafeCheckpointHook
from convnext_dense.engine.validation import BackgroundValLoop
from convnext_dense.errors import UserError
from convnext_dense.evaluation.coco_metric import FastCocoMetric
from convnext_dense.evaluation.iou_metric import FastIoUMetric

METRIC = {'det': FastCocoMetric, 'seg': FastIoUMetric}
OF_A_MOMENT = ('cfg', 'experiment_name', 'eta', 'loop_stage')  # in a message hub
reached = multiprocessing.get_context('fork').Event()  # two iterations after the first validation


@HOOKS.register_module(force=True)
class SetReached(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if runner.iter == 5:
            reached.set()


def refuse() -> None:
    raise UserError('image 7 cannot be scored')


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def slow_metrics(monkeypatch):
    """The metrics of the first validation are there two iterations later; ``fails`` is called instead then."""
    reached.clear()
    state = dict(fails=None)
    for metric in METRIC.values():
        def summarize(self, *args, original=metric._summarize):
            if multiprocessing.parent_process():
                assert reached.wait(60), 'training did not go on'
                if state['fails']:
                    state['fails']()
            return original(self, *args)
        monkeypatch.setattr(metric, '_summarize', summarize)
    return state


def arguments(task: str, shapes, folder, name: str) -> list:
    config = folder / f'{task}.py'
    config.write_text(f'_base_ = {str(CONFIGS[task])!r}\n'
                      "custom_hooks = [dict(type='EMAHook', momentum=0.1), dict(type='SetReached')]\n")
    return [config, '--data-root', shapes / DATA[task], '--work-dir', folder / name, '--cfg-options',
            'randomness.deterministic=True', 'default_hooks.checkpoint.max_keep_ckpts=1', 'train_cfg.max_epochs=3'
            if task == 'det' else 'train_cfg.max_iters=12']


@pytest.mark.slow
@pytest.mark.parametrize('task', ['det', 'seg'])
def test_as_if_it_had_waited(task, shapes, slow_metrics, tmp_path, monkeypatch):
    beside = must_run('train', *arguments(task, shapes, tmp_path, 'beside'))
    monkeypatch.setattr(BackgroundValLoop, '_may_go_on', lambda self: False)
    waited = must_run('train', *arguments(task, shapes, tmp_path, 'waited'))

    folders = tmp_path / 'beside', tmp_path / 'waited'
    names, others = (sorted(file.name for file in folder.glob('*.pth')) for folder in folders)
    assert names == others and any(name.startswith('best_') for name in names) and len(names) == 2
    for name in names:
        files = [folder / name for folder in folders]
        assert differing(*files) == [], name
        first, second = (read_checkpoint(file) for file in files)
        assert first.keys() == second.keys() and ('optimizer' in first) == (not name.startswith('best_'))
        if 'optimizer' not in first:  # of the run's own: where it was in the data, too
            assert first['meta']['iter'] == second['meta']['iter'] and first['meta'].keys() == second['meta'].keys()
        infos = [{key: str(value).replace('beside', 'waited') for key, value in
                  checkpoint['message_hub']['runtime_info'].items() if key not in OF_A_MOMENT}
                 for checkpoint in (first, second)]
        assert infos[0] == infos[1], name

    rows = [scalars(folder) for folder in folders]
    metrics = [[{key: value for key, value in row.items() if 'time' not in key} for row in each if 'time' in row
                and 'lr' not in row] for each in rows]
    assert metrics[0] == metrics[1] and len(metrics[0]) == 3
    trained = [row['iter'] for row in rows[0][:[('lr' in row) for row in rows[0]].index(False)]]
    assert trained[-1] in (6, 7), 'the line comes when the metrics are there'
    assert re.search(r'validation after iteration 4 \(epoch \d\): its metrics took [\d.]+ s, beside training up to '
                     r'iteration [67]\n', beside.out + beside.err)
    assert 'beside training' not in waited.out + waited.err


@pytest.mark.slow
def test_metrics_that_come_when_the_next_checkpoint_is_saved(shapes, slow_metrics, tmp_path, monkeypatch):
    """Which checkpoints are kept, and which one is the last, does not depend on how long metrics take."""
    original = SafeCheckpointHook._save_checkpoint_with_step

    def save(self, runner, step, meta):
        if step == 6:
            reached.set()
        return original(self, runner, step, meta)

    monkeypatch.setattr(SafeCheckpointHook, '_save_checkpoint_with_step', save)
    monkeypatch.setattr(SetReached, 'after_train_iter', Hook.after_train_iter)
    options = ['train_cfg.max_epochs=2', 'default_hooks.checkpoint.by_epoch=False',
               'default_hooks.checkpoint.interval=2', 'default_hooks.checkpoint.max_keep_ckpts=2']
    finished = must_run('train', *arguments('det', shapes, tmp_path, 'run'), *options)
    assert re.search('validation after iteration 4 .* beside training up to iteration [56]',
                     finished.out + finished.err)
    infos = {step: read_checkpoint(tmp_path / f'run/iter_{step}.pth')['message_hub']['runtime_info'] for step in (6, 8)}
    assert [infos[step]['keep_ckpt_ids'] for step in (6, 8)] == [[4, 6], [6, 8]]
    assert [os.path.basename(infos[step]['last_ckpt']) for step in (6, 8)] == ['iter_6.pth', 'iter_8.pth']
    assert sorted(file.name for file in (tmp_path / 'run').glob('iter_*.pth')) == ['iter_6.pth', 'iter_8.pth']


@pytest.mark.slow
def test_a_run_that_ends_beside_a_new_best_checkpoint_leaves_one(shapes, tmp_path, monkeypatch):
    """The old one is gone before the run's own checkpoint, written again, knows the new one alone."""
    original = hooks._point_to

    def point_to(checkpoint, work_dir):
        if list((tmp_path / 'run').glob('best_*_8.pth')):
            raise UserError('ended from outside')
        original(checkpoint, work_dir)

    monkeypatch.setattr(hooks, '_point_to', point_to)
    assert 'ended from outside' in run_tool('train', *arguments('seg', shapes, tmp_path, 'run')).error
    assert [file.name for file in (tmp_path / 'run').glob('best_*.pth')] == ['best_mIoU_iter_8.pth']
    monkeypatch.setattr(hooks, '_point_to', original)
    must_run('train', *arguments('seg', shapes, tmp_path, 'run'), '--resume')
    assert len(list((tmp_path / 'run').glob('best_*.pth'))) == 1


@pytest.mark.slow
@pytest.mark.parametrize('fails, words', [(refuse, 'image 7 cannot be scored'), (die, 'exit status -9')])
def test_a_failure_is_reported_and_made_up_for(fails, words, shapes, slow_metrics, tmp_path):
    slow_metrics['fails'] = fails
    command = arguments('det', shapes, tmp_path, 'run')
    assert words in run_tool('train', *command).error
    assert (tmp_path / 'run' / CHECKPOINTS['det'][0]).is_file()
    if fails is die:
        return
    slow_metrics['fails'] = None
    finished = must_run('train', *command, '--resume')
    assert 'the validation after iteration 4 was not completed: it is made up for' in finished.out + finished.err
    assert [row['step'] for row in scalars(tmp_path / 'run') if 'lr' not in row] == [1, 2, 3]


@pytest.mark.slow
def test_training_waits_where_it_must(shapes, tmp_path):
    """The best checkpoint of an iteration without one."""
    finished = must_run('train', *arguments('det', shapes, tmp_path, 'run'), 'default_hooks.checkpoint.interval=3')
    assert 'beside training' not in finished.out + finished.err
    assert list((tmp_path / 'run').glob('best_*.pth'))
