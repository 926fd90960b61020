"""Batches to a GPU: what is moved, in which order, and that the same values arrive while the GPU computes."""
from contextlib import contextmanager

import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData

from convnext_dense.mm import transfer


def batch() -> dict:
    sample = DetDataSample(metainfo=dict(img_shape=(4, 6)))
    sample.gt_instances = InstanceData(bboxes=HorizontalBoxes(torch.rand(3, 4)), labels=torch.arange(3))
    return dict(inputs=[torch.arange(6, dtype=torch.uint8), torch.ones(2)], data_samples=[sample], name='a')


def test_new_elements_with_the_same_contents():
    data = batch()
    before = data['data_samples'][0]
    moved = transfer.to_device(data, torch.device('meta'))
    sample = moved['data_samples'][0]
    assert sample.gt_instances.bboxes.tensor.is_meta and sample.gt_instances.labels.is_meta and moved['name'] == 'a'
    assert not before.gt_instances.labels.is_meta and sample.img_shape == (4, 6) and sample.keys() == before.keys()
    sample.set_metainfo(dict(batch_input_shape=(32, 32)))
    sample.gt_instances.scores = torch.ones(3)
    assert 'batch_input_shape' not in before and 'scores' not in before.gt_instances  # the loader's batch stays


def test_copies_run_in_their_own_stream_and_computing_waits_for_them(monkeypatch):
    """With streams and a copy that write down what happens to them."""
    seen = []

    class Stream:
        def __init__(self, name):
            self.name = name

        def wait_stream(self, other):
            seen.append(f'{self.name} waits for {other.name}')

    @contextmanager
    def stream(beside):
        seen.append(f'into {beside.name}')
        yield
        seen.append(f'out of {beside.name}')

    def copy(data, device):
        seen.append('copy')
        return data

    computing = Stream('computing')
    monkeypatch.setattr(torch.cuda, 'current_stream', lambda device: computing)
    monkeypatch.setattr(torch.cuda, 'stream', stream)
    monkeypatch.setattr(transfer, 'copy_stream', lambda index: Stream('copies'))
    monkeypatch.setattr(transfer, 'to_device', copy)
    monkeypatch.setattr(torch.Tensor, 'record_stream', lambda tensor, stream: seen.append((tensor.shape, stream.name)))
    data = batch()
    assert transfer.batch_to_device(data, torch.device('cuda', 0)) is data
    assert seen[:4] == ['into copies', 'copy', 'out of copies', 'computing waits for copies']
    assert sorted(shape for shape, name in seen[4:] if name == 'computing') == [(2,), (3,), (3, 4), (6,)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_values_arrive_while_the_gpu_computes():
    large = torch.rand(4096, 4096, device='cuda')
    for value in range(20):
        large = large @ large / 4096  # the GPU is behind the host
        moved = transfer.batch_to_device([torch.full((1000, 1000), value)], torch.device('cuda'))[0]
        assert (moved == value).all()
