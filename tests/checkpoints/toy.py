"""A segmentor small enough to train in a test, and a Runner for it: toy models, real mmengine."""
from itertools import count

import torch
from mmengine.model import BaseModel
from torch.utils.data import DataLoader

from convnext_dense.models import ConvNeXt

ARCH = dict(depths=[1, 1, 2, 1], channels=[8, 16, 24, 40])
_NUMBER = count()  # mmengine keeps loggers by experiment name


class Head(torch.nn.Module):
    """A class-dependent layer (masks), one with background, one with boxes per class, and one that is neither."""

    def __init__(self, num_classes):
        super().__init__()
        self.num_classes = num_classes
        self.shared = torch.nn.Conv2d(40, 12, 1)
        self.conv_seg = torch.nn.Conv2d(12, num_classes, 1)
        self.fc_cls = torch.nn.Linear(12, num_classes + 1)
        self.fc_reg = torch.nn.Linear(12, 4 * num_classes)
        self.objectness = torch.nn.Linear(12, 3)


class Toy(BaseModel):
    """ConvNeXt backbone, ``decode_head``; the loss is its outputs' mean square."""

    def __init__(self, num_classes=5, **backbone):
        super().__init__()
        self.backbone = ConvNeXt(**{'arch': ARCH, **backbone})
        self.decode_head = Head(num_classes)

    def forward(self, inputs, mode='tensor'):
        out = self.decode_head.conv_seg(self.decode_head.shared(self.backbone(inputs)[-1]))
        return {'loss': out.square().mean()} if mode == 'loss' else list(out)


class Images(torch.utils.data.Dataset):
    """Four random images."""

    metainfo = dict(classes=('a', 'b'), palette=[(0, 0, 0), (1, 2, 3)])

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return {'inputs': torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(index))}


def runner(work_dir, model=None, base=None, epochs=1, ema=False, test=False, **more):
    """A Runner (mmengine's own, or ``base``) that trains the toy, or with ``test`` only tests it."""
    from mmengine.evaluator import BaseMetric, Evaluator
    from mmengine.runner import Runner

    class Count(BaseMetric):
        def process(self, data_batch, data_samples):
            self.results += [float(sample.mean()) for sample in data_samples]

        def compute_metrics(self, results):
            return dict(mean=sum(results) / len(results))

    loader = DataLoader(Images(), batch_size=2)
    train = {} if test else dict(
        train_dataloader=loader, train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
        param_scheduler=dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=10))
    return (base or Runner)(
        model=model or Toy(), work_dir=str(work_dir), default_scope='mmengine', **train,
        **(dict(test_dataloader=loader, test_cfg=dict(), test_evaluator=Evaluator(Count())) if test else
           dict(val_dataloader=loader, val_cfg=dict(), val_evaluator=Evaluator(Count()))),
        custom_hooks=[dict(type='EMAHook')] if ema else None,
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)),
        log_level='ERROR', experiment_name=f'toy{next(_NUMBER)}', **more)
