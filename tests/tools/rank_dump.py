"""For the tests of distributed training: every rank's parameters, losses and images; see test_distributed.py."""
import json
from pathlib import Path

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS


@HOOKS.register_module()
class RankDump(Hook):
    """Write ``rankR.pth`` (parameters and buffers) and ``rankR.json`` (losses and images) after training."""

    def __init__(self, folder: str):
        self.folder = Path(folder)
        self.losses = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        images = [Path(sample.img_path).name for sample in data_batch['data_samples']]
        losses = {key: value.item() for key, value in outputs.items() if 'loss' in key}
        self.losses.append({**losses, 'images': images, 'iteration': runner.iter})

    def after_train(self, runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self.folder.mkdir(parents=True, exist_ok=True)
        torch.save({'parameters': dict(model.named_parameters()), 'buffers': dict(model.named_buffers())},
                   self.folder / f'rank{get_rank()}.pth')
        (self.folder / f'rank{get_rank()}.json').write_text(json.dumps(self.losses))
