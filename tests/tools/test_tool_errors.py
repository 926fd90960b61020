"""Errors of a user: one line that names the cause, exit status 2, and no training before it."""
import json
from dataclasses import dataclass

import cv2
import pytest
import torch
from tool_runs import DATA, copy_data, iterations, run_tool


@dataclass
class Mistake:
    """A wrong command line for the train tool.

    Args:
        name: of the test.
        expected: what the sentence must contain.
        args: added to the command line.
        task: 'det' or 'seg'.
        config: used instead of the task's tiny config.
    """
    name: str
    expected: tuple[str, ...]
    args: tuple = ()
    task: str = 'det'
    config: str | None = None


MISTAKES = [
    Mistake('data folder', ('data folder nowhere/ does not exist', '--data-root'), ('--data-root', 'nowhere')),
    Mistake('data folder of segmentation', ('data folder nowhere/ does not exist',), ('--data-root', 'nowhere'), 'seg'),
    Mistake('annotation file', ('coco/annotations/typo.json does not exist',),
            ('--cfg-options', 'val_dataloader.dataset.ann_file=annotations/typo.json')),
    Mistake('evaluator annotation file', ('val_evaluator.ann_file typo.json does not exist',),
            ('--cfg-options', 'val_evaluator.ann_file=typo.json')),
    Mistake('image folder', ('ade/images/typo (img_path) does not exist',),
            ('--cfg-options', 'train_dataloader.dataset.data_prefix.img_path=images/typo'), 'seg'),
    Mistake('config', ('config det/mask-rcnn_convnext-t-in1k_fpn_8xb2-amp-ms-crop-3x_cocoo.py does not exist',
                       'nearest ones are configs/det/mask-rcnn_convnext-t-in1k_fpn_8xb2-amp-ms-crop-3x_coco.py'),
            config='det/mask-rcnn_convnext-t-in1k_fpn_8xb2-amp-ms-crop-3x_cocoo.py'),
    Mistake('option', ('optim_wraper', 'did you mean optim_wrapper'),
            ('--cfg-options', 'optim_wraper.optimizer.lr=1e-4')),
    Mistake('option without a value', ("'train_cfg.max_epochs'", 'key=value'),
            ('--cfg-options', 'train_cfg.max_epochs')),
    Mistake('weights', ('weights.pth does not exist',), ('--load-from', 'weights.pth')),
    Mistake('checkpoint to resume', ('--resume typo.pth: no such file',), ('--resume', 'typo.pth')),
    Mistake('class count', ('roi_head.bbox_head.num_classes is 80', '3 classes', 'circle'),
            ('--cfg-options', 'model.roi_head.bbox_head.num_classes=80')),
    Mistake('class count of segmentation', ('decode_head.num_classes is 150', '4 classes'),
            ('--cfg-options', 'model.decode_head.num_classes=150'), 'seg'),
    Mistake('class name', ('hexagon', 'circle, square, triangle'), (
        '--cfg-options', 'train_dataloader.dataset.metainfo=dict(classes=("circle", "square", "hexagon"))')),
    Mistake('learning rate', ('optim_wrapper.optimizer.lr is nan', 'finite number'),
            ('--cfg-options', 'optim_wrapper.optimizer.lr=nan'), 'seg'),
    Mistake('batch size', ('train_dataloader.batch_size is 0', '1 or more'),
            ('--cfg-options', 'train_dataloader.batch_size=0')),
    Mistake('work dir', ('the work dir /proc/work', 'cannot be written', '--work-dir'), ('--work-dir', '/proc/work')),
    Mistake('GPU', ('--device cuda', 'no GPU', '--device cpu'), ('--device', 'cuda')),
    Mistake('fp16 on a CPU', ('--amp fp16', 'no GPU', 'bf16'), ('--amp', 'fp16')),
    Mistake('launcher', ('--launcher pytorch', 'LOCAL_RANK', 'tools/dist_train.sh'), ('--launcher', 'pytorch')),
    Mistake('other launcher', ('--launcher slurm', 'SLURM_PROCID'), ('--launcher', 'slurm')),
    Mistake('learning rate to scale', ('--auto-scale-lr', 'base_batch_size'), ('--auto-scale-lr',), 'seg'),
]


@pytest.mark.parametrize('mistake', MISTAKES, ids=lambda mistake: mistake.name)
def test_mistake_is_named_before_training(mistake, trained, shapes, tmp_path, monkeypatch):
    if mistake.name == 'GPU' and torch.cuda.is_available():
        pytest.skip('there is a GPU here')
    for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'SLURM_PROCID'):
        monkeypatch.delenv(name, raising=False)
    data = () if '--data-root' in mistake.args else ('--data-root', shapes / DATA[mistake.task])
    finished = run_tool('train', mistake.config or trained(mistake.task).config, *data, '--work-dir', 'work',
                        *mistake.args, cwd=tmp_path)
    line = finished.error
    assert all(part in line for part in mistake.expected), line
    assert not iterations(finished.out) and not list(tmp_path.rglob('*.pth'))


@pytest.mark.parametrize('content, known_before', [(None, True), (b'', True), (b'this is no picture', False)],
                         ids=['missing', 'empty', 'text'])
@pytest.mark.parametrize('task, file', [
    ('det', 'train2017/000000000003.jpg'), ('seg', 'images/training/000003.jpg'),
    ('seg', 'annotations/training/000003.png')])
def test_unreadable_image_is_named(task, file, content, known_before, trained, shapes, tmp_path):
    data = copy_data(shapes / DATA[task], tmp_path / 'data')
    victim = sorted((data / file).parent.iterdir())[2]
    victim.unlink()
    if content is not None:
        victim.write_bytes(content)
    elif task == 'seg' and 'images' in file:
        pytest.skip('mmseg lists the images that are there; a missing one cannot be known')
    finished = run_tool('train', trained(task).config, '--data-root', data, '--work-dir', 'work', cwd=tmp_path)
    assert str(victim) in finished.error
    if known_before:
        assert not iterations(finished.out)
    assert not list(tmp_path.rglob('*.pth'))  # the first checkpoint comes after all images have been read once


@pytest.mark.parametrize('task, folder', [('det', 'train2017'), ('seg', 'images/training')])
def test_image_beyond_the_limit_is_named_and_not_decoded(task, folder, trained, tmp_path, monkeypatch):
    run = trained(task)
    monkeypatch.setenv('CONVNEXT_DENSE_MAX_PIXELS', '4095')  # one less than 64x64
    finished = run_tool('train', run.config, '--data-root', run.data_root, '--work-dir', 'work', cwd=tmp_path)
    line = finished.error
    assert str(run.data_root / folder) in line and 'has 4,096 pixels, more than the limit of 4,095' in line
    assert not iterations(finished.out)


@pytest.mark.parametrize('workers', [0, 1])
def test_unreadable_image_is_named_by_the_test_tool(workers, trained, shapes, tmp_path):
    data = copy_data(shapes / 'ade', tmp_path / 'data')
    victim = sorted((data / 'images/validation').iterdir())[1]
    victim.write_bytes(b'GIF89a')
    run = trained('seg')
    finished = run_tool('test', run.config, run.checkpoint, '--data-root', data, '--cfg-options',
                        f'test_dataloader.num_workers={workers}', 'test_dataloader.persistent_workers=False',
                        cwd=tmp_path)
    assert str(victim) in finished.error
    assert not list(tmp_path.rglob('metrics.json'))


@pytest.mark.parametrize('task, folder', [('det', 'val2017'), ('seg', 'images/training')])
def test_empty_image_folder_is_named(task, folder, trained, shapes, tmp_path):
    data = copy_data(shapes / DATA[task], tmp_path / 'data')
    for file in (data / folder).iterdir():
        file.unlink()
    finished = run_tool('train', trained(task).config, '--data-root', data, cwd=tmp_path)
    line = finished.error
    assert str(data / folder) in line and 'is empty' in line


def damage_json(file):
    file.write_text(file.read_text()[:1000])


def without_objects(file):
    file.write_text(json.dumps({**json.loads(file.read_text()), 'annotations': []}))


@pytest.mark.parametrize('damage, expected', [(damage_json, 'JSON'), (without_objects, 'empty after filtering')])
def test_annotation_file_of_no_use_is_named(damage, expected, trained, shapes, tmp_path):
    data = copy_data(shapes / 'coco', tmp_path / 'data')
    file = data / 'annotations/instances_train2017.json'
    damage(file)
    line = run_tool('train', trained('det').config, '--data-root', data, cwd=tmp_path).error
    assert str(file) in line and expected in line


def test_label_beyond_the_classes_is_named(trained, shapes, tmp_path):
    data = copy_data(shapes / 'ade', tmp_path / 'data')
    victim = sorted((data / 'annotations/training').iterdir())[0]
    labels = cv2.imread(str(victim), cv2.IMREAD_UNCHANGED)
    labels[:8] = 9
    cv2.imwrite(str(victim), labels)
    line = run_tool('train', trained('seg').config, '--data-root', data, cwd=tmp_path).error
    assert str(victim) in line and '4 classes' in line and '8' in line


def truncated(source, target):
    target.write_bytes(source.read_bytes()[:5000])


def other_classes(source, target):
    checkpoint = torch.load(source, weights_only=True)
    state = {key: tensor[:3] if 'conv_seg' in key else tensor for key, tensor in checkpoint['state_dict'].items()}
    torch.save({'state_dict': state}, target)


def not_a_number(source, target):
    state = torch.load(source, weights_only=True)['state_dict']
    state['backbone.stages.0.0.pwconv1.weight'][0, 0] = float('nan')
    torch.save({'state_dict': state}, target)


@pytest.mark.parametrize('damage, expected', [
    (None, 'does not exist'), (truncated, 'damaged or cut off'), (other_classes, 'conv_seg'), (not_a_number, 'NaN')],
    ids=['missing', 'truncated', 'class count', 'NaN'])
def test_checkpoint_of_no_use_is_named(damage, expected, trained, tmp_path):
    run = trained('seg')
    checkpoint = tmp_path / 'model.pth'
    if damage is not None:
        damage(run.checkpoint, checkpoint)
    finished = run_tool('test', run.config, checkpoint, '--data-root', run.data_root, cwd=tmp_path)
    line = finished.error
    assert str(checkpoint) in line and expected in line
    assert not list(tmp_path.rglob('metrics.json'))


def test_out_must_be_arrays_or_a_pickle(trained, tmp_path):
    run = trained('seg')
    line = run_tool('test', run.config, run.checkpoint, '--data-root', run.data_root, '--out', 'found.json',
                               cwd=tmp_path).error
    assert 'found.json' in line and '.npz' in line and '.pkl' in line
