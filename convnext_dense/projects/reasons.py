"""Why a project has the values that it has: a sentence for each choice, printed and written into its config."""
from statistics import median

from .anchors import COVERED, RECIPE, covered
from .objects import Objects
from .plan import Plan


def explain(plan: Plan, own: float, objects: Objects | None, device: str, given: set[str]) -> list[str]:
    """Sentences made of numbers and fixed words only, so that they may stand in a comment.

    Args:
        own: median short side of the images in pixels.
        objects: det: in pixels of the network's input.
        given: what the user chose: of 'short', 'batch', 'epochs' and 'fit'.
    """
    sentences = [_input(plan, own, objects, device, 'short' in given)]
    if plan.detector is not None and objects is not None:
        sentences += [_anchors(plan, objects), _numbers(plan, objects, 'fit' in given)]
    images = plan.info.splits['train'].images
    batch = 'as given' if 'batch' in given else 'the most that fits into memory' if images >= 1000 else \
        'what fits into memory, at most 4 for fewer than 1000 images'
    length = 'as given' if 'epochs' in given else f'{plan.epochs * images} images in all, which small data sets needed'
    sentences += [f'Batch: {plan.batch} images per step ({batch}).', f'Schedule: {plan.epochs} epochs ({length}).']
    best = 'mask AP, since there are masks' if plan.masks else 'box AP' if plan.task == 'det' else 'mIoU'
    return [*sentences, f'Best checkpoint: by {best}.']


def _input(plan: Plan, own: float, objects: Objects | None, device: str, given: bool) -> str:
    chosen = 'as given' if given else f'the images have {own:.0f}'
    text = f'Input: {plan.short} pixels on the short side ({chosen}'
    text += ')'
    if not given and plan.short < own - 16:
        machine = {'cpu': 'CPU', 'cuda': 'GPU'}[device]
        text += f', less than the images for the speed of a {machine}: --image-size for more'
    if objects is None:
        return text + '.'
    size = median(objects.sides)
    text += f'; the median object is then {size:.0f} pixels wide'
    if size < 9.5:
        text += '; objects this small are often missed: --image-size, or train on tiles and predict with --tile'
    return text + '.'


def _anchors(plan: Plan, objects: Objects) -> str:
    anchors, share = plan.detector.anchors, covered(objects, plan.detector.anchors)
    shape = f'scales {", ".join(f"{scale:g}" for scale in anchors.scales)} strides, ratios ' \
            f'{", ".join(f"{ratio:g}" for ratio in anchors.ratios)}'
    text = f'Anchors: {shape}; {share:.0%} of the training objects have one with an IoU of at least 0.5'
    if anchors == RECIPE:
        return f'{text} (the recipe\'s).'
    if plan.loads_detector and share < COVERED:
        text += ' (three per position, as the initial weights have; --start imagenet or random allows more)'
    return f'{text}, {covered(objects, RECIPE):.0%} with the recipe\'s.'


def _numbers(plan: Plan, objects: Objects, given: bool) -> str:
    chosen, counts = plan.detector, objects.per_image
    crowd = f'{median(counts):.0f} objects an image, at most {counts.max()}'
    source = '; as in the recipe' if given else ''
    return (f'Crowding: {chosen.proposals} proposals and {chosen.detections} detections per image, '
            f'{chosen.rpn_samples} anchors in the loss ({crowd}{source}).')
