"""Tiny two-stage detectors with random weights, for tests of graphs and exported models."""
import torch
from mmengine.config import Config
from tool_runs import CONFIGS

from convnext_dense.config import load_config
from convnext_dense.inference.predictor import Predictor

CASCADE = 'det/cascade-mask-rcnn_convnext-t-in1k_fpn_4conv1fc-giou_8xb2-amp-ms-crop-3x_coco.py'
SPREAD = ('fc_cls.weight', 'fc_reg.weight', 'conv_logits.weight', 'rpn_cls.weight', 'rpn_reg.weight')


def tiny_detector_config(kind: str, **rcnn) -> Config:
    """Of a tiny 'mask', 'faster' or 'cascade' R-CNN for images of 160 pixels."""
    cfg = load_config(str(CONFIGS['det']))
    if kind == 'cascade':
        model = load_config(CASCADE).model
        for part in ('backbone', 'neck', 'rpn_head'):
            model[part] = cfg.model[part]
        for part in (*model.roi_head.bbox_head, model.roi_head.mask_head):
            part.update(in_channels=16, conv_out_channels=16, num_classes=3)
        for head in model.roi_head.bbox_head:
            head.update(fc_out_channels=16, norm_cfg=dict(type='BN'))
        model.roi_head.mask_head.num_convs = 1
        for part in ('bbox_roi_extractor', 'mask_roi_extractor'):
            model.roi_head[part].out_channels = 16
        cfg.model = model
    if kind == 'faster':
        cfg.model.type = 'FasterRCNN'
        for key in ('mask_roi_extractor', 'mask_head'):
            cfg.model.roi_head.pop(key)
    cfg.model.test_cfg.rpn.update(nms_pre=300, max_per_img=200)
    cfg.model.test_cfg.rcnn.update({'max_per_img': 40, 'score_thr': 0.05, **rcnn})
    for step in cfg.test_dataloader.dataset.pipeline:
        if step.type == 'Resize':
            step.scale = (160, 160)
    return cfg


def tiny_detector(cfg: Config) -> Predictor:
    """A detector with random weights, spread so widely that boxes, classes and masks differ from place to place."""
    torch.manual_seed(0)
    predictor = Predictor(cfg, device='cpu', score_thr=0, optimize=False)
    predictor.model.init_weights()
    for name, weight in predictor.model.state_dict().items():
        if name.endswith(SPREAD):
            weight.copy_(0.3 * torch.randn_like(weight))
    return predictor
