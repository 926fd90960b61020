"""A diverging run stops with its batch saved and named; what keeps a run from learning is logged once."""
import re
from types import SimpleNamespace

import pytest
import torch
from torch import nn

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from mmdet.models.task_modules.prior_generators import AnchorGenerator  # noqa: E402
from mmdet.structures import DetDataSample  # noqa: E402
from mmengine.structures import InstanceData, PixelData  # noqa: E402
from mmseg.structures import SegDataSample  # noqa: E402

from convnext_dense.engine import training_watch  # noqa: E402
from convnext_dense.engine.training_watch import WatchTrainingHook  # noqa: E402
from convnext_dense.errors import UserError  # noqa: E402
from convnext_dense.mm.transfer import HostCopy  # noqa: E402


@pytest.fixture
def said(monkeypatch):
    """Every sentence that the hook logs."""
    sentences = []
    monkeypatch.setattr(training_watch, 'print_log', lambda message, **_: sentences.append(message))
    return sentences


class Model(nn.Module):
    """A backbone and a head with three classes."""

    def __init__(self):
        super().__init__()
        self.backbone, self.bbox_head = nn.Linear(1, 1), nn.Linear(1, 1)
        self.bbox_head.num_classes = 3


def runner_of(tmp_path, lr=0.1, scaler=None, classes=('a', 'b', 'c'), model=None):
    dataset = SimpleNamespace(metainfo=dict(classes=classes))
    wrapper = SimpleNamespace(get_lr=lambda: {'lr': [lr, lr]}, loss_scaler=scaler)
    return SimpleNamespace(work_dir=str(tmp_path), iter=0, max_iters=1000, optim_wrapper=wrapper,
                           model=model or Model(), train_dataloader=SimpleNamespace(dataset=dataset),
                           val_dataloader=SimpleNamespace(dataset=dataset))


def det_batch(objects=2):
    sample = DetDataSample(metainfo=dict(img_path='street.jpg'))
    sample.gt_instances = InstanceData(bboxes=torch.rand(objects, 4), labels=torch.zeros(objects, dtype=torch.long))
    return dict(inputs=[torch.zeros(3, 8, 8, dtype=torch.uint8)], data_samples=[sample])


def seg_sample(key, labels):
    return SegDataSample(metainfo=dict(img_path='street.jpg'), **{key: PixelData(data=labels)})


def run(hook, runner, losses, batch, times):
    for _ in range(times):
        hook.after_train_iter(runner, 0, batch, {key: torch.tensor(value) for key, value in losses.items()})
        runner.iter += 1


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_a_loss_that_is_not_finite_stops_and_saves_the_batch(bad, tmp_path, said):
    hook, runner, batch = WatchTrainingHook(), runner_of(tmp_path), det_batch()
    run(hook, runner, dict(loss=1.0, loss_mask=0.5), batch, 3)
    with pytest.raises(UserError, match=r'iteration 4: the loss is (nan|inf), which is not finite \(loss_mask (nan|inf)'
                                        r'\); the batch is saved as .+bad_batch_iter_4\.pth \(images street\.jpg\)'):
        run(hook, runner, dict(loss=bad, loss_mask=bad), batch, 1)
    saved = torch.load(tmp_path / 'bad_batch_iter_4.pth', weights_only=False)  # written by this test
    assert torch.equal(saved['inputs'][0], batch['inputs'][0])
    assert torch.equal(saved['data_samples'][0].gt_instances.bboxes, batch['data_samples'][0].gt_instances.bboxes)


def test_on_a_gpu_the_loss_of_the_step_before_is_looked_at(tmp_path, said, monkeypatch):
    """Where the latest has not come yet: an iteration later, with the batch that it belongs to; the last at the end."""
    monkeypatch.setattr(HostCopy, 'is_ready', lambda self: False)
    hook, runner, bad = WatchTrainingHook(), runner_of(tmp_path), det_batch()
    run(hook, runner, dict(loss=1.0), det_batch(), 3)
    run(hook, runner, dict(loss=float('nan')), bad, 1)
    with pytest.raises(UserError, match='iteration 4: the loss is nan'):
        run(hook, runner, dict(loss=1.0), det_batch(), 1)
    saved = torch.load(tmp_path / 'bad_batch_iter_4.pth', weights_only=False)  # written by this test
    assert torch.equal(saved['data_samples'][0].gt_instances.bboxes, bad['data_samples'][0].gt_instances.bboxes)
    hook = WatchTrainingHook()
    run(hook, runner, dict(loss=float('nan')), bad, 1)
    with pytest.raises(UserError, match='iteration 5: the loss is nan'):
        hook.after_train_epoch(runner)


def test_a_loss_scaler_may_overflow_for_a_while(tmp_path, said):
    scaler = SimpleNamespace(is_enabled=lambda: True)
    hook, runner = WatchTrainingHook(patience=5), runner_of(tmp_path, scaler=scaler)
    run(hook, runner, dict(loss=float('inf')), det_batch(), 4)
    run(hook, runner, dict(loss=1.0), det_batch(), 1)
    run(hook, runner, dict(loss=float('inf')), det_batch(), 4)
    with pytest.raises(UserError, match='iteration 10: the loss is inf'):
        run(hook, runner, dict(loss=float('inf')), det_batch(), 1)


def test_an_exploding_loss_stops_and_a_spike_does_not(tmp_path, said):
    hook, runner = WatchTrainingHook(patience=5), runner_of(tmp_path)
    run(hook, runner, dict(loss=2.0), det_batch(), 60)
    run(hook, runner, dict(loss=1000.0), det_batch(), 4)
    run(hook, runner, dict(loss=2.0), det_batch(), 1)
    with pytest.raises(UserError, match='over 100 times the usual 2 '):
        run(hook, runner, dict(loss=1000.0), det_batch(), 5)


@pytest.mark.parametrize('losses, batch, lr, sentence', [
    (dict(loss=1.0, loss_bbox=0.0), det_batch(2), 0.1, 'no anchor or proposal matches an annotated object'),
    (dict(loss=1.0, loss_bbox=0.0), det_batch(0), 0.1, 'the last 20 batches had no annotation'),
    (dict(loss=1.0), dict(data_samples=[seg_sample('gt_sem_seg', torch.full((1, 4, 4), 255))]), 0.1,
     'the last 20 batches had no annotation'),
    (dict(loss=1.0, loss_bbox=0.5), det_batch(2), 0.0, 'the learning rate has been 0 for 20 iterations'),
])
def test_what_keeps_a_model_from_learning_is_logged_once(losses, batch, lr, sentence, tmp_path, said):
    hook, runner = WatchTrainingHook(), runner_of(tmp_path, lr=lr)
    run(hook, runner, losses, batch, 19)
    assert said == []
    run(hook, runner, losses, batch, 40)
    assert len(said) == 1 and said[0].startswith(sentence), said


def test_a_healthy_run_has_no_warning(tmp_path, said):
    hook, runner = WatchTrainingHook(), runner_of(tmp_path)
    hook.before_train(runner)
    for step in range(300):
        losses = dict(loss=3.0 / (1 + step), loss_bbox=0.0 if step % 19 else 0.2)
        run(hook, runner, losses, det_batch(step % 3), 1)
    assert said == []


def test_frozen_parts(tmp_path, said):
    model = Model()
    model.bbox_head.requires_grad_(False)
    WatchTrainingHook().before_train(runner_of(tmp_path, model=model))
    assert len(said) == 1 and said[0].startswith('every parameter of bbox_head is frozen')
    model.requires_grad_(False)
    with pytest.raises(UserError, match='Model: every parameter is frozen'):
        WatchTrainingHook().before_train(runner_of(tmp_path, model=model))


def test_class_counts_that_differ(tmp_path, said):
    hook = WatchTrainingHook()
    hook.before_train(runner_of(tmp_path, classes=('a', 'b')))
    hook.before_train(runner_of(tmp_path, classes=('a', 'b')))
    assert len(said) == 1 and said[0].startswith('bbox_head predicts 3 classes, but SimpleNamespace has 2 (a, b)')


def test_ranks_save_their_own_bad_batch(tmp_path, said, monkeypatch):
    monkeypatch.setattr(training_watch, 'get_world_size', lambda: 2)
    for rank in (0, 1):
        monkeypatch.setattr(training_watch, 'get_rank', lambda rank=rank: rank)
        with pytest.raises(UserError, match=f'bad_batch_iter_1_rank{rank}.pth'):
            run(WatchTrainingHook(), runner_of(tmp_path), dict(loss=float('nan')), det_batch(rank), 1)
        saved = torch.load(tmp_path / f'bad_batch_iter_1_rank{rank}.pth', weights_only=False)  # written by this test
        assert len(saved['data_samples'][0].gt_instances) == rank


def test_more_classes_than_a_byte_has_values(tmp_path, said):
    """In images of different highest labels, as ADE20K's full set of 847 classes has them."""
    names = tuple(f'class {index}' for index in range(847))
    hook, runner = WatchTrainingHook(), runner_of(tmp_path, classes=names)
    for labels, expected in (((300, 846), 0), ((700, 700), 1)):
        hook.before_val_epoch(runner)
        for label in labels:
            hook.after_val_iter(runner, 0, None, [seg_sample('pred_sem_seg', torch.full((1, 4, 4), label))])
        hook.after_val_epoch(runner, {})
        assert len(said) == expected
    assert said[0].startswith('every pixel of the validation set is predicted as class 700:')


@pytest.mark.parametrize('sample, sentence', [
    (DetDataSample(pred_instances=InstanceData(scores=torch.rand(0))), 'the model detects nothing in the'),
    (DetDataSample(pred_instances=InstanceData(scores=torch.rand(1))), None),
    (seg_sample('pred_sem_seg', torch.full((1, 4, 4), 2)), 'every pixel of the validation set is predicted as c:'),
    (seg_sample('pred_sem_seg', torch.tensor([[[2, 1]]])), None),
])
def test_predictions_of_one_kind_only(sample, sentence, tmp_path, said):
    hook, runner = WatchTrainingHook(), runner_of(tmp_path)
    for _ in range(2):
        hook.before_val_epoch(runner)
        for _ in range(3):
            hook.after_val_iter(runner, 0, None, [sample])
        hook.after_val_epoch(runner, {})
    assert [re.match(re.escape(sentence), text) is not None for text in said] == [True] if sentence else said == []


@pytest.mark.parametrize('side, warned', [(8.0, True), (40.0, False)])
def test_few_objects_have_an_anchor(side, warned, tmp_path, said):
    model = Model()
    model.rpn_head = nn.Module()
    model.rpn_head.prior_generator = AnchorGenerator(scales=[8], ratios=[1.0], strides=[4, 8])
    runner, hook = runner_of(tmp_path, model=model), WatchTrainingHook()
    batch = det_batch(50)
    centres = torch.rand(50, 2) * 128
    batch['inputs'] = [torch.zeros(3, 128, 128, dtype=torch.uint8)]
    batch['data_samples'][0].gt_instances.bboxes = torch.cat([centres - side / 2, centres + side / 2], 1)
    run(hook, runner, dict(loss=1.0, loss_bbox=0.5), batch, 3)
    assert said == [], 'too few to tell'
    run(hook, runner, dict(loss=1.0, loss_bbox=0.5), batch, 5)
    assert [text.startswith('only 0% of the first objects have an anchor') for text in said] == [True] * warned
