"""Test protocols: each function changes a config that `prepare_testing` has checked, in place."""
from collections.abc import Sequence

from mmengine.config import Config, ConfigDict

from ..config import datasets_of
from ..errors import UserError

# mmdet's examples of DetTTAModel: (666, 400), (1333, 800) and (2000, 1200)
TTA_RATIOS = (0.5, 1.0, 1.5)
# best detections of a class in an image that count; AP is at the last, where COCO's 100 would cut large images short
LARGE_IMAGE_DETECTIONS = (300, 1000, 10_000)


def use_slide(cfg: Config, size: int | None = None, stride: int | None = None) -> None:
    """Segment by square sliding windows, several in one forward pass where there is a GPU.

    Args:
        size: side of a window in pixels; default: the config's.
        stride: pixels between windows; default: the config's.

    Raises:
        UserError: no segmentor, or a size or stride that is missing or cannot work.
    """
    _check_task(cfg, 'mmseg', '--slide')
    old = cfg.model.test_cfg
    crop = (size, size) if size is not None else old.get('crop_size')
    step = (stride, stride) if stride is not None else old.get('stride')
    if crop is None or step is None:
        raise UserError(f'--slide: {cfg.filename} has no model.test_cfg.crop_size and stride; give --slide SIZE STRIDE '
                        'in pixels')
    if not (0 < step[0] <= crop[0] and 0 < step[1] <= crop[1]):
        raise UserError(f'--slide: windows of {crop[0]}x{crop[1]} pixels every {step[0]}x{step[1]} leave gaps or never '
                        'move: expected a stride from 1 to the size')
    cfg.model.test_cfg = ConfigDict({**old, 'mode': 'slide', 'crop_size': tuple(crop), 'stride': tuple(step)})
    if cfg.model.type == 'EncoderDecoder':
        cfg.model.type = 'FastEncoderDecoder'


def use_whole(cfg: Config) -> None:
    """Segment whole images in one forward pass each.

    Raises:
        UserError: no segmentor.
    """
    _check_task(cfg, 'mmseg', '--whole')
    cfg.model.test_cfg = ConfigDict(mode='whole')


def use_ms_flip(cfg: Config) -> None:
    """Segment by the config's multi-scale + flip protocol; ADE20K as published: six scales, whole images.

    Raises:
        UserError: no segmentor, or no such protocol in the config.
    """
    _check_task(cfg, 'mmseg', '--ms-flip', 'for detectors there is --tta')
    if not cfg.get('tta_pipeline') or not cfg.get('tta_model'):
        raise UserError(f'--ms-flip: {cfg.filename} has no tta_pipeline and tta_model, which say the scales; take '
                        'those of configs/seg/_base_/ade20k_512x512.py')
    cfg.model.test_cfg = dict(mode='whole')
    cfg.model = dict(cfg.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline


def use_det_tta(cfg: Config, ratios: Sequence[float] = TTA_RATIOS, flip: bool = True) -> None:
    """Detect on several scales, each plain and flipped; boxes are merged, masks averaged (`InstanceTTAModel`).

    Args:
        ratios: of the config's test scale.
        flip: whether every scale is tested flipped, too.

    Raises:
        UserError: no two-stage detector, or a test pipeline without one Resize to a scale.
    """
    _check_task(cfg, 'mmdet', '--tta', 'for segmentors there is --ms-flip')
    dataset = cfg.test_dataloader.dataset
    if 'roi_head' not in cfg.model or 'pipeline' not in dataset:
        raise UserError(f'--tta: {cfg.filename} has a {cfg.model.type} on a {dataset.type}; expected a two-stage '
                        'detector, as Mask R-CNN or Cascade Mask R-CNN, on one data set')
    if not ratios or min(ratios) <= 0:
        raise UserError(f'--tta {" ".join(map(str, ratios))}: expected ratios of the test scale above 0, as in '
                        '--tta 0.5 1 1.5')
    steps = list(dataset.pipeline)
    resizes = [index for index, step in enumerate(steps) if step.type == 'Resize' and 'scale' in step]
    if len(resizes) != 1:
        raise UserError(f'--tta: the test pipeline of {cfg.filename} has {len(resizes)} Resize steps with a scale, to '
                        'be multiplied by the ratios; expected one')
    before, resize, after = steps[:resizes[0]], steps[resizes[0]], steps[resizes[0] + 1:]
    scales = [{**resize, 'scale': tuple(int(side * ratio) for side in resize.scale)} for ratio in ratios]
    flips = [dict(type='RandomFlip', prob=prob) for prob in ((0.0, 1.0) if flip else (0.0,))]
    for step in after:
        if 'meta_keys' in step:
            step.meta_keys = (*step.meta_keys, 'flip', 'flip_direction')
    dataset.pipeline = [*before, dict(type='TestTimeAug', transforms=[scales, flips, *([step] for step in after)])]
    cfg.model = dict(type='InstanceTTAModel', module=cfg.model)


def use_tiles(cfg: Config, tile: int, overlap: float) -> None:
    """Cut images that are larger than a tile, and evaluate what is found in the whole image (`TiledModel`).

    The other protocols say how a tile is tested. Ground truth is loaded without masks, which pictures then lack. COCO
    AP counts up to 10,000 detections of a class in an image, unless the config sets ``proposal_nums`` or
    ``metric_items``.

    Args:
        tile, overlap: of `tiling.Tiling`.

    Raises:
        UserError: tiles that cannot work, or a test protocol with several views.
    """
    from . import tiled_model  # noqa: F401  (registration)
    from .tiling import Tiling
    Tiling(tile, overlap)
    if 'module' in cfg.model:
        raise UserError('--tile goes with neither --tta nor --ms-flip, which test every image as a whole: leave one of '
                        'them out')
    inner = None
    for dataset in datasets_of(cfg.test_dataloader):
        read, *steps, pack = dataset.pipeline
        inner = inner or without_annotations([*steps, pack])
        annotations = [step for step in steps if step['type'].endswith('Annotations')]
        dataset.pipeline = [read, *({**step, 'with_mask': False} if step.get('with_mask') else step
                                    for step in annotations), pack]
    cfg.test_dataloader.batch_size = 1
    for metric in cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]:
        if metric.type in ('CocoMetric', 'FastCocoMetric') and not metric.get('metric_items'):
            metric.setdefault('proposal_nums', LARGE_IMAGE_DETECTIONS)
    cfg.model = dict(type='TiledModel', module=cfg.model, pipeline=inner, scope=cfg.default_scope, tile=tile,
                     overlap=overlap)


def use_soft_nms(cfg: Config) -> None:
    """Lower the scores of overlapping boxes instead of suppressing them (linear soft-NMS) in the last stage.

    The IoU threshold and the lowest score to keep are the config's.

    Raises:
        UserError: no two-stage detector.
    """
    _check_task(cfg, 'mmdet', '--soft-nms')
    rcnn = cfg.model.get('test_cfg', {}).get('rcnn')
    if rcnn is None:
        raise UserError(f'--soft-nms: {cfg.filename} has no model.test_cfg.rcnn; expected a two-stage detector, as '
                        'Mask R-CNN or Cascade Mask R-CNN')
    rcnn.nms = dict(type='soft_nms', iou_threshold=rcnn.nms.iou_threshold, min_score=rcnn.score_thr)


def _check_task(cfg: Config, scope: str, flag: str, instead: str = '') -> None:
    names = {'mmdet': 'detectors', 'mmseg': 'segmentors'}
    if cfg.get('default_scope') != scope:
        raise UserError(f'{flag} is for {names[scope]}, and {cfg.filename} is for '
                        f'{names.get(cfg.get("default_scope"), "neither task")}: leave it out'
                        + (f'; {instead}' if instead else ''))


def without_annotations(pipeline: Sequence[dict]) -> list[dict]:
    """A test pipeline without the transforms that load annotations."""
    return [step for step in pipeline if not step['type'].endswith('Annotations')]
