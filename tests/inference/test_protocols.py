"""The protocol flags of tools/test.py: what they change, what they refuse, and that they run."""
import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import MODELS, DefaultScope
from mmseg.structures import SegDataSample
from tool_runs import must_run, run_tool

from convnext_dense.config import load_config
from convnext_dense.errors import UserError
from convnext_dense.inference.protocols import use_ms_flip, use_whole
from convnext_dense.recipes.metafile import find_recipe

ADE = 'seg/upernet_convnext-t-in1k_8xb2-amp-160k_ade20k-512x512.py'


def small_ade():
    """The published segmentation recipe, test protocols included, with the tests' smallest network."""
    cfg = load_config(ADE)
    cfg.model.backbone = dict(type='ConvNeXt', arch=dict(depths=[1, 1, 1, 1], channels=[8, 16, 24, 32]))
    for head, channels in ((cfg.model.decode_head, [8, 16, 24, 32]), (cfg.model.auxiliary_head, 24)):
        head.update(in_channels=channels, channels=16, norm_cfg=dict(type='BN'))
    return cfg


@torch.no_grad()
def test_ms_flip_is_the_mean_of_twelve_whole_images(tmp_path):
    """By hand: resize to each scale, flip, segment, flip back, resize to the image, softmax, mean, argmax."""
    cfg = small_ade()
    use_ms_flip(cfg)
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    cv2.imwrite(str(tmp_path / 'image.png'), cv2.GaussianBlur(noise, (0, 0), 3))
    cv2.imwrite(str(tmp_path / 'labels.png'), np.ones((40, 60), np.uint8))
    for steps in cfg.test_dataloader.dataset.pipeline[1].transforms[:1]:
        for step in steps:
            step.scale = tuple(side // 8 for side in step.scale)  # as the ratios say, of 256 x 64
    with DefaultScope.overwrite_default_scope('mmseg'):
        torch.manual_seed(0)
        model = MODELS.build(cfg.model).eval()
        pipeline = Compose(cfg.test_dataloader.dataset.pipeline)
    torch.nn.init.normal_(model.module.decode_head.conv_seg.weight, std=0.3)
    sample = pipeline(dict(img_path=str(tmp_path / 'image.png'), seg_map_path=str(tmp_path / 'labels.png'),
                           seg_fields=[], reduce_zero_label=True))
    assert len(sample['inputs']) == 12
    found = model.test_step(pseudo_collate([sample]))[0].pred_sem_seg.data.squeeze().numpy()

    image, total = cv2.imread(str(tmp_path / 'image.png')), 0
    for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75):
        scale = min(int(2048 * ratio) // 8 / 60, int(512 * ratio) // 8 / 40)
        resized = cv2.resize(image, (int(60 * scale + 0.5), int(40 * scale + 0.5)), interpolation=cv2.INTER_LINEAR)
        for flip in (False, True):
            view = np.ascontiguousarray((resized[:, ::-1] if flip else resized).transpose(2, 0, 1))
            meta = SegDataSample(metainfo=dict(ori_shape=resized.shape[:2], img_shape=resized.shape[:2]))
            data = model.module.data_preprocessor(dict(inputs=[torch.from_numpy(view)], data_samples=[meta]), False)
            scores = model.module.encode_decode(data['inputs'], [meta.metainfo])
            scores = scores.flip(-1) if flip else scores
            total = total + torch.nn.functional.interpolate(scores, (40, 60), mode='bilinear')[0].softmax(0)
    best = total.topk(2, dim=0).values
    clear = (best[0] - best[1] > 1e-5).numpy()
    assert clear.mean() > 0.95 and len(np.unique(found)) > 5
    np.testing.assert_array_equal(found[clear], total.argmax(0).numpy()[clear])


def test_ms_flip_is_the_published_protocol(reference_dir):
    published = json.loads((reference_dir / 'published_recipes.json').read_text())
    rows = [row for row in published if row['task'] == 'seg']
    assert len(rows) == 6
    for row in rows:
        test = row['multi_scale_test']
        cfg = load_config(find_recipe(row['name']).config)
        use_ms_flip(cfg)
        transforms = cfg.test_dataloader.dataset.pipeline[1].transforms
        width, height = row['flops_input']  # the scale that the ratios are of
        assert [step.scale for step in transforms[0]] == [
            (int(width * ratio), int(height * ratio)) for ratio in test['ratios']]
        assert [step.prob for step in transforms[1]] == [0.0, 1.0] and test['flip']
        assert cfg.model.module.test_cfg.mode == test['mode'] == 'whole'


def test_whole_takes_the_windows_away():
    cfg = load_config(ADE)
    use_whole(cfg)
    assert cfg.model.test_cfg == dict(mode='whole') and cfg.model.type == 'FastEncoderDecoder'


def test_protocols_of_the_other_task_are_refused(tiny):
    det, seg = (load_config(str(tiny[task])) for task in ('det', 'seg'))
    with pytest.raises(UserError, match='--whole is for segmentors'):
        use_whole(det)
    with pytest.raises(UserError, match='--ms-flip is for segmentors.*--tta'):
        use_ms_flip(det)
    seg.pop('tta_model')
    with pytest.raises(UserError, match='no tta_pipeline and tta_model'):
        use_ms_flip(seg)


@pytest.mark.parametrize('task, flags', [
    ('det', ['--tta', '1', '--soft-nms']), ('det', ['--tta']), ('seg', ['--slide', '48', '32']), ('seg', ['--whole'])])
def test_flags_evaluate(task, flags, tiny, checkpoints, shapes, tmp_path):
    folder = {'det': 'coco', 'seg': 'ade'}[task]
    must_run('test', tiny[task], checkpoints[task], '--data-root', shapes / folder, '--work-dir', tmp_path, *flags)
    metrics = json.loads((tmp_path / 'metrics.json').read_text())
    assert {'det': 'coco/segm_mAP', 'seg': 'mIoU'}[task] in metrics


@pytest.mark.parametrize('task, flags, expected', [
    ('seg', ['--tta'], '--tta is for detectors'), ('det', ['--slide'], '--slide is for segmentors'),
    ('seg', ['--slide', '48'], '--slide 48: expected SIZE and STRIDE'),
    ('seg', ['--soft-nms'], '--soft-nms is for detectors')])
def test_wrong_flags_are_one_sentence(task, flags, expected, tiny, checkpoints, shapes, tmp_path):
    folder = {'det': 'coco', 'seg': 'ade'}[task]
    finished = run_tool('test', tiny[task], checkpoints[task], '--data-root', shapes / folder, '--work-dir', tmp_path,
                        *flags)
    assert finished.code == 2 and expected in finished.err.splitlines()[-1]
