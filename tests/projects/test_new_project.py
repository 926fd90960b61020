"""`tools/new_project.py`: its configs are complete, fit the data, and train."""
import contextlib
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

import cv2  # noqa: E402
from mmengine.config import Config  # noqa: E402
from tool_runs import must_run  # noqa: E402

from convnext_dense.config import load_config  # noqa: E402
from convnext_dense.config.model_checks import check_channels  # noqa: E402
from convnext_dense.config.preflight import check_config  # noqa: E402
from convnext_dense.datasets.layout import DatasetInfo, SplitInfo  # noqa: E402
from convnext_dense.errors import UserError  # noqa: E402
from convnext_dense.projects import timing  # noqa: E402
from convnext_dense.projects.choose import batch_size, plan_project, write_project  # noqa: E402
from convnext_dense.projects.plan import MODELS  # noqa: E402
from convnext_dense.recipes.metafile import find_recipe  # noqa: E402
from convnext_dense.recipes.model_info import build_on_meta  # noqa: E402


def make_data(folder, task, classes=3, images=6, masks=True, size=(60, 90)):
    """A converted data set: every image has one object or region of each of its first two classes."""
    names = [f'class {index}' for index in range(classes)]
    rng, splits = np.random.default_rng(0), {}
    for split in ('train', 'val'):
        prefix = f'{split}/' if task == 'det' else f'images/{split}/'
        (folder / prefix).mkdir(parents=True)
        records, annotations = [], []
        for index in range(images):
            cv2.imwrite(str(folder / prefix / f'{index}.png'), rng.integers(0, 256, (*size, 3), np.uint8))
            records.append(dict(id=index, file_name=f'{index}.png', height=size[0], width=size[1]))
            for label in range(min(2, classes)):
                x, y, w, h = 5 + 40 * label, 10, 30, 40
                record = dict(id=len(annotations) + 1, image_id=index, category_id=label + 1, bbox=[x, y, w, h],
                              area=w * h, iscrowd=0)
                if masks:
                    record['segmentation'] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
                annotations.append(record)
            if task == 'seg':
                (folder / f'annotations/{split}').mkdir(parents=True, exist_ok=True)
                labels = np.zeros(size, np.uint8)
                labels[:, 45:] = min(1, classes - 1)
                cv2.imwrite(str(folder / f'annotations/{split}/{index}.png'), labels)
        if task == 'det':
            (folder / 'annotations').mkdir(exist_ok=True)
            (folder / f'annotations/instances_{split}.json').write_text(json.dumps(dict(
                images=records, annotations=annotations,
                categories=[dict(id=index + 1, name=name) for index, name in enumerate(names)])))
        splits[split] = SplitInfo(images, dict.fromkeys(names, images), prefix,
                                  f'annotations/instances_{split}.json' if task == 'det' else None,
                                  f'annotations/{split}/' if task == 'seg' else None)
    seg = dict(ignore_index=255, img_suffix='.png', seg_map_suffix='.png') if task == 'seg' else dict(has_masks=masks)
    DatasetInfo(task, names, [[index % 256, 0, 0] for index in range(classes)], splits, 'test', **seg).write(folder)
    return folder


def class_counts(model):
    return {name: module.num_classes for name, module in model.named_modules()
            if isinstance(getattr(module, 'num_classes', None), int) and 'rpn' not in name}


@pytest.mark.parametrize('task, arch, start, classes, masks', [
    ('det', 'atto', 'random', 1, True), ('det', 'atto', 'imagenet', 365, True), ('det', 'tiny', 'published', 1, False),
    ('det', 'base', 'published', 7, True), ('det', 'small', 'imagenet', 2, False),
    ('seg', 'atto', 'random', 2, True), ('seg', 'tiny', 'published', 1, True), ('seg', 'base', 'imagenet', 200, True)])
def test_every_head_has_the_classes_of_the_data(task, arch, start, classes, masks, tmp_path):
    data = make_data(tmp_path / 'data', task, classes, images=2, masks=masks)
    file = write_project(str(tmp_path / 'project'), plan_project(str(data), None, arch, start, device='cuda'))
    cfg = load_config(str(file))
    check_config(cfg, ('train_dataloader', 'val_dataloader'))
    model = build_on_meta(cfg)
    counts = class_counts(model)
    assert set(counts.values()) == {classes} and len(counts) >= (2 if task == 'seg' or masks or arch == 'small' else 1)
    if task == 'det':
        assert any('mask_head' in name for name, _ in model.named_modules()) == masks
        assert cfg.val_evaluator.metric == (['bbox', 'segm'] if masks else ['bbox'])
    if start == 'random':
        assert cfg.get('load_from') is None and cfg.model.backbone.init_cfg.type == 'Kaiming'
    elif start == 'imagenet':
        assert cfg.get('load_from') is None and cfg.model.backbone.init_cfg.checkpoint.startswith('convnext')
    else:
        recipe = find_recipe(cfg.load_from)
        assert cfg.model.backbone.init_cfg is None
        published = Config.fromfile(f'configs/{recipe.config.removeprefix("configs/")}')
        assert cfg.optim_wrapper.paramwise_cfg == published.optim_wrapper.paramwise_cfg
        rate = published.optim_wrapper.optimizer.lr
        assert cfg.optim_wrapper.optimizer.lr == pytest.approx(rate * cfg.train_dataloader.batch_size / 16)


@pytest.mark.parametrize('task, model, masks', [
    ('det', 'mask2former', True), ('det', 'rtmdet', True), ('det', 'rtmdet', False), ('det', 'dino', True),
    ('det', 'retinanet', False), ('det', 'fcos', False), ('seg', 'mask2former', True)])
def test_other_models(task, model, masks, tmp_path):
    """Heads, data and evaluation fit the data, and a sample of the data goes through loss and prediction."""
    data = make_data(tmp_path / 'data', task, 3, images=2, masks=masks)
    chosen = plan_project(str(data), batch=2, short=64, device='cpu', model=model)
    cfg = load_config(str(write_project(str(tmp_path / 'project'), chosen)))
    check_config(cfg, ('train_dataloader', 'val_dataloader'))
    check_channels(cfg)
    learns_masks = masks and model in ('mask2former', 'rtmdet')
    assert set(class_counts(build_on_meta(cfg)).values()) == {3}
    if task == 'det':
        assert cfg.val_evaluator.metric == (['bbox', 'segm'] if learns_masks else ['bbox'])
    rate = load_config(f'{task}/{base_name(chosen)}.py')
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(
        rate.optim_wrapper.optimizer.lr * 2 / rate.auto_scale_lr.base_batch_size)
    assert cfg.optim_wrapper.paramwise_cfg == rate.optim_wrapper.paramwise_cfg
    assert cfg.model.backbone.init_cfg.checkpoint == 'convnext_tiny_in1k' and cfg.custom_hooks == []
    with uninitialised_memory_is_nan():
        assert np.isfinite(timing.measure_step(cfg, 'cpu'))
    assert batch_size(chosen, 200 * 2 ** 30) == 4 and batch_size(chosen, 1) == 1


@contextlib.contextmanager
def uninitialised_memory_is_nan():
    """Whoever uses a parameter that nobody has initialised computes NaN, not what happens to be in memory."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def base_name(chosen):
    names = MODELS[chosen.task][chosen.model]
    return names[0] if chosen.masks or names[1] is None else names[1]


@pytest.mark.parametrize('task, masks, options, message', [
    ('det', True, dict(model='upernet'), '--model upernet: expected one of mask-rcnn, mask2former, rtmdet, dino, '),
    ('seg', True, dict(model='dino'), '--model dino: expected one of upernet, mask2former for a data set of task seg'),
    ('det', False, dict(model='mask2former'), 'it learns masks and the data set has boxes only; use rtmdet or dino'),
    ('det', True, dict(model='dino', arch='base'), '--arch base: dino has a config for tiny only'),
    ('det', True, dict(model='dino', start='published'), '--start published: dino has published weights for its'),
    ('det', True, dict(model='dino', start='no.pth'), '--start no.pth: expected imagenet or a checkpoint file')])
def test_models_that_do_not_fit(task, masks, options, message, tmp_path):
    data = make_data(tmp_path / 'data', task, 3, images=2, masks=masks)
    with pytest.raises(UserError, match=message):
        plan_project(str(data), device='cpu', **options)


def test_choices_follow_the_data(tmp_path):
    data = str(make_data(tmp_path / 'data', 'det'))
    chosen = plan_project(data, device='cpu')
    assert (chosen.arch, chosen.start) == ('atto', 'imagenet')
    assert chosen.short == round(60 * 48 / 1200 ** 0.5 / 32) * 32  # enlarged until the median object has 48 pixels
    assert plan_project(data, device='cuda', arch='tiny').start == 'published'
    assert plan_project(data, epochs=3, batch=2, short=128).iterations == 9


def test_a_crowd_of_tiny_objects(tmp_path):
    """The config has what the printed sentences say, and what the user gives wins."""
    data = make_data(tmp_path / 'data', 'det', classes=1, size=(96, 96))
    file = data / 'annotations/instances_train.json'
    content = json.loads(file.read_text())
    content['annotations'] = [
        dict(id=image * 400 + index + 1, image_id=image, category_id=1, area=36, iscrowd=0,
             bbox=[4 * (index % 20), 4 * (index // 20), 6, 6], segmentation=[[0, 0, 6, 0, 6, 6]])
        for image in range(6) for index in range(400)]
    file.write_text(json.dumps(content))
    chosen = plan_project(str(data), None, 'atto', 'random', device='cpu')
    cfg = load_config(str(write_project(str(tmp_path / 'project'), chosen)))
    model = cfg.model
    generator = model.rpn_head.anchor_generator
    assert cfg.scale == (427, 256) and max(generator.scales) * 4 < 24 and model.rpn_head.type == 'StaticRPNHead'
    assert model.train_cfg.rpn_proposal.max_per_img == model.test_cfg.rpn.max_per_img == 2000
    assert model.train_cfg.rpn_proposal.nms.iou_threshold == 0.7, 'the rest is inherited'
    assert model.test_cfg.rcnn.max_per_img == 600 and cfg.val_evaluator.proposal_nums == (1, 10, 600)
    assert cfg.default_hooks.checkpoint.save_best == 'coco/segm_mAP' and cfg.default_hooks.logger.interval == 1
    text = (tmp_path / 'project/config.py').read_text()
    assert len(chosen.reasons) == 6 and all(reason.split(',')[0] in text for reason in chosen.reasons), chosen.reasons
    assert re.search('[0-9]+% of the training objects have one with an IoU of at least 0.5, 0% with the',
                     ' '.join(chosen.reasons))
    build_on_meta(cfg)
    kept = plan_project(str(data), None, 'atto', 'random', 128, 2, 7, 'cpu', fit=False)
    assert (kept.short, kept.batch, kept.epochs, kept.detector) == (128, 2, 7, kept.base_detector)
    assert sum('as given' in reason for reason in kept.reasons) == 3
    cfg = load_config(str(write_project(str(tmp_path / 'kept'), kept)))
    assert cfg.model.rpn_head.anchor_generator.scales == [8] and cfg.model.test_cfg.rpn.max_per_img == 250
    cascade = plan_project(str(data), None, 'small', 'published', 320, 1, 1, 'cpu')
    model = load_config(str(write_project(str(tmp_path / 'cascade'), cascade))).model
    assert len(model.train_cfg.rcnn) == 3 and model.test_cfg.rcnn.max_per_img == 600
    anchors = model.rpn_head.anchor_generator
    assert len(anchors.scales) * len(anchors.ratios) == 3, 'published weights have three'


def test_the_batch_follows_the_memory(tmp_path):
    chosen = plan_project(str(make_data(tmp_path / 'data', 'det', images=1)), arch='tiny', short=800, batch=1)
    many = replace(chosen, info=replace(chosen.info, splits={name: replace(split, images=50_000) for name, split
                                                            in chosen.info.splits.items()}))
    sizes = [batch_size(many, gib << 30) for gib in (1, 12, 24, 80, 1000)]
    print(f'Mask R-CNN T at 1333x800, 1 to 1000 GiB: {sizes} images')
    assert sizes == sorted(sizes) and sizes[0] == 1 < sizes[2] and sizes[-1] == 16
    assert batch_size(chosen, 1000 << 30) == 4  # few images keep several steps an epoch


@pytest.mark.parametrize('change, sentence', [
    (dict(task='seg'), '--task seg: .+ is a data set for det'), (dict(start='nothing.pth'), '--start nothing.pth: exp'),
    (dict(arch='femto'), '--arch femto: expected one of atto'),
    (dict(arch='atto', start='published'), 'no detector or segmentor with atto is published')])
def test_bad_choices(change, sentence, tmp_path):
    data = make_data(tmp_path / 'data', 'det', images=1)
    with pytest.raises(UserError, match=sentence):
        plan_project(str(data), **change)


def test_nothing_is_overwritten_and_no_data_is_said(tmp_path):
    chosen = plan_project(str(make_data(tmp_path / 'data', 'det', images=1)))
    write_project(str(tmp_path / 'project'), chosen)
    with pytest.raises(UserError, match='config.py exists already'):
        write_project(str(tmp_path / 'project'), chosen)
    with pytest.raises(UserError, match='is no converted data set'):
        plan_project(str(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize('task', ['det', 'seg'])
def test_a_project_trains_and_another_starts_from_it(task, tmp_path):
    """The second data set has other classes: all weights of the first run but those of the class heads are taken."""
    def run(tool, *arguments):
        finished = must_run(tool, *arguments, cwd=tmp_path)
        return finished.out + finished.err

    first, second = (make_data(tmp_path / f'data{classes}', task, classes) for classes in (3, 2))
    small = ['--image-size', 64, '--batch-size', 2, '--epochs', 1]
    said = run('new_project', 'one', '--data', first, '--arch', 'atto', '--start', 'random', *small)
    assert re.search(r'/tools/check_dataset\.py one/config\.py\n  python .+/tools/train\.py one/config\.py', said)
    run('train', 'one/config.py')
    checkpoint = tmp_path / ('one/run/epoch_1.pth' if task == 'det' else 'one/run/iter_3.pth')
    run('new_project', 'two', '--data', second, '--arch', 'atto', '--start', 'random', *small)
    log = run('train', 'two/config.py', '--load-from', checkpoint)
    said = [line for line in log.splitlines() if 'reinitialised for 2 classes instead of 3' in line]
    print(said)
    assert len(said) == 1 and ('bbox_head.fc_cls' if task == 'det' else 'decode_head.conv_seg') in said[0]


def test_the_training_time_is_estimated(tmp_path, monkeypatch):
    """Steps of a second each: the sentence has their number, and data that cannot be read costs no project."""
    data = make_data(tmp_path / 'data', 'det', classes=1)
    options = ['--start', 'random', '--arch', 'atto', '--image-size', 64, '--batch-size', 2, '--device', 'cpu']
    said = must_run('new_project', tmp_path / 'one', '--data', data, *options).out
    found = re.search(r'Training time: about \S+ \w+ on this machine, an estimate from steps of (\S+) seconds\.', said)
    assert found and 0 < float(found[1]) < 60, said
    assert 'mmengine' not in said  # nothing of the measured steps' own log
    chosen = plan_project(str(data), None, 'atto', 'random', 64, 2, 12, 'cpu')  # 36 steps, 10 validations of 6 images
    monkeypatch.setattr(timing, 'measure_step', lambda cfg, device: 60.0)
    assert 'about 46 minutes on this machine' in timing.estimate(tmp_path / 'one/config.py', chosen, 'cpu')
    monkeypatch.undo()
    for file in (data / 'train').iterdir():
        file.write_text('no image')
    file = write_project(str(tmp_path / 'two'), chosen)
    assert timing.estimate(file, chosen, 'cpu').startswith('Training time: not measured (')


@pytest.mark.parametrize('seconds, text', [
    (0.2, '1 seconds'), (89, '89 seconds'), (91, '2 minutes'), (5399, '90 minutes'), (5401, '1.5 hours'),
    (36000, '10 hours'), (130000, '1.5 days'), (1e6, '12 days')])
def test_durations(seconds, text):
    assert timing.duration(seconds) == text
