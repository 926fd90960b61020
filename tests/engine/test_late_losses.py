"""Losses that are recorded when they have come from a GPU, and data that go there without waiting."""
from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import MODELS as DET_MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.dataset import pseudo_collate
from mmengine.hooks import LoggerHook
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData, PixelData
from mmseg.registry import MODELS as SEG_MODELS
from mmseg.structures import SegDataSample

from convnext_dense.engine.hooks import LateRuntimeInfoHook
from convnext_dense.mm.transfer import HostCopy


@pytest.mark.parametrize('comes', ['at once', 'late'])
def test_every_loss_is_recorded_in_order(comes, monkeypatch):
    """What is late is there when the logger prints (each third step) and at the end of the epoch (of 8 steps)."""
    monkeypatch.setattr(HostCopy, 'is_ready', lambda self: comes == 'at once')
    hub = MessageHub(f'losses {comes}')
    runner = SimpleNamespace(hooks=[LoggerHook(interval=3)], message_hub=hub, train_dataloader=range(8), iter=0,
                             max_iters=100)
    hook, recorded = LateRuntimeInfoHook(), []
    for step in range(8):
        outputs = dict(loss=torch.tensor(step / 7), acc=torch.tensor([step], dtype=torch.float16), given=step)
        hook.after_train_iter(runner, step, None, outputs)
        recorded.append(len(hub.get_scalar('train/loss').data[0]) if 'train/loss' in hub.log_scalars else 0)
        runner.iter += 1
    assert recorded == ([1, 2, 3, 4, 5, 6, 7, 8] if comes == 'at once' else [0, 0, 3, 3, 3, 6, 6, 8])
    expected = dict(loss=[torch.tensor(step / 7).item() for step in range(8)], acc=range(8), given=range(8))
    for name, values in expected.items():
        assert hub.get_scalar(f'train/{name}').data[0].tolist() == list(values)


def det_batch() -> dict:
    samples = []
    for seed, (height, width) in enumerate([(40, 70), (64, 50)]):
        generator = torch.Generator().manual_seed(seed)
        sample = DetDataSample(metainfo=dict(img_shape=(height, width)))
        masks = BitmapMasks(torch.ones(2, height, width).byte().numpy(), height, width)
        sample.gt_instances = InstanceData(bboxes=HorizontalBoxes(torch.rand(2, 4)), labels=torch.tensor([1, 2]),
                                           masks=masks)
        sample.ignored_instances = InstanceData(bboxes=HorizontalBoxes(torch.rand(1, 4)))
        image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
        samples.append(dict(inputs=image, data_samples=sample))
    return pseudo_collate(samples)


def seg_batch() -> dict:
    samples = []
    for seed, size in enumerate([(40, 64), (64, 50)]):
        generator = torch.Generator().manual_seed(seed)
        sample = SegDataSample(metainfo=dict(img_shape=size))
        sample.gt_sem_seg = PixelData(data=torch.randint(0, 5, (1, *size), generator=generator))
        image = torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)
        samples.append(dict(inputs=image, data_samples=sample))
    return pseudo_collate(samples)


def flat(value):
    """Tensors and metadata of nested data, in order."""
    if isinstance(value, torch.Tensor | str | int | float) or value is None:
        return [value]
    if isinstance(value, dict):
        return [item for key in sorted(value) for item in (key, *flat(value[key]))]
    if isinstance(value, BitmapMasks):
        return [torch.from_numpy(value.masks)]
    if hasattr(value, 'metainfo'):
        return flat(dict(value.items())) + flat(value.metainfo)
    return [item for each in value for item in flat(each)]


MEAN = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)


@pytest.mark.parametrize('registry, name, batch, options', [
    (DET_MODELS, 'DetDataPreprocessor', det_batch, dict(MEAN, pad_mask=True, pad_size_divisor=32, pad_value=1.0)),
    (DET_MODELS, 'DetDataPreprocessor', det_batch, dict(pad_size_divisor=1)),
    (SEG_MODELS, 'SegDataPreProcessor', seg_batch, dict(MEAN, size=(64, 64), pad_val=0, seg_pad_val=255))])
def test_batches_are_those_of_mmdet_and_mmseg(registry, name, batch, options):
    found = []
    init_default_scope(registry.scope)
    for kind in (name, f'Fast{name}'):
        torch.manual_seed(0)
        preprocessor = registry.build(dict(type=kind, **options))
        found.append(flat(preprocessor(batch(), training=True)))
    for one, two in zip(*found, strict=True):
        assert torch.equal(one, two) and one.dtype == two.dtype if isinstance(one, torch.Tensor) else one == two
    assert sum(isinstance(each, torch.Tensor) for each in found[0]) > 2
