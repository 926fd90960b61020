"""A detector learns eight real COCO images by heart: boxes, classes and masks all have to work for that."""
import json

import pytest
from tool_runs import TOOL_TESTS, must_run, scalars

CONFIG = TOOL_TESTS / 'overfit_coco.py'


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


@pytest.mark.slow
def test_eight_coco_images_are_learned_by_heart(real_data, tmp_path):
    annotations = tmp_path / 'eight.json'
    assert len(eight_images(real_data / 'coco/annotations/instances_train2017.json', annotations)) == 8
    options = ['--data-root', real_data / 'coco', '--cfg-options',
               *(f'{loader}_dataloader.dataset.ann_file={annotations}' for loader in ('train', 'val', 'test')),
               *(f'{kind}_evaluator.ann_file={annotations}' for kind in ('val', 'test')),
               'model.test_cfg.rcnn.score_thr=0.0']  # chance's 81 equal scores are below the recipe's 0.05

    def evaluate(name: str, *more) -> dict:
        """Train with the recipe and more options, then test the last checkpoint on the same eight images."""
        must_run('train', CONFIG, '--work-dir', tmp_path / name, *options, *more, cwd=tmp_path)
        checkpoint = max((tmp_path / name).glob('iter_*.pth'), key=lambda file: int(file.stem[5:]))
        must_run('test', CONFIG, checkpoint, '--work-dir', tmp_path / name / 'test', *options, cwd=tmp_path)
        return json.loads((tmp_path / name / 'test/metrics.json').read_text())

    # two steps with a learning rate of 0 only fill the running statistics of BN
    chance = evaluate('untrained', 'optim_wrapper.optimizer.lr=0.0', 'train_cfg.max_iters=2',
                      'train_cfg.val_interval=9', 'default_hooks.checkpoint.interval=2')
    learned = evaluate('trained')
    losses = [line['loss'] for line in scalars(tmp_path / 'trained') if 'loss' in line]
    print(f'\noverfitting eight COCO images: loss {losses[0]:.2f} -> {losses[-1]:.2f}; untrained and trained:')
    for name in ('coco/bbox_mAP', 'coco/bbox_mAP_50', 'coco/segm_mAP', 'coco/segm_mAP_50'):
        print(f'  {name}: {chance[name]:.3f} -> {learned[name]:.3f}')
    assert chance['coco/bbox_mAP_50'] < 0.02 and chance['coco/segm_mAP_50'] < 0.02
    assert learned['coco/bbox_mAP_50'] > 0.5 and learned['coco/segm_mAP_50'] > 0.5
