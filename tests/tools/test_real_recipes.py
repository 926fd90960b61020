"""Both published recipes on real data: trained, killed with SIGKILL, resumed, damaged, resumed, evaluated."""
import json
import re
import shutil
import time

import pytest
from tool_runs import ROOT, iterations, kill, launch, run_command, tool_command, wait_for

from convnext_dense.checkpoints import read_checkpoint

COMMON = ['model.backbone.init_cfg=None', 'train_dataloader.num_workers=0', 'default_hooks.logger.interval=1',
          'default_hooks.checkpoint.save_best=None', 'val_dataloader.num_workers=0', 'test_dataloader.num_workers=0',
          'val_dataloader.dataset.indices=2', 'test_dataloader.dataset.indices=2']
SMALL = '[(160, 448), (192, 448)]'
PIPELINE = 'train_dataloader.dataset.pipeline'
# the published recipes with random weights on few and small images; a round is what one checkpoint comes after
RECIPES = {
    'det': dict(
        config='configs/det/mask-rcnn_convnext-t-in1k_fpn_8xb2-amp-ms-crop-3x_coco.py',
        data='coco', metric='coco/bbox_mAP',
        options=['train_dataloader.batch_size=1', 'train_dataloader.dataset.indices=2',
                 f'{PIPELINE}.3.transforms.0.0.scales={SMALL}', f'{PIPELINE}.3.transforms.1.0.scales={SMALL}',
                 f'{PIPELINE}.3.transforms.1.1.crop_size=(128, 192)', f'{PIPELINE}.3.transforms.1.2.scales={SMALL}',
                 'val_dataloader.dataset.pipeline.1.scale=(320, 192)',
                 'test_dataloader.dataset.pipeline.1.scale=(320, 192)',
                 'train_cfg.max_epochs=4', 'train_cfg.val_interval=4'],
        saved='Saving checkpoint at {} epochs', file='epoch_{}.pth', last=4,
        first_after=lambda rounds: (rounds + 1, 1)),
    'seg': dict(
        config='configs/seg/upernet_convnext-t-in1k_8xb2-amp-160k_ade20k-512x512.py',
        data='ade/ADEChallengeData2016', metric='mIoU',
        options=['model.decode_head.channels=64', 'model.auxiliary_head.channels=64',
                 'model.data_preprocessor.size=(128, 128)', f'{PIPELINE}.2.scale=(512, 128)',
                 f'{PIPELINE}.3.crop_size=(128, 128)', 'model.test_cfg.crop_size=(128, 128)',
                 'model.test_cfg.stride=(85, 85)', 'val_dataloader.dataset.pipeline.1.scale=(512, 128)',
                 'test_dataloader.dataset.pipeline.1.scale=(512, 128)', 'default_hooks.checkpoint.interval=2',
                 'train_cfg.max_iters=8', 'train_cfg.val_interval=8'],
        saved='Saving checkpoint at {} iterations', file='iter_{}.pth', last=8,
        first_after=lambda iterations: (0, iterations + 1)),
}


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize('task', RECIPES)
def test_published_recipe_survives_kills_and_damage(task, real_data, tmp_path):
    recipe = RECIPES[task]
    step = recipe['last'] // 4  # four checkpoints in all
    work_dir = tmp_path / 'work'
    common = [ROOT / recipe['config'], '--data-root', real_data / recipe['data'], '--work-dir', work_dir]
    options = ['--cfg-options', *COMMON, *recipe['options']]

    def checkpoint(count: int):
        return work_dir / recipe['file'].format(count)

    # killed between two checkpoints
    log = tmp_path / 'first.log'
    process = launch(tool_command('train', *common, *options), log, tmp_path)
    try:
        wait_for(re.escape(recipe['saved'].format(step)) + r'[\s\S]+\(train\)', log, process)
        end = time.monotonic() + 120
        while not checkpoint(step).exists() and time.monotonic() < end:  # it is written beside training
            time.sleep(0.05)
    finally:
        kill(process)
    first = log.read_text()
    assert first.count('fp16 mixed precision falls back to float32') == 1
    assert not checkpoint(recipe['last']).exists()
    newest = max(count for count in (step, 2 * step, 3 * step) if checkpoint(count).exists())

    # resumed, and killed while a checkpoint is being written
    log = tmp_path / 'second.log'
    process = launch(tool_command('train', *common, '--resume', *options), log, tmp_path)
    try:
        wait_for(re.escape(recipe['saved'].format(newest + step)), log, process)
    finally:
        kill(process)
    second = log.read_text()
    assert f'{checkpoint(newest)}: official format' in second
    assert iterations(second)[0] == recipe['first_after'](newest)

    # the newest whole checkpoint is damaged; the one before it is continued to the end
    written = sorted((int(re.search(r'\d+', file.stem)[0]), file) for file in work_dir.glob('*.pth'))
    if len(written) == 1:  # the kill came before the second was complete
        (_, only), count = written[0], written[0][0] + step
        shutil.copy(only, checkpoint(count))
        written.append((count, checkpoint(count)))
    (good, _), (_, damaged) = written[-2:]
    damaged.write_bytes(damaged.read_bytes()[:1_000_000])
    third = run_command(tool_command('train', *common, '--resume', *options), tmp_path / 'third.log', tmp_path)
    assert f'{damaged} cannot be resumed from, trying the one before' in third
    assert f'{checkpoint(good)}: official format' in third
    assert iterations(third)[0] == recipe['first_after'](good)
    meta = read_checkpoint(checkpoint(recipe['last']))['meta']
    assert meta['iter'] == 8

    run_command(tool_command('test', common[0], checkpoint(recipe['last']), *common[1:], *options),
                tmp_path / 'test.log', tmp_path)
    metrics = json.loads((work_dir / 'metrics.json').read_text())
    print(f'\n{task}: first run {iterations(first)}, resumed from {newest} {iterations(second)}, after damage from '
          f'{good} {iterations(third)}; {recipe["metric"]} {metrics[recipe["metric"]]}')
    assert 0 <= metrics[recipe['metric']] <= 100
    shutil.rmtree(work_dir)  # gigabytes
