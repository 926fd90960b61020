"""The documented seed and deterministic mode: two trainings on a CPU end with bit-equal parameters."""
import pytest
import torch
from rows import ROOT

from convnext_dense.config import load_config
from convnext_dense.engine.runner import DenseRunner, prepare_training

SEG = ROOT / 'configs/seg/upernet_convnextv2-atto-in1k_8xb2-amp-160k_ade20k-512x512.py'
DET = ROOT / 'configs/det/mask-rcnn_convnextv2-atto-in1k_fpn_8xb2-amp-ms-crop-3x_coco.py'
SMALL = {
    SEG: ['train_dataloader.dataset.pipeline.3.crop_size=(64,64)', 'model.data_preprocessor.size=(64,64)',
          'train_cfg.max_iters=3'],
    DET: ['train_dataloader.dataset.indices=6', 'train_cfg.max_epochs=1', 'model.train_cfg.rcnn.sampler.num=16',
          'train_dataloader.dataset.pipeline.3.transforms.0.0.scales=[(96,160)]',
          'train_dataloader.dataset.pipeline.3.transforms.1.2.scales=[(96,160)]'],
}


def train(path, root, work_dir, seed: int) -> dict[str, torch.Tensor]:
    cfg = load_config(str(path), [*SMALL[path], 'model.backbone.init_cfg=None', 'train_dataloader.num_workers=0',
                                  'randomness.deterministic=True'], str(root), str(work_dir))
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    cfg.randomness.seed = seed
    cfg.visualizer.name = str(work_dir)
    runner = DenseRunner.from_cfg(prepare_training(cfg))
    runner.train()
    return {name: param.detach().clone() for name, param in runner.model.named_parameters()}


@pytest.mark.slow
@pytest.mark.parametrize('path, folder', [(DET, 'coco'), (SEG, 'ade/ADEChallengeData2016')], ids=['det', 'seg'])
def test_same_seed_same_parameters(path, folder, real_data, tmp_path):
    was = torch.are_deterministic_algorithms_enabled()
    try:
        first, second, other = (train(path, real_data / folder, tmp_path / name, seed)
                                for name, seed in (('first', 5), ('second', 5), ('other', 6)))
    finally:
        torch.use_deterministic_algorithms(was)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
