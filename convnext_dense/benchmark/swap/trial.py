"""One stock config with our backbone: build, loss, backward and prediction on small images; and which config."""
import contextlib
import importlib.util
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import MODELS, DefaultScope

from ...errors import UserError
from ...models import ConvNeXt
from .inputs import make_batch
from .rules import NotSwappable, backbones, dicts, swap, trainable_here

WORKS, FAILS, NOT_SWAPPABLE, OTHER_TASK = 'works', 'fails', 'not swappable', 'other task'
FAILS_IN_STOCK, NEEDS_PACKAGE = 'fails in stock', 'needs a package'
USUAL = {'ResNet', 'ResNetV1c', 'mmpretrain.ConvNeXt'}  # backbones of the configs to try first

# Folder -> part of the name of the config that has what the folder is about besides its backbone.
PREFERRED = {'dcn': 'dpool', 'dcnv2': 'mdpool', 'swin': 'pre_upernet', 'rtmdet': 'rtmdet_s'}
TRACKERS = {'ByteTrack', 'DeepSORT', 'OCSORT', 'StrongSORT', 'QDTrack', 'MaskTrackRCNN', 'Mask2FormerVideo'}
# Networks that are the method themselves.
OWN_NETWORKS = {
    'TridentResNet': 'the method is the backbone: three dilated branches share the weights of its last stage',
    'DetectoRS_ResNet': "the method is the backbone: the neck's maps go back into the stages of the ResNet",
    'UNet': 'the method is the backbone: the U-Net, decoder included',
    'ICNet': "the method is the backbone: it runs the ResNet's stages one by one at three resolutions",
    **dict.fromkeys(('BiSeNetV2', 'CGNet', 'DDRNet', 'ERFNet', 'FastSCNN', 'PIDNet'),
                    'the method is the backbone, with branches of its own'),
    **dict.fromkeys(('VisionTransformer', 'BEiT', 'MAE'),
                    'a plain transformer: all its maps have one size, and the neck or head is made for that'),
}


@dataclass
class Row:
    """What came of one folder: the config (relative to the package's configs) and the backbone that ours replaced."""
    package: str
    folder: str
    config: str = ''
    outcome: str = FAILS
    reason: str = ''
    replaced: str = ''


class Finding(Exception):
    """What is wrong with a loss, a gradient or a prediction."""


def config_root(package: str) -> Path:
    """The folder of the stock configs that travel with mmdet or mmseg."""
    root = Path(importlib.util.find_spec(package).origin).parent / '.mim/configs'
    if not root.is_dir():
        raise UserError(f'{package} has no configs at {root}: install it from its wheel, not as an editable checkout')
    return root


def folders(package: str) -> list[str]:
    """Names of the folders of stock configs, those of their common parts aside."""
    return sorted(path.name for path in config_root(package).iterdir() if path.is_dir() and path.name != '_base_')


def candidates(package: str, folder: str) -> list[tuple[Path, dict]]:
    """Up to three (file, model) of a folder: those with a usual backbone first, then short names.

    Files without a model, and those that name files which are not shipped, are left out.
    """
    part = PREFERRED.get(folder, '')
    files = sorted((config_root(package) / folder).glob('*.py'), key=lambda file: (
        part not in file.name, not re.search('_r18|_r50|resnet|convnext', file.name), len(file.name), file.name))
    usual, others = [], []
    for file in files:
        try:
            model = Config.fromfile(file, import_custom_modules=False).get('model')
        except (OSError, KeyError):
            continue
        if model is not None:
            types = {holder[key].get('type') for holder, key in backbones(model)}
            (usual if types & USUAL or part and part in file.name else others).append((file, model))
        if len(usual) == 3:
            break
    return (usual + others)[:3]


def try_folder(package: str, folder: str, device: str = 'cpu', amp: torch.dtype | None = None) -> Row:
    """The row of a folder: of its first config, or of the next one where stock mmdet or mmseg fail with it, too."""
    rows = []
    for file, model in candidates(package, folder):
        rows.append(attempt(package, file, model, device, amp))
        if rows[-1].outcome != FAILS_IN_STOCK:
            return rows[-1]
    return rows[0] if rows else Row(package, folder, outcome=OTHER_TASK, reason='has no config of a model')


def attempt(package: str, file: Path, model: dict, device: str = 'cpu', amp: torch.dtype | None = None) -> Row:
    """Try one config and say what came of it; never raises for what the config or the model does."""
    row = Row(package, file.parent.name, file.name, replaced=_described(model))
    torch.manual_seed(0)
    row.reason = _other_task(model)
    if row.reason:
        row.outcome = OTHER_TASK
        return row
    try:
        own = [OWN_NETWORKS[node['type']] for node in dicts(model) if node.get('type') in OWN_NETWORKS]
        if own:
            raise NotSwappable(own[0])
        with _inside(config_root(package).parent), DefaultScope.overwrite_default_scope(package):
            swapped = swap(model, package)
            try:
                run(swapped, package, device, amp)
                row.outcome = WORKS
            except Exception as error:  # whatever a foreign model raises is the finding
                row.outcome, row.reason = _why(error, model, package, device, amp)
    except NotSwappable as reason:
        row.outcome, row.reason = NOT_SWAPPABLE, str(reason)
    return row


def run(config: dict, scope: str, device: str = 'cpu', amp: torch.dtype | None = None, ours: bool = True) -> None:
    """Build a model, take one training step's gradient and predict.

    Args:
        scope: 'mmdet' or 'mmseg'.
        amp: dtype of autocast; None is float32.
        ours: whether the model must have our backbone.

    Raises:
        Finding: our backbone, the loss or a gradient at its stem is missing or not finite, or an image has no result.
    """
    model = MODELS.build(config).to(device)
    model.init_weights()
    _keep_boxes_inside(model)
    MessageHub.get_current_instance().update_info('epoch', 0)  # which TOOD asks for
    nets = [module for module in model.modules() if isinstance(module, ConvNeXt)]
    if ours and not nets:
        raise Finding('our backbone is not in the model')
    model.train()
    batch = model.data_preprocessor(make_batch(model, scope), training=True)
    with torch.autocast(device, amp, enabled=amp is not None):
        losses = model.loss(batch['inputs'], batch['data_samples'])
    total, _ = model.parse_losses(losses)
    if not total.isfinite():
        raise Finding(f'the loss is {total.item()}')
    total.backward()
    for net in nets:
        gradient = net.downsample_layers[0][0].weight.grad
        trained = any(p.requires_grad for p in net.parameters())  # a teacher is not
        if trained and (gradient is None or not gradient.isfinite().all() or not gradient.any()):
            raise Finding('the stem has no gradient, or one that is not finite')
    model.eval()
    batch = make_batch(model, scope, images=1)
    if type(model).__name__ == 'SoftTeacher':  # its batches are labelled and unlabelled ones
        model, batch = model.teacher, {key: value['sup'] for key, value in batch.items()}
    with torch.no_grad(), torch.autocast(device, amp, enabled=amp is not None):
        results = model(**model.data_preprocessor(batch, training=False), mode='predict')
    if len(results) != 1:
        raise Finding(f'one image gave {len(results)} results')


def _keep_boxes_inside(model: torch.nn.Module) -> None:
    """Scale the box regression of Sparse R-CNN and QueryInst down, in place.

    Untrained, their six stages move boxes out of the image, and mmdet pastes no masks of such boxes on a CPU.
    """
    for part in model.modules():
        if type(part).__name__ == 'DIIHead':
            part.fc_reg.weight.data.mul_(0.01)


def _why(error: Exception, model: dict, package: str, device: str, amp: torch.dtype | None) -> tuple[str, str]:
    """Outcome and reason of a failure: whether it is a missing package's, stock's own, or ours."""
    reason = _one_line(error)
    if 'is not installed' in reason or isinstance(error, ImportError):
        return NEEDS_PACKAGE, reason
    try:
        run(trainable_here(model), package, device, amp, ours=False)
    except Exception as stock:  # whatever a foreign model raises is the finding
        if _one_line(stock) == reason:
            return FAILS_IN_STOCK, reason
    return FAILS, reason


def _one_line(error: Exception) -> str:
    return f'{type(error).__name__}: {" ".join(str(error).strip().partition(chr(10))[0].split())}'


def _other_task(model: dict) -> str:
    """Why a model is no detector or segmenter of single images; empty if it is one."""
    kind = model.get('type')
    if kind in TRACKERS:
        return 'tracking: takes videos'
    if kind == 'BaseReID':
        return 're-identification: takes crops with identities, and needs mmpretrain'
    if kind == 'Detectron2Wrapper':
        return 'wraps detectron2, which is not a dependency'
    if 'language_model' in model or kind == 'MultimodalEncoderDecoder':
        return 'text prompts: needs a language model'
    if kind == 'DepthEstimator':
        return 'depth from a diffusion model, which is not a dependency'
    return ''


def _described(model: dict) -> str:
    """The backbones that ours replaces, with what a config adds to them."""
    names = []
    for holder, key in backbones(model):
        extras = [option for option in ('dcn', 'plugins') if holder[key].get(option)]
        names.append(str(holder[key].get('type')) + (f' with {" and ".join(extras)}' if extras else ''))
    return ', '.join(dict.fromkeys(names))


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Work in ``folder``: teachers of distillation are named relative to it."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
