"""mmdet's and mmseg's own configs with our backbone in them, trained by mmengine's own Runner.

Each is the stock file with `custom_imports`, the backbone and, for ResNet-50's configs, the channels after it changed,
or none of these: ConvNeXt configs "as it is", where mmpretrain is not installed. Besides, data paths, class counts,
image sizes and the length of the run change, and pretrained weights come from a local file.
"""
import sys
from pathlib import Path

import mmdet
import mmseg
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from tool_runs import DATA, run_command, scalars

from convnext_dense import ConvNeXt
from convnext_dense.checkpoints import read_checkpoint
from convnext_dense.errors import UserError
from convnext_dense.mm import environment

# what a user's own script would be: nothing of ours but what custom_imports brings
SCRIPT = '''
import sys
from mmengine.config import Config
from mmengine.runner import Runner
runner = Runner.from_cfg(Config.fromfile(sys.argv[1]))
runner.train()
print('backbone:', type(runner.model.backbone).__module__)
print('ours:', sorted(name for name in sys.modules if name in (
    'convnext_dense.engine.runner', 'convnext_dense.cli.running', 'convnext_dense.config.preflight',
    'convnext_dense.engine.results')))
'''
PRETRAINED = "backbone=dict(type='ConvNeXt', init_cfg=dict(checkpoint='{weights}'))"
AS_IT_IS = "backbone=dict(init_cfg=dict(checkpoint='{weights}'))"
SWAPPED = "backbone=dict(_delete_=True, type='ConvNeXt', arch='tiny', drop_path_rate=0.4, layer_scale_init_value=1.0)"
DET_HEADS = 'roi_head=dict(bbox_head=dict(num_classes=3), mask_head=dict(num_classes=3))'
SEG_SIZE = 'data_preprocessor=dict(size=(96, 96))'
# (task, stock file, model): the model's text is what a user writes
STOCK = {
    'mmdet ConvNeXt-T': ('det', 'convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py',
                         f'dict({PRETRAINED}, {DET_HEADS})'),
    'mmdet ConvNeXt-T as it is': ('det', 'convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py',
                                  f'dict({AS_IT_IS}, {DET_HEADS})'),
    'mmseg ConvNeXt-T as it is': ('seg', 'convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py',
                                  f'dict({AS_IT_IS}, decode_head=dict(num_classes=4), auxiliary_head='
                                  f'dict(num_classes=4), {SEG_SIZE}, test_cfg=dict(crop_size=(96, 96), '
                                  'stride=(64, 64)))'),
    'mmdet ResNet-50': ('det', 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
                        f'dict({SWAPPED}, neck=dict(in_channels=[96, 192, 384, 768]), {DET_HEADS})'),
    'mmseg ConvNeXt-T': ('seg', 'convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py',
                         f'dict({PRETRAINED}, decode_head=dict(num_classes=4), auxiliary_head=dict(num_classes=4), '
                         f"{SEG_SIZE}, test_cfg=dict(crop_size=(96, 96), stride=(64, 64)))"),
    'mmseg ResNet-50': ('seg', 'upernet/upernet_r50_4xb4-160k_ade20k-512x512.py',
                        f'dict({SWAPPED}, pretrained=None, decode_head=dict(in_channels=[96, 192, 384, 768], '
                        f'num_classes=4), auxiliary_head=dict(in_channels=384, num_classes=4), {SEG_SIZE})'),
}
DATA_TEXT = {
    'det': '''
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True)]
resize = dict(type='Resize', scale=(96, 96), keep_ratio=True)
keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
data = dict(data_root='{root}', metainfo=dict(classes=('circle', 'square', 'triangle')))
train_dataloader = dict(dataset=dict(
    **data, pipeline=[*load, resize, dict(type='RandomFlip', prob=0.5), dict(type='PackDetInputs')]))
val_dataloader = dict(dataset=dict(
    **data, pipeline=[load[0], resize, load[1], dict(type='PackDetInputs', meta_keys=keys)]))
val_evaluator = dict(ann_file='{root}/annotations/instances_val2017.json')
train_cfg = dict(max_epochs=1, val_interval=1)
''',
    'seg': '''
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', reduce_zero_label=True)]
# ADE20KDataset takes only ADE20K's own classes; its parent takes any
data = dict(type='BaseSegDataset', data_root='{root}', reduce_zero_label=True, img_suffix='.jpg', metainfo=dict(
    classes=('background', 'circle', 'square', 'triangle'), palette=[[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]]))
train_dataloader = dict(batch_size=2, dataset=dict(**data, pipeline=[
    *load, dict(type='RandomResize', scale=(384, 96), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(96, 96), cat_max_ratio=0.75), dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'), dict(type='PackSegInputs')]))
val_dataloader = dict(dataset=dict(**data, pipeline=[*load, dict(type='PackSegInputs')]))
train_cfg = dict(max_iters=4, val_interval=4)
''',
}


def save_as_mmpretrain(backbone: ConvNeXt, file: Path) -> None:
    """Write a backbone's weights as mmpretrain's classifiers have them: its names, one norm, a classifier."""
    state = {}
    for key, value in backbone.state_dict().items():
        for ours, theirs in (('dwconv', 'depthwise_conv'), ('pwconv', 'pointwise_conv')):
            key = key.replace(ours, theirs)
        if not key.startswith(('norm0', 'norm1', 'norm2')):
            state[f'backbone.{key}'] = value
    state.update({'head.fc.weight': torch.zeros(1000, backbone.dims[-1]), 'head.fc.bias': torch.zeros(1000)})
    torch.save({'state_dict': state, 'meta': {}}, file)


@pytest.mark.skipif(environment.installed('mmpretrain'), reason='mmpretrain is installed: its ConvNeXt is built')
@pytest.mark.parametrize('package, file', [
    (mmdet, 'convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py'),
    (mmseg, 'convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py')])
def test_backbone_of_a_stock_convnext_config_loads_its_weights(package, file, tmp_path):
    """mmpretrain's file as the config asks for it; the official file, which has no prefix, without one."""
    cfg = Config.fromfile(Path(package.__file__).parent / '.mim/configs' / file).model.backbone
    cfg.arch = 'atto'
    torch.manual_seed(0)
    source = ConvNeXt('atto', layer_scale_init_value=1.0)
    official = {key: value for key, value in source.state_dict().items() if not key.startswith('norm')}
    torch.save({'model': {**official, 'norm.weight': torch.ones(320), 'norm.bias': torch.zeros(320),
                          'head.weight': torch.zeros(1000, 320), 'head.bias': torch.zeros(1000)}},
               tmp_path / 'official.pth')
    save_as_mmpretrain(source, tmp_path / 'mmpretrain.pth')
    assert cfg.init_cfg.prefix == 'backbone.'
    for name in ('mmpretrain', 'official'):
        cfg.init_cfg.checkpoint = str(tmp_path / f'{name}.pth')
        with DefaultScope.overwrite_default_scope(package.__name__):
            net = MODELS.build(cfg)
        assert type(net) is ConvNeXt
        if name == 'official':
            with pytest.raises(UserError, match="no ConvNeXt under the prefix 'backbone.'.*leave it out"):
                net.init_weights()
            net.init_cfg.pop('prefix')
        net.init_weights()
        state = net.state_dict()
        assert all(state[key].equal(value) for key, value in official.items())


@pytest.mark.slow
@pytest.mark.parametrize('name', [
    pytest.param(name, marks=pytest.mark.long) if 'ResNet' in name else name for name in STOCK])
def test_stock_config_trains_with_mmengines_runner(name, shapes, tmp_path):
    task, file, model = STOCK[name]
    stock = Path({'det': mmdet, 'seg': mmseg}[task].__file__).parent / '.mim/configs' / file
    assert stock.is_file()
    pretrained = '{weights}' in model
    if pretrained:
        torch.manual_seed(0)
        save_as_mmpretrain(ConvNeXt('tiny', layer_scale_init_value=1.0), tmp_path / 'convnext-tiny_in1k.pth')
        model = model.replace('{weights}', str(tmp_path / 'convnext-tiny_in1k.pth'))
    config = tmp_path / 'mine.py'
    as_it_is = name.endswith('as it is')  # imports mmpretrain, and our package is imported by the script
    if as_it_is and environment.installed('mmpretrain'):
        pytest.skip('mmpretrain is installed: the config has its ConvNeXt')
    imports = '' if as_it_is else "custom_imports = dict(imports=['convnext_dense'], allow_failed_imports=False)\n"
    config.write_text(f"_base_ = '{stock}'\n" + imports +
                      # theirs ask for fp16, which mmengine's wrapper refuses without a GPU
                      ("optim_wrapper = dict(type='MixedPrecisionOptimWrapper')\n" if pretrained else '') +
                      f'model = {model}\n' + DATA_TEXT[task].replace('{root}', str(shapes / DATA[task])) +
                      'test_dataloader = val_dataloader\nrandomness = dict(seed=0)\nwork_dir = "work"\n'
                      'default_hooks = dict(logger=dict(interval=1))\nlog_processor = dict(window_size=1)\n')
    (tmp_path / 'train_mine.py').write_text(('import convnext_dense\n' if as_it_is else '') + SCRIPT)
    log = run_command([sys.executable, tmp_path / 'train_mine.py', config], tmp_path / 'log', tmp_path)
    assert 'backbone: convnext_dense.models.convnext' in log
    assert 'ours: []' in log, 'none of our tools may have been imported'
    losses = [line['loss'] for line in scalars(tmp_path / 'work') if 'loss' in line]
    assert len(losses) == 4 and np.isfinite(losses).all()
    metric = {'det': 'coco/segm_mAP', 'seg': 'mIoU'}[task]
    assert metric in scalars(tmp_path / 'work')[-1]
    checkpoint = tmp_path / 'work' / {'det': 'epoch_1.pth', 'seg': 'iter_4.pth'}[task]
    assert 'backbone.stages.3.2.pwconv2.weight' in read_checkpoint(checkpoint)['state_dict']
    if pretrained:
        assert 'convnext-tiny_in1k.pth: mmpretrain classifier format' in log
    print(f'\n{name}: losses {", ".join(f"{loss:.3f}" for loss in losses)}')
