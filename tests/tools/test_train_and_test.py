"""tools/train.py and tools/test.py on both tasks: what they write, and that resuming and repeating are exact."""
import json
import pickle
import sys

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tool_runs import CHECKPOINTS, FULL, HALF, differing, iterations, must_run, run_tool, scalars

from convnext_dense import cli
from convnext_dense.checkpoints import read_checkpoint
from convnext_dense.config import DATALOADERS, EVALUATORS
from convnext_dense.datasets.shapes_render import CLASSES, PALETTE, SEG_CLASSES, SEG_PALETTE
from convnext_dense.visualization.draw import (
    Instances,
    draw_instances,
    draw_legend,
    draw_segmentation,
    read_image,
    side_by_side,
)

TASKS = ('det', 'seg')
BEST = {'det': 'coco/bbox_mAP', 'seg': 'mIoU'}


@pytest.mark.parametrize('task', TASKS)
def test_training_leaves_checkpoints_scalars_and_its_config(trained, task):
    run = trained(task)
    assert run.work_dir.is_dir(), 'the default work dir is work_dirs/<config name> below the current folder'
    files = {file.name for file in run.work_dir.glob('*.pth')}
    assert set(CHECKPOINTS[task]) < files
    best = [name for name in files if name.startswith('best_')]
    assert len(best) == 1 and BEST[task].replace('/', '_') in best[0]
    assert not list(run.work_dir.glob('*.part*'))
    for file, step in zip(CHECKPOINTS[task], (HALF, FULL), strict=True):
        assert read_checkpoint(run.work_dir / file)['meta']['iter'] == step
    losses = [line['loss'] for line in scalars(run.work_dir) if 'loss' in line]
    assert len(losses) == FULL and np.isfinite(losses).all()
    moved = differing(run.half, run.checkpoint)
    trainable = [key for key in read_checkpoint(run.half)['state_dict'] if key.endswith(('weight', 'bias'))]
    assert set(trainable) - set(moved) == set(), 'every parameter trains'


@pytest.mark.parametrize('task', TASKS)
def test_data_root_reaches_every_loader_and_evaluator(trained, task):
    run = trained(task)
    used = Config.fromfile(run.work_dir / run.config.name)  # the config as the run used it
    parts = [json.dumps(used[key].to_dict()) for key in (*DATALOADERS, *EVALUATORS)]
    assert not any('data/shapes' in part.replace(str(run.data_root), '') for part in parts)
    # three data sets have a data_root; of the evaluators, detection's have an annotation file
    assert [str(run.data_root) in part for part in parts] == [True] * 3 + [task == 'det'] * 2


@pytest.mark.parametrize('task', TASKS)
def test_testing_repeats_the_last_validation(trained, task, tmp_path):
    run = trained(task)
    must_run('test', run.config, run.checkpoint, '--data-root', run.data_root, cwd=tmp_path)
    metrics = json.loads((tmp_path / 'work_dirs' / run.config.stem / 'metrics.json').read_text())
    last = {key: None if value != value else value for key, value in scalars(run.work_dir)[-1].items()}  # nan: null
    names = [key for key in last if key.startswith('coco/') or key in ('mIoU', 'mAcc', 'aAcc')]
    assert BEST[task] in names and {key: metrics[key] for key in names} == {key: last[key] for key in names}


def evaluate(run, folder, *options):
    """Run tools/test.py with --out and --show-dir; returns (metrics, predictions, picture folder)."""
    must_run('test', run.config, folder / 'model.pth', '--data-root', run.data_root, '--work-dir', folder / 'work',
             '--out', folder / 'out/predictions.pkl', '--show-dir', folder / 'pictures', *options, cwd=folder)
    predictions = pickle.loads((folder / 'out/predictions.pkl').read_bytes())
    return json.loads((folder / 'work/metrics.json').read_text()), predictions, folder / 'pictures'


def confident(checkpoint) -> dict:
    """Weights whose box head prefers every class to the background, so that there is something to draw."""
    state = read_checkpoint(checkpoint)['state_dict']
    state['roi_head.bbox_head.fc_cls.bias'] += torch.tensor([0.0, 0.0, 0.0, -5.0])
    return {'state_dict': state}


def test_detections_written_drawn_and_scored_agree(trained, tmp_path):
    run = trained('det')
    torch.save(confident(run.checkpoint), tmp_path / 'model.pth')
    # enough predictions that some of a hardly trained model's hit; at most 100, where pycocotools cuts
    metrics, predictions, pictures = evaluate(run, tmp_path, '--cfg-options', 'model.test_cfg.rcnn.max_per_img=90')
    truth = COCO(str(run.data_root / 'annotations/instances_val2017.json'))
    categories = {cat['name']: cat['id'] for cat in truth.dataset['categories']}
    found = []
    for sample in predictions:
        kept = sample['pred_instances']
        boxes = kept['bboxes'].double().numpy()
        boxes[:, 2:] -= boxes[:, :2]
        found += [dict(image_id=sample['img_id'], category_id=categories[CLASSES[label]], bbox=list(box),
                       score=float(score), segmentation=mask)
                  for label, box, score, mask in zip(kept['labels'], boxes, kept['scores'], kept['masks'], strict=True)]
    assert len(found) > 40
    for kind in ('bbox', 'segm'):
        other = 'bbox' if kind == 'segm' else 'segmentation'  # the area of a mask is its own, not its box's
        results = truth.loadRes([{key: value for key, value in item.items() if key != other} for item in found])
        evaluation = COCOeval(truth, results, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        names = [f'coco/{kind}_mAP{suffix}' for suffix in ('', '_50', '_75', '_s', '_m', '_l')]
        # metrics.json holds three decimals, and null where pycocotools has -1: no object of that size
        scores = [-1 if metrics[name] is None else metrics[name] for name in names]
        assert scores == pytest.approx(list(evaluation.stats[:6]), abs=5.1e-4)
    assert metrics['coco/bbox_mAP_50'] > 0

    for sample in predictions:
        info = truth.loadImgs(sample['img_id'])[0]
        image = read_image(run.data_root / 'val2017' / info['file_name'])
        annotations = truth.loadAnns(truth.getAnnIds(sample['img_id']))
        boxes = np.array([ann['bbox'] for ann in annotations])
        boxes[:, 2:] += boxes[:, :2]
        names = {number: name for name, number in categories.items()}
        wanted = Instances(np.array([CLASSES.index(names[ann['category_id']]) for ann in annotations]), boxes,
                           np.array([truth.annToMask(ann) for ann in annotations], bool))
        kept = sample['pred_instances']
        predicted = Instances(kept['labels'].numpy(), kept['bboxes'].numpy(),
                              np.array([coco_mask.decode(mask) for mask in kept['masks']], bool),
                              kept['scores'].numpy())
        assert (predicted.scores > 0.3).any()
        expected = side_by_side([('ground truth', draw_instances(image, wanted, CLASSES, PALETTE)),
                                 ('prediction, score from 0.3', draw_instances(image, predicted, CLASSES, PALETTE))])
        drawn = read_image(pictures / f'{info["file_name"]}.png')
        assert drawn.shape == expected.shape and (drawn != expected).mean() < 1e-3  # box edges may round by a pixel


def test_label_maps_written_drawn_and_scored_agree(trained, tmp_path):
    run = trained('seg')
    torch.save({'state_dict': read_checkpoint(run.checkpoint)['state_dict']}, tmp_path / 'model.pth')
    metrics, predictions, pictures = evaluate(run, tmp_path)
    assert len(predictions) == 4
    hits, truths, guesses = np.zeros(4), np.zeros(4), np.zeros(4)
    for sample in predictions:
        name = sample['img_path'].rpartition('/')[2].removesuffix('.jpg')
        png = cv2.imread(str(run.data_root / f'annotations/validation/{name}.png'), cv2.IMREAD_UNCHANGED)
        predicted = sample['pred_sem_seg']['data'][0].numpy()
        valid = png > 0
        for label in range(4):
            hits[label] += ((predicted == label) & (png == label + 1)).sum()
            truths[label] += (png == label + 1).sum()
            guesses[label] += ((predicted == label) & valid).sum()
        image = read_image(run.data_root / f'images/validation/{name}.jpg')
        maps = [np.where(valid, png.astype(int) - 1, 255), predicted]
        panels = [(title, draw_segmentation(image, labels, SEG_PALETTE))
                  for title, labels in zip(('ground truth', 'prediction'), maps, strict=True)]
        shown = sorted({int(label) for labels in maps for label in np.unique(labels) if label != 255})
        width = sum(panel.shape[1] for _, panel in panels)
        expected = side_by_side(panels, draw_legend(SEG_CLASSES, SEG_PALETTE, width, shown))
        assert np.array_equal(read_image(pictures / f'{name}.jpg.png'), expected)
    union = truths + guesses - hits
    expected = {'mIoU': np.mean(hits / union), 'mAcc': np.mean(hits / truths), 'aAcc': hits.sum() / truths.sum()}
    # metrics.json holds percent with two decimals
    assert {key: metrics[key] for key in expected} == pytest.approx(
        {key: 100 * value for key, value in expected.items()}, abs=0.0051)


@pytest.mark.parametrize('task', TASKS)
def test_resuming_continues_exactly(trained, task, tmp_path):
    """Also where something is drawn at random: flips, the RoIs of a loss, drop path, the batches' order."""
    run = trained(task)
    options = ['--data-root', run.data_root, '--cfg-options', 'randomness.deterministic=True',
               'model.backbone.drop_path_rate=0.4']
    must_run('train', run.config, '--work-dir', tmp_path / 'whole', *options, cwd=tmp_path)
    half, full = CHECKPOINTS[task]
    resumed = tmp_path / 'resumed'
    resumed.mkdir()
    (resumed / half).write_bytes((tmp_path / 'whole' / half).read_bytes())
    finished = must_run('train', run.config, '--work-dir', resumed, '--resume', *options, cwd=tmp_path)
    assert len(iterations(finished.out)) == FULL - HALF
    assert str(resumed / half) in finished.out

    first, second = (read_checkpoint(tmp_path / folder / full) for folder in ('whole', 'resumed'))
    assert differing(tmp_path / 'whole' / full, resumed / full) == [], 'weights equal bit for bit'
    for index, state in first['optimizer']['state'].items():
        for key, value in state.items():
            assert torch.equal(value, second['optimizer']['state'][index][key])
    assert first['optimizer']['param_groups'] == second['optimizer']['param_groups']
    assert first['param_schedulers'] == second['param_schedulers']
    assert {key: first['meta'][key] for key in ('iter', 'epoch')} == \
        {key: second['meta'][key] for key in ('iter', 'epoch')}
    histories = [checkpoint['message_hub']['log_scalars'] for checkpoint in (first, second)]
    assert histories[0].keys() == histories[1].keys()
    for key in histories[0]:
        if 'time' not in key:
            for one, other in zip(*(history[key].data for history in histories), strict=True):
                assert np.array_equal(one, other, equal_nan=True), key
    records = [[(line['step'], line['lr'], line['loss']) for line in scalars(tmp_path / folder) if 'loss' in line]
               for folder in ('whole', 'resumed')]
    assert records[1] == records[0][HALF:]


@pytest.mark.parametrize('task', TASKS)
def test_running_twice_in_another_folder_gives_the_same_weights(trained, task, tmp_path):
    run = trained(task)
    # the config is named relative to another folder, and the work dir has a finished run already
    work_dir = tmp_path / 'again'
    work_dir.mkdir()
    (work_dir / 'last_checkpoint').write_text(str(run.checkpoint))
    config = run.config.name
    finished = must_run('train', config, '--data-root', run.data_root, '--work-dir', work_dir, cwd=run.config.parent)
    assert len(iterations(finished.out)) == FULL, 'without --resume training starts from the beginning'
    assert differing(run.checkpoint, work_dir / CHECKPOINTS[task][1]) == []


def test_resume_in_an_empty_work_dir_says_so_and_starts(trained, tmp_path):
    run = trained('seg')
    finished = must_run('train', run.config, '--data-root', run.data_root, '--work-dir', tmp_path / 'empty', '--resume',
                        cwd=tmp_path)
    assert 'training starts from the beginning' in finished.out
    assert differing(run.checkpoint, tmp_path / 'empty' / run.checkpoint.name) == []


@pytest.mark.parametrize('tool', ['train', 'test'])
def test_console_command_reaches_the_tool(tool, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['convnext-dense', tool, '--help'])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f'usage: convnext-dense {tool}')


def test_console_command_names_the_nearest_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['convnext-dense', 'trian'])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr().err
    assert ended.value.code == 2 and 'did you mean train?' in printed and len(printed.splitlines()) == 1


def test_amp_bf16_trains_on_a_cpu(trained, tmp_path):
    run = trained('seg')
    must_run('train', run.config, '--data-root', run.data_root, '--work-dir', tmp_path, '--amp', 'bf16', cwd=tmp_path)
    losses = [[line['loss'] for line in scalars(folder) if 'loss' in line] for folder in (run.work_dir, tmp_path)]
    # bf16 has 8 bits of mantissa: the loss moves by about that, and surely not by nothing
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.05)


def test_auto_scale_lr_counts_batch_and_accumulation(trained, tmp_path):
    run = trained('seg')
    finished = run_tool('train', run.config, '--data-root', run.data_root, '--work-dir', tmp_path, '--auto-scale-lr',
                        '--cfg-options', 'auto_scale_lr=dict(enable=False, base_batch_size=16)',
                        'optim_wrapper.accumulative_counts=2', 'train_cfg.max_iters=2', 'train_cfg.val_interval=2',
                        cwd=tmp_path)
    assert finished.code == 0, finished.err
    plain = [line['lr'] for line in scalars(run.work_dir) if 'loss' in line]
    scaled = [line['lr'] for line in scalars(tmp_path) if 'loss' in line]
    assert scaled == pytest.approx([lr * 2 * 2 / 16 for lr in plain[:2]])  # 2 images x 2 steps for a recipe of 16
