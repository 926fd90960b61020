"""Detectors and a segmentor learn eight real images by heart: everything from the data to the metrics has to work."""
import json

import pytest
from tool_runs import TOOL_TESTS, must_run, scalars


def eight_images(source, target) -> list[int]:
    """Write the annotations of eight images to ``target``: the first whose one to four objects are all large.

    Large is COCO's word for more than 96 x 96 pixels; crowds do not count as objects.
    """
    content = json.loads(source.read_text())
    objects = {}
    for annotation in content['annotations']:
        objects.setdefault(annotation['image_id'], []).append(annotation)
    fit = [image for image, found in sorted(objects.items()) if len(found) <= 4
           and all(item['area'] > 96 ** 2 and not item['iscrowd'] for item in found)][:8]
    content['images'] = [image for image in content['images'] if image['id'] in fit]
    content['annotations'] = [item for image in fit for item in objects[image]]
    target.write_text(json.dumps(content))
    return fit


def evaluate(name: str, config, folder, options: list, *more) -> dict:
    """Train with a config and more options, then test the last checkpoint on the same images."""
    must_run('train', config, '--work-dir', folder / name, *options, *more, cwd=folder)
    checkpoint = max((folder / name).glob('iter_*.pth'), key=lambda file: int(file.stem[5:]))
    must_run('test', config, checkpoint, '--work-dir', folder / name / 'test', *options, cwd=folder)
    return json.loads((folder / name / 'test/metrics.json').read_text())


def untrained_and_trained(config, folder, options: list, metrics: list[str]) -> tuple[dict, dict]:
    """Metrics of two steps with a learning rate of 0, which only fill running statistics, and of the whole run."""
    chance = evaluate('untrained', config, folder, options, 'optim_wrapper.optimizer.lr=0.0', 'train_cfg.max_iters=2',
                      'train_cfg.val_interval=9', 'default_hooks.checkpoint.interval=2')
    learned = evaluate('trained', config, folder, options)
    losses = [line['loss'] for line in scalars(folder / 'trained') if 'loss' in line]
    print(f'\n{config.stem}: loss {losses[0]:.2f} -> {losses[-1]:.2f}; untrained and trained:')
    for name in metrics:
        print(f'  {name}: {chance[name]:.3f} -> {learned[name]:.3f}')
    return chance, learned


def coco_options(real_data, folder) -> list:
    annotations = folder / 'eight.json'
    assert len(eight_images(real_data / 'coco/annotations/instances_train2017.json', annotations)) == 8
    return ['--data-root', real_data / 'coco', '--cfg-options',
            *(f'{loader}_dataloader.dataset.ann_file={annotations}' for loader in ('train', 'val', 'test')),
            *(f'{kind}_evaluator.ann_file={annotations}' for kind in ('val', 'test'))]


SMALL_IMAGES = ['train_dataloader.dataset.pipeline.2.scale=(128, 128)',
                *(f'{loader}_dataloader.dataset.pipeline.1.scale=(128, 128)' for loader in ('val', 'test'))]
BOX, MASK = ['coco/bbox_mAP', 'coco/bbox_mAP_50'], ['coco/segm_mAP', 'coco/segm_mAP_50']


@pytest.mark.slow
@pytest.mark.parametrize('name, more, metrics', [
    # chance's 81 equal scores are below the recipe's 0.05
    ('coco', ['model.test_cfg.rcnn.score_thr=0.0'], BOX + MASK),
    pytest.param('mask2former', SMALL_IMAGES, BOX + MASK, marks=pytest.mark.long),
    pytest.param('dino', SMALL_IMAGES, BOX, marks=pytest.mark.long),
    pytest.param('rtmdet', [*SMALL_IMAGES, 'model.test_cfg.score_thr=0.0'], BOX + MASK, marks=pytest.mark.long)],
    ids=['mask-rcnn', 'mask2former', 'dino', 'rtmdet'])
def test_eight_coco_images_are_learned_by_heart(name, more, metrics, real_data, tmp_path):
    config = TOOL_TESTS / f'overfit_{name}.py'
    options = [*coco_options(real_data, tmp_path), *more]
    chance, learned = untrained_and_trained(config, tmp_path, options, metrics)
    for metric in metrics[1::2]:  # untrained: 0.015 for the boxes of Mask2Former, 0.000 for all others
        assert chance[metric] < 0.05 and learned[metric] > 0.5, metric


@pytest.mark.slow
@pytest.mark.long
def test_eight_ade20k_images_are_learned_by_heart(real_data, tmp_path):
    options = ['--data-root', real_data / 'ade/ADEChallengeData2016', '--cfg-options', 'log_level=INFO']
    chance, learned = untrained_and_trained(
        TOOL_TESTS / 'overfit_mask2former_seg.py', tmp_path, options, ['mIoU', 'aAcc'])
    assert chance['mIoU'] < 2 and learned['mIoU'] > 15
