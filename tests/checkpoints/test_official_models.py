"""Official fine-tuned detectors and segmentors fill our recipes' models: complete, with nothing left over."""
import json

import pytest
import torch
from mmengine.config import Config

from convnext_dense.checkpoints import load_checkpoint

RECIPES = {
    'mask-rcnn_convnext-t-in1k': 'det/mask-rcnn_convnext-t-in1k_fpn_8xb2-amp-ms-crop-3x_coco.py',
    'cascade-mask-rcnn_convnext-t-in1k':
        'det/cascade-mask-rcnn_convnext-t-in1k_fpn_4conv1fc-giou_8xb2-amp-ms-crop-3x_coco.py',
    'upernet_convnext-t-in1k_ade20k-512x512': 'seg/upernet_convnext-t-in1k_8xb2-amp-160k_ade20k-512x512.py',
}


@pytest.mark.parametrize('name', RECIPES)
def test_fine_tuned(repo_root, reference_dir, tmp_path, caplog, name):
    library = pytest.importorskip('mmdet' if RECIPES[name].startswith('det') else 'mmseg')
    from mmengine.registry import MODELS, init_default_scope
    cfg = Config.fromfile(repo_root / 'configs' / RECIPES[name])
    init_default_scope(library.__name__)
    __import__(f'{library.__name__}.models')
    cfg.model.backbone.pop('init_cfg', None)
    model = MODELS.build(cfg.model)
    shapes = json.loads((reference_dir / 'official_checkpoint_keys.json').read_text())[name]
    state = {key: torch.full(shape, float(i + 1)) for i, (key, shape) in enumerate(shapes.items())}
    torch.save({'state_dict': state, 'meta': {}}, tmp_path / 'official.pth')
    load_checkpoint(model, tmp_path / 'official.pth', complete=True)
    loaded = model.state_dict()
    assert loaded.keys() == state.keys()  # nothing missing, nothing left over
    assert all(torch.equal(loaded[key].float(), state[key]) for key in state)


@pytest.mark.parametrize('name, version, arch', [
    ('convnext_tiny_classifier', 'V1', 'tiny'), ('convnextv2_atto_classifier', 'V2', 'atto')])
def test_classifiers(reference_dir, tmp_path, name, version, arch):
    from convnext_dense.models import ConvNeXt
    shapes = json.loads((reference_dir / 'official_checkpoint_keys.json').read_text())[name]
    state = {key: torch.full(shape, float(i + 1)) for i, (key, shape) in enumerate(shapes.items())}
    torch.save({'model': state}, tmp_path / 'official.pth')
    model = ConvNeXt(arch, use_grn=version == 'V2')
    load_checkpoint(model, tmp_path / 'official.pth')
    loaded = model.state_dict()
    initial = {f'norm{i}.{kind}' for i in range(4) for kind in ('weight', 'bias')}
    assert loaded.keys() - state.keys() == initial
    assert state.keys() - loaded.keys() == {'norm.weight', 'norm.bias', 'head.weight', 'head.bias'}
    assert all(torch.equal(loaded[key], state[key]) for key in loaded.keys() - initial)
    assert all(torch.all(loaded[key] == (1 if key.endswith('weight') else 0)) for key in initial)
