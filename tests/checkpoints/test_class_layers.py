"""Which layers depend on the classes, where shapes cannot tell because the number is the same."""
import copy

import pytest
import torch
from mmengine.config import Config

from convnext_dense.engine.loading import find_class_layers
from convnext_dense.recipes.model_info import build_on_meta

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')


@pytest.mark.parametrize('file, layers', [
    ('tiny_det', ['roi_head.bbox_head.fc_cls', 'roi_head.bbox_head.fc_reg', 'roi_head.mask_head.conv_logits']),
    ('tiny_seg', ['auxiliary_head.conv_seg', 'decode_head.conv_seg'])])
def test_layers_that_change_with_the_number_of_classes(file, layers, repo_root):
    """By mmdet's and mmseg's own names: scores, boxes and masks per class; the RPN's scores are class-agnostic."""
    cfg = Config.fromfile(repo_root / f'tests/tools/{file}.py')
    model = build_on_meta(cfg)
    before = copy.deepcopy(cfg.model)
    heads = [part for name, part in model.named_modules() if name in ('roi_head.bbox_head', 'decode_head')]
    classes = heads[0].num_classes
    assert find_class_layers(model, cfg, classes) == layers
    assert cfg.model == before, 'the config is untouched'
    assert find_class_layers(model, Config(dict()), classes) == []
    assert find_class_layers(torch.nn.Linear(2, 2), Config(dict(model=dict(type='NoSuchModel'))), classes) == []
