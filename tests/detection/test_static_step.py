"""Training steps of fixed shapes: mmdet's losses and gradients for the same samples, which are drawn as mmdet's are."""
import copy
import random
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import torch
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmdet.models.task_modules import MaxIoUAssigner
from mmdet.models.task_modules.assigners import AssignResult
from mmdet.models.task_modules.samplers import RandomSampler
from mmdet.registry import DATASETS, MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from rank_norm import rank_norm
from tool_runs import ROOT
from torch import nn

from convnext_dense.detection import targets
from convnext_dense.detection.masked_norm import norms_over
from convnext_dense.errors import UserError
from convnext_dense.mm import transfer

STOCK = {'StaticRPNHead': 'RPNHead', 'StaticRoIHead': 'StandardRoIHead', 'StaticCascadeRoIHead': 'CascadeRoIHead',
         'Float32RoIExtractor': 'SingleRoIExtractor', 'Float32FCNMaskHead': 'FCNMaskHead',
         'Float32Shared2FCBBoxHead': 'Shared2FCBBoxHead', 'Float32ConvFCBBoxHead': 'ConvFCBBoxHead'}
RECIPES = {'mask': 'mask-rcnn_convnext-t-in1k_fpn_8xb2-amp-ms-crop-3x_coco.py',
           'cascade': 'cascade-mask-rcnn_convnext-t-in1k_fpn_4conv1fc-giou_8xb2-amp-ms-crop-3x_coco.py'}
CHANNELS = 16


def with_types(node, types: dict):
    """A config with some types replaced."""
    if isinstance(node, dict):
        return type(node)({key: types.get(value, value) if key == 'type' and isinstance(value, str)
                           else with_types(value, types) for key, value in node.items()})
    return [with_types(item, types) for item in node] if isinstance(node, list) else node


def small_config(kind: str, classes: int = 80) -> Config:
    """A recipe's model at small width, with 64 samples an image; its box heads' SyncBN stays."""
    cfg = Config.fromfile(ROOT / 'configs/det' / RECIPES[kind]).model
    cfg.backbone.update(arch=dict(depths=[1, 1, 1, 1], channels=[8, 16, 24, 32]), init_cfg=None, drop_path_rate=0.0)
    cfg.neck.update(in_channels=[8, 16, 24, 32], out_channels=CHANNELS)
    cfg.rpn_head.update(in_channels=CHANNELS, feat_channels=CHANNELS)
    cfg.rpn_head.anchor_generator.scales = [4]
    heads = cfg.roi_head.bbox_head if kind == 'cascade' else [cfg.roi_head.bbox_head]
    for head in heads:
        head.update(in_channels=CHANNELS, fc_out_channels=32, num_classes=classes)
        if 'conv_out_channels' in head:
            head.conv_out_channels = CHANNELS
    cfg.roi_head.mask_head.update(in_channels=CHANNELS, conv_out_channels=CHANNELS, num_convs=1, num_classes=classes)
    for extractor in (cfg.roi_head.bbox_roi_extractor, cfg.roi_head.mask_roi_extractor):
        extractor.out_channels = CHANNELS
    cfg.train_cfg.rpn_proposal.update(nms_pre=200, max_per_img=150)
    for rcnn in cfg.train_cfg.rcnn if kind == 'cascade' else [cfg.train_cfg.rcnn]:
        rcnn.sampler.num = 64
    return cfg


def build(cfg: Config) -> nn.Module:
    """A detector with random weights, spread so that boxes differ from their anchors."""
    init_default_scope('mmdet')
    model = revert_sync_batchnorm(MODELS.build(copy.deepcopy(cfg)))
    torch.manual_seed(0)
    model.init_weights()
    for name, parameter in model.named_parameters():
        if any(part in name for part in ('rpn_reg.weight', 'rpn_cls.weight', 'fc_cls.weight', 'fc_reg.weight')):
            nn.init.normal_(parameter, std=0.1)
    return model.train()


def pair(kind: str) -> tuple[nn.Module, nn.Module]:
    """mmdet's heads and ours, with the same weights."""
    cfg = small_config(kind)
    stock, ours = build(with_types(cfg, STOCK)), build(cfg)
    assert {type(ours.rpn_head).__name__, type(ours.roi_head).__name__} <= set(STOCK)
    assert {type(stock.rpn_head).__name__, type(stock.roi_head).__name__} <= set(STOCK.values())
    assert list(ours.state_dict()) == list(stock.state_dict())
    ours.load_state_dict(stock.state_dict())
    if kind == 'cascade':  # its norms sum in another order, and rounding would switch some ReLU of millions on or off
        for head in (*stock.roi_head.bbox_head, *ours.roi_head.bbox_head):
            head.relu = nn.SiLU()
            for conv in head.shared_convs:
                conv.activate = nn.SiLU()
    return stock, ours


def keys_of(boxes: torch.Tensor) -> torch.Tensor:
    """Numbers from 0 to 1 of boxes (..., 4) alone, so that both sides prefer the same ones.

    A triangle wave, which changes slowly: rounding of a box, as between stages of a cascade, hardly changes the order.
    """
    phase = boxes.double() @ torch.tensor([0.00129898, 0.0078233, 0.0037719, 0.0093989], dtype=torch.float64)
    return (2 * phase.frac() - 1).abs().float()


def same_samples(monkeypatch) -> None:
    """Have both implementations take the candidates with the highest keys."""
    def choose(which, assign_result, number, boxes):
        places = which(assign_result.gt_inds).nonzero()[:, 0]
        return places[keys_of(boxes[places]).argsort(descending=True, stable=True)[:number]]

    monkeypatch.setattr(targets, 'random_keys', keys_of)
    monkeypatch.setattr(RandomSampler, '_sample_pos', lambda self, result, number, bboxes, **_: choose(
        lambda indices: indices > 0, result, number, bboxes))
    monkeypatch.setattr(RandomSampler, '_sample_neg', lambda self, result, number, bboxes, **_: choose(
        lambda indices: indices == 0, result, number, bboxes))


def step(model: nn.Module, data: dict) -> tuple[dict, dict]:
    """Losses and gradients of a batch; running statistics of batch norms are put back."""
    data = copy.deepcopy(data)
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    model.zero_grad()
    loss, values = model.parse_losses(model(**model.data_preprocessor(data, training=True), mode='loss'))
    loss.backward()
    after = {name: value.clone() for name, value in model.state_dict().items() if 'running' in name}
    for name, value in model.named_buffers():
        value.copy_(buffers[name])
    return {name: value.item() for name, value in values.items()} | after, {
        name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def compare(stock: nn.Module, ours: nn.Module, data: dict) -> tuple[float, float]:
    """The largest relative differences of losses, and of gradients (over the norm of each parameter's)."""
    (losses, gradients), (own_losses, own_gradients) = step(stock, data), step(ours, data)
    assert own_losses.keys() == losses.keys()
    of_losses = 0.0
    for name, value in losses.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(own_losses[name], value, rtol=1e-4, atol=1e-6)
        else:
            of_losses = max(of_losses, abs(own_losses[name] - value) / max(abs(value), 1e-6))
    largest = max(gradient.norm() for gradient in gradients.values())
    of_gradients = 0.0
    for name, gradient in own_gradients.items():
        other = gradients.get(name, torch.zeros_like(gradient))
        of_gradients = max(of_gradients, ((gradient - other).norm() / max(other.norm(), 1e-3 * largest)).item())
    return of_losses, of_gradients


def image(boxes, labels, crowd=(), height=120, width=150, seed=0) -> dict:
    """One sample as the data loader gives it, with elliptic masks."""
    boxes = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    y, x = np.mgrid[:height, :width] + 0.5
    masks = [(((x - (a + c) / 2) / max(c - a, 1)) ** 2 + ((y - (b + d) / 2) / max(d - b, 1)) ** 2 <= 0.25)
             for a, b, c, d in boxes.tolist()]
    masks = np.array(masks, np.uint8).reshape(-1, height, width)
    sample = DetDataSample(metainfo=dict(img_shape=(height, width), ori_shape=(height, width)))
    sample.gt_instances = InstanceData(bboxes=HorizontalBoxes(boxes), labels=torch.as_tensor(labels).long(),
                                       masks=BitmapMasks(masks, height, width))
    sample.ignored_instances = InstanceData(
        bboxes=HorizontalBoxes(torch.as_tensor(crowd, dtype=torch.float32).reshape(-1, 4)))
    pixels = np.random.default_rng(seed).integers(0, 256, (3, height, width), np.uint8)
    return dict(inputs=torch.from_numpy(pixels), data_samples=sample)


def random_boxes(count: int, height=120, width=150, seed=0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 1, (count, 2)) * [width - 60, height - 60]
    return np.concatenate([corners, corners + rng.uniform(5, 60, (count, 2))], 1).round(2)


def cases() -> dict[str, list[dict]]:
    """Batches in which something is missing, equal or large."""
    grid = np.array([[x, y, x + 32, y + 32] for x in (0, 32, 64) for y in (0, 32)], float)
    return {
        'some': [image(random_boxes(5), [3, 1, 4, 1, 5]), image(random_boxes(2, seed=1), [9, 2], height=90, width=160)],
        'none and one': [image([], []), image([[20, 30, 70, 90]], [7])],
        'none at all': [image([], []), image([], [], height=90)],
        'crowd': [image(random_boxes(3), [1, 2, 3], crowd=[[0, 0, 80, 80]]), image([[5, 5, 60, 60]], [0])],
        'ties': [image(grid, range(6)), image([[16, 16, 48, 48], [48, 16, 80, 48], [16, 16, 48, 48.5]], [1, 2, 3])],
        'many': [image(random_boxes(500, seed=2), np.arange(500) % 80), image(random_boxes(3), [1, 1, 1])],
    }


@pytest.fixture(scope='module', params=['mask', pytest.param('cascade', marks=pytest.mark.slow)])
def models(request):
    return pair(request.param)


@pytest.mark.parametrize('case', ['some', *(pytest.param(case, marks=pytest.mark.slow) for case in list(cases())[1:])])
@pytest.mark.parametrize('waits', [True, False], ids=['as on a GPU', 'as on a CPU'])
def test_losses_and_gradients_are_mmdets(case, waits, models, monkeypatch):
    monkeypatch.setattr(transfer, 'host_would_wait', lambda tensor: waits)
    same_samples(monkeypatch)
    of_losses, of_gradients = compare(*models, pseudo_collate(cases()[case]))
    print(f'{case}: largest relative difference of losses {of_losses:.1e}, of gradients {of_gradients:.1e}')
    assert of_losses < 1e-5 and of_gradients < 1e-5


def real_batches(folder, count: int) -> list[dict]:
    """Two images a batch, as the recipe gives them, at a fifth of its size; crowds and images without objects too."""
    cfg = Config.fromfile(ROOT / 'configs/det' / RECIPES['mask'])
    dataset = cfg.train_dataloader.dataset
    dataset.update(data_root=str(folder / 'coco'), filter_cfg=None)

    def shrink(node):
        if isinstance(node, dict):
            for key, value in node.items():
                if key in ('scales', 'crop_size'):
                    node[key] = [tuple(side // 5 for side in each) for each in value] if key == 'scales' else (76, 120)
                else:
                    shrink(value)
        elif isinstance(node, list):
            for item in node:
                shrink(item)
    shrink(dataset.pipeline)
    init_default_scope('mmdet')
    dataset = DATASETS.build(dataset)
    np.random.seed(0)
    random.seed(0)
    return [pseudo_collate([dataset[(2 * index + part) % len(dataset)] for part in (0, 1)]) for index in range(count)]


@pytest.mark.slow
def test_real_batches_give_mmdets_losses_and_gradients(models, real_data, monkeypatch):
    """100 batches of COCO, a quarter of them for the cascade, which takes longer."""
    monkeypatch.setattr(transfer, 'host_would_wait', lambda tensor: True)
    same_samples(monkeypatch)
    count = 100 if isinstance(models[0].roi_head.bbox_head, BBoxHead) else 25
    of_losses, of_gradients = np.transpose([compare(*models, data) for data in real_batches(real_data, count)])
    print(f'{count} batches: largest relative difference of losses {of_losses.max():.1e}, of gradients '
          f'{np.sort(of_gradients)[-3:]}')
    assert (of_losses < 1e-5).all()
    # in some runs rounding switches one of a batch's millions of ReLUs on one side, and a gradient moves by up to 1e-4
    assert (of_gradients >= 1e-5).sum() <= count // 50 and of_gradients.max() < 1e-3


@pytest.mark.parametrize('options', [
    dict(pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3), dict(pos_iou_thr=0.5, neg_iou_thr=(0.1, 0.5)),
    dict(pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5, match_low_quality=False),
    dict(pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.0),
    dict(pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.1, gt_max_assign_all=False),
    dict(pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3, ignore_iof_thr=0.4),
    dict(pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3, ignore_iof_thr=0.4, ignore_wrt_candidates=False)])
@pytest.mark.parametrize('pairs', [targets.PAIRS, 2000])
def test_assignments_are_mmdets(options, pairs, monkeypatch):
    """Of 600 boxes on a grid of 4 pixels, where many overlaps are equal; in one group of objects, and in many."""
    monkeypatch.setattr(targets, 'PAIRS', pairs)
    assigner, rng = MaxIoUAssigner(**options), np.random.default_rng(0)

    def boxes(count):
        corners = rng.integers(0, 20, (count, 2)) * 4
        return torch.from_numpy(np.concatenate([corners, corners + rng.integers(1, 8, (count, 2)) * 4], 1)).float()

    candidates, valid = torch.stack([boxes(600) for _ in range(3)]), torch.from_numpy(rng.random((3, 600)) < 0.9)
    objects = [InstanceData(bboxes=boxes(count), labels=torch.arange(count)) for count in (17, 0, 4)]
    regions = [InstanceData(bboxes=boxes(2)), None, InstanceData(bboxes=boxes(0))]
    truth = targets.ground_truth(objects, regions, [dict(img_shape=(112, 112))] * 3)
    found = targets.assign(candidates, valid, truth, assigner)
    for index in range(3):
        expected = assigner.assign(InstanceData(priors=candidates[index][valid[index]]), objects[index], regions[index])
        assert torch.equal(found[index][valid[index]], expected.gt_inds)
        assert (found[index][~valid[index]] == -1).all()
    assert {True, False} == set((found > 0).flatten().tolist())


@pytest.mark.parametrize('options', [
    dict(num=4, pos_fraction=0.5), dict(num=6, pos_fraction=0.34), dict(num=8, pos_fraction=0.9),
    dict(num=20, pos_fraction=0.5), dict(num=6, pos_fraction=0.5, neg_pos_ub=1)])
def test_samples_have_the_distribution_of_mmdets(options):
    """How often each set of 3 positive, 5 negative and 2 ignored boxes is drawn: the chi-squared test at 1e-4."""
    from scipy.stats import chisquare
    sampler = RandomSampler(**options, add_gt_as_proposals=False)
    assigned, draws = torch.tensor([1, 0, 2, 0, -1, 0, 0, 3, -1, 0]), 4000
    torch.manual_seed(0)
    boxes = torch.zeros(1, 10, 4)
    found = targets.sample(assigned.expand(draws, -1), boxes, sampler)
    sets = Counter(tuple(sorted(index[valid].tolist()))
                   for index, valid in zip(found.index, found.valid, strict=True))
    objects = assigned.expand(draws, -1).gather(1, found.index) - 1
    assert torch.equal(found.target[found.positive], objects[found.positive])
    result = sampler.sample(AssignResult(3, assigned, torch.ones(10), torch.zeros(10).long()),
                            InstanceData(priors=boxes[0]), InstanceData(bboxes=boxes[0, :3], labels=torch.zeros(3)))
    positive, negative = ((assigned > 0).nonzero()[:, 0].tolist(), (assigned == 0).nonzero()[:, 0].tolist())
    possible = [tuple(sorted(some + others)) for some in combinations(positive, len(result.pos_inds))
                for others in combinations(negative, len(result.neg_inds))]
    assert set(sets) <= set(possible)
    assert len(possible) == 1 or chisquare([sets[each] for each in possible]).pvalue > 1e-4
    assert len(next(iter(sets))) == len(result.pos_inds) + len(result.neg_inds)


@pytest.mark.parametrize('norm', [nn.BatchNorm2d(3), nn.SyncBatchNorm(3), nn.BatchNorm1d(3, momentum=None),
                                  nn.BatchNorm2d(3, affine=False)])
def test_norms_see_some_rows_alone(norm):
    """As the norm itself on those rows: values, running statistics and gradients."""
    norm, rows = norm.double(), torch.tensor([True, False, True, True, False])
    x = torch.randn(5, 3, *([] if isinstance(norm, nn.BatchNorm1d) else [4, 4]), dtype=torch.double)
    other = copy.deepcopy(norm)
    plain = nn.BatchNorm2d(3).double() if isinstance(norm, nn.SyncBatchNorm) else other
    plain.load_state_dict(norm.state_dict())
    results = []
    for which, model in ((rows, norm), (slice(None), plain)):
        values = (x if model is norm else x[rows]).clone().requires_grad_()
        if model is norm:
            with norms_over(nn.Sequential(norm), rows):
                found = norm(values)[rows]
        else:
            found = model(values)
        gradients = torch.autograd.grad((found ** 3).sum(), [values, *model.parameters()])
        results.append([found, gradients[0][which], *gradients[1:], *model.state_dict().values()])
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one.double(), two.double(), rtol=1e-5, atol=1e-6)
    # elsewhere, and in a copy (of an averaged model), it is the norm itself
    copied = copy.deepcopy(norm)
    norm.num_batches_tracked.fill_(1000), norm.eval()
    torch.testing.assert_close(copied(x) if not isinstance(norm, nn.SyncBatchNorm) else copied.eval()(x),
                               plain(x) if not isinstance(norm, nn.SyncBatchNorm) else plain.eval()(x))
    torch.testing.assert_close(dict(copied.state_dict()), dict(plain.state_dict()))


def test_other_parts_and_mixed_heads_are_refused():
    cfg = small_config('mask')
    for change, message in (
            (dict(train_cfg=dict(rpn=dict(sampler=dict(type='PseudoSampler')))), 'StaticRPNHead: expected the Rand'),
            (dict(train_cfg=dict(rcnn=dict(sampler=dict(type='OHEMSampler')))), "found OHEMSampler; use mmdet's St"),
            (dict(roi_head=dict(mask_head=dict(loss_mask=dict(_delete_=True, type='DiceLoss')))), 'a mask loss other'),
            (dict(rpn_head=dict(loss_cls=dict(use_sigmoid=False))), 'StaticRPNHead with scores by softmax')):
        with pytest.raises(UserError, match=message):
            build(merged(cfg, change))
    mixed = build(with_types(cfg, {'StaticRoIHead': 'StandardRoIHead'}))
    with pytest.raises(UserError, match='expected StaticRoIHead or StaticCascadeRoIHead with rpn_head.type'):
        step(mixed, pseudo_collate(cases()['some']))


def test_proposals_of_mmdet_are_taken_too(monkeypatch):
    """mmdet's RPN before our RoI head: losses of mmdet."""
    same_samples(monkeypatch)
    cfg = small_config('mask')
    stock, ours = build(with_types(cfg, STOCK)), build(with_types(cfg, {'StaticRPNHead': 'RPNHead'}))
    ours.load_state_dict(stock.state_dict())
    assert max(compare(stock, ours, pseudo_collate(cases()['some']))) < 1e-5


def merged(cfg: Config, change: dict) -> Config:
    whole = Config(dict(model=copy.deepcopy(cfg)))
    whole.merge_from_dict(dict(model=change))
    return whole.model


@pytest.mark.slow
def test_norms_see_the_rows_of_all_ranks(tmp_path):
    """Two ranks with 3 and 1 rows: what one norm gives for the four."""
    x, rows = torch.randn(2, 4, 3, 2, 2, dtype=torch.double), torch.tensor([[1, 0, 1, 1], [0, 0, 1, 0]]).bool()
    torch.save(dict(x=x, rows=rows), tmp_path / 'data.pth')
    torch.multiprocessing.spawn(rank_norm, (str(tmp_path),), nprocs=2)
    norm, together = nn.BatchNorm2d(3).double(), x.clone().requires_grad_()
    expected = norm(together[rows])
    (expected ** 3).sum().backward()
    ranks = [torch.load(tmp_path / f'{rank}.pth') for rank in (0, 1)]
    torch.testing.assert_close(torch.cat([ranks[0]['y'][rows[0]], ranks[1]['y'][rows[1]]]), expected)
    torch.testing.assert_close(torch.stack([ranks[0]['grad'], ranks[1]['grad']]), together.grad)
    for each in ranks:
        torch.testing.assert_close(each['mean'], norm.running_mean)
        torch.testing.assert_close(each['var'], norm.running_var)
