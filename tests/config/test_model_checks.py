"""Heads whose channels do not fit our backbone, and layers whose operators are missing, are found before training."""
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from convnext_dense.config import model_checks
from convnext_dense.config.model_checks import check_channels, check_operators, check_weights
from convnext_dense.engine.runner import DenseRunner
from convnext_dense.errors import UserError
from convnext_dense.mm import operators

pytest.importorskip('mmdet')
WIDTHS = [40, 80, 160, 320]


def det(neck=None, heads=None, **backbone) -> Config:
    init_cfg = dict(type='Pretrained', checkpoint='x')
    model = dict(backbone=dict(type='ConvNeXt', arch='atto', init_cfg=init_cfg, **backbone), **(heads or {}))
    if neck is not None:
        model['neck'] = neck
    return Config(dict(default_scope='mmdet', model=model))


def seg(head, **backbone) -> Config:
    return Config(dict(default_scope='mmseg', model=dict(
        backbone=dict(type='ConvNeXt', arch='atto', **backbone), decode_head=head)))


@pytest.mark.parametrize('cfg', [
    det(dict(type='FPN', in_channels=WIDTHS)), det(dict(type='YOLOV3Neck', in_channels=WIDTHS[::-1])),
    det([dict(type='FPN', in_channels=WIDTHS), dict(type='BFP', in_channels=256)]),
    det(dict(type='DilatedEncoder', in_channels=320), out_indices=(3,)),
    det(heads=dict(panoptic_head=dict(in_channels=WIDTHS), panoptic_fusion_head=dict(num_things_classes=80))),
    Config(dict(model=dict(detector=det(dict(in_channels=WIDTHS)).model))),
    Config(dict(model=dict(backbone=dict(type='ResNet', depth=50), neck=dict(in_channels=[1])))),
    seg(dict(in_channels=WIDTHS, in_index=[0, 1, 2, 3])), seg(dict(in_channels=320)),
    seg(dict(in_channels=160, in_index=2)), seg(dict(in_channels=160, in_index=1), out_indices=(0, 2)),
    seg([dict(in_channels=160, in_index=2), dict(in_channels=[80, 320], in_index=(1, 3))]),
    seg(dict(in_channels=WIDTHS)), seg(dict(type='LightHamHead'))])
def test_what_fits_passes(cfg):
    check_channels(cfg)


@pytest.mark.parametrize('cfg, message', [
    (det(dict(type='FPN', in_channels=[256, 512, 1024, 2048])),
     r'^model.neck.in_channels is \[256, 512, 1024, 2048\], but model.backbone gives maps of 40, 80, 160, 320 '
     r'channels: set it to \[40, 80, 160, 320\]$'),
    (det([dict(type='FPN', in_channels=WIDTHS[:3])]), r'model.neck\[0\].in_channels is \[40, 80, 160\]'),
    (det(dict(type='FPN', in_channels=WIDTHS), out_indices=(1, 2, 3)), r'maps of 80, 160, 320 channels'),
    (det(dict(type='DilatedEncoder', in_channels=2048), out_indices=(3,)), 'is 2048, but .* of 320 channels'),
    (det(heads=dict(panoptic_head=dict(in_channels=[1, 2]))), r'model.panoptic_head.in_channels is \[1, 2\]'),
    (Config(dict(model=dict(detector=det(dict(in_channels=[7])).model))), r'model.detector.neck.in_channels is \[7\]'),
    (seg(dict(in_channels=2048, in_index=3)), 'model.decode_head.in_channels is 2048, but .*: set it to 320$'),
    (seg([dict(in_channels=320), dict(in_channels=[80, 160], in_index=[0, 1])]),
     r'model.decode_head\[1\].in_channels is \[80, 160\], but .*: set it to \[40, 80\]$'),
    (seg(dict(in_channels=160, in_index=2), out_indices=(0, 2)), 'in_index is 2, but .* numbered from 0 to 1'),
    (det(arch_typo=1), "model.backbone: .*unexpected keyword argument 'arch_typo'"),
    (det(drop_path_rate=2), 'model.backbone: drop_path_rate is a probability')])
def test_what_does_not_fit_is_one_sentence(cfg, message):
    with pytest.raises(UserError, match=message) as caught:
        check_channels(cfg)
    assert '\n' not in str(caught.value)


@pytest.mark.skipif(operators.compiled(), reason='this mmcv brings compiled operators')
def test_a_layer_without_its_operator_is_an_error_before_training():
    from mmcv.ops import DeformConv2dPack, RoIAlign, RoIAlignRotated
    model = torch.nn.Module()
    model.conv, model.pool = DeformConv2dPack(2, 2, 3), RoIAlign(7)
    check_operators(model)
    model.rotated = RoIAlignRotated(7, 0.25)
    with pytest.raises(UserError, match='^rotated of the model needs the mmcv operator roi_align_rotated_backward, '):
        check_operators(model)
    MODELS.register_module(name='ModelWithRoIAlignRotated', module=lambda: model)
    try:
        with pytest.raises(UserError, match='roi_align_rotated'):
            DenseRunner.build_model(DenseRunner.__new__(DenseRunner), dict(type='ModelWithRoIAlignRotated'))
    finally:
        MODELS.module_dict.pop('ModelWithRoIAlignRotated')


def test_a_stock_convnext_config_is_checked_too():
    cfg = det(dict(type='FPN', in_channels=[96, 192, 384, 768]))
    cfg.model.backbone.type = 'mmpretrain.ConvNeXt'
    with pytest.raises(UserError, match=r'set it to \[40, 80, 160, 320\]'):
        check_channels(cfg)


@pytest.mark.parametrize('key', ['backbone', 'load_from'])
def test_gated_weights_are_named_before_training(key, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    cfg = det(dict(type='FPN', in_channels=WIDTHS))
    check_weights(cfg)  # a file of the user
    if key == 'load_from':
        cfg.load_from = 'dinov3_convnext_tiny'
    else:
        cfg.model.backbone.init_cfg.checkpoint = 'dinov3_convnext_tiny'
    with pytest.raises(UserError, match='dinov3_convnext_tiny is gated, its licence has to be accepted first'):
        check_weights(cfg)


@pytest.mark.parametrize('name, logged', [('convnextv2_atto_fcmae', 1), ('eupe_convnext_tiny', 1),
                                          ('convnext_tiny_in1k', 0)])
def test_noncommercial_weights_are_said_once(name, logged, monkeypatch):
    lines = []
    monkeypatch.setattr(model_checks, 'print_log', lambda line, **options: lines.append(line))
    cfg = det(dict(type='FPN', in_channels=WIDTHS))
    cfg.model.backbone.init_cfg.checkpoint = name
    check_weights(cfg)
    assert len(lines) == logged and all(name in line and 'commercially' in line for line in lines)
