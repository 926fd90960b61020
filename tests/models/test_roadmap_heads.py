"""Every step of the roadmap learns under Mask R-CNN and UPerNet, from our configs, on the shapes data."""
import pytest
import torch

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from mmengine.config import Config  # noqa: E402
from mmengine.registry import MODELS, init_default_scope  # noqa: E402
from mmengine.runner import Runner  # noqa: E402

from convnext_dense.models import STEPS, RoadmapNet  # noqa: E402

CONFIGS = {'det': 'configs/det/mask-rcnn_convnext-atto_fpn_1xb8-4e_shapes.py',
           'seg': 'configs/seg/upernet_convnext-atto_1xb8-700i_shapes-128x128.py'}
ITERATIONS = 6


@pytest.fixture(scope='module')
def shapes(make_shapes):
    return make_shapes(train=4, val=1, size=128)


@pytest.fixture(scope='module')
def batches(shapes, repo_root):
    """One batch of two images per task, through the config's own pipeline."""
    found = {}
    for task, path in CONFIGS.items():
        cfg = Config.fromfile(repo_root / path)
        init_default_scope(cfg.default_scope)
        loader = cfg.train_dataloader
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.data_root = str(shapes / {'det': 'coco', 'seg': 'ade'}[task]) + '/'
        torch.manual_seed(0)
        found[task] = next(iter(Runner.build_dataloader(loader, seed=0)))
    return found


@pytest.mark.slow
@pytest.mark.parametrize('task', CONFIGS)
@pytest.mark.parametrize('step', STEPS)
def test_step_trains_under_both_heads(step, task, batches, repo_root, figure):
    """On one batch, again and again, the loss must fall: gradients reach the backbone and are of use."""
    cfg = Config.fromfile(repo_root / CONFIGS[task])
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        dims = RoadmapNet(step).dims
    cfg.model.backbone = dict(type='RoadmapNet', step=step, drop_path_rate=0.1)
    if task == 'det':
        cfg.model.neck.in_channels = dims
    else:
        cfg.model.decode_head.in_channels, cfg.model.auxiliary_head.in_channels = dims, dims[2]
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4)
    before = [param.detach().clone() for param in model.backbone.parameters()]
    losses = []
    for _ in range(ITERATIONS):
        data = model.data_preprocessor(batches[task], training=True)
        loss, _ = model.parse_losses(model(**data, mode='loss'))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    figure(f'roadmap {step} under {task}: loss {losses[0]:.3f} -> {losses[-1]:.3f} in {ITERATIONS} iterations')
    assert all(torch.isfinite(torch.tensor(losses)))
    assert sum(losses[-2:]) < sum(losses[:2])
    assert all(not torch.equal(a, b) for a, b in zip(before, model.backbone.parameters(), strict=True))
