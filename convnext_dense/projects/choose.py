"""From a converted data set to a small, readable config for it: what tools/new_project.py writes."""
import math
import os
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch

from ..config import load_config
from ..datasets.layout import DatasetInfo
from ..errors import UserError
from ..recipes.model_info import training_bytes
from ..utils.files import atomic_write
from ..utils.images import image_size
from .anchors import RECIPE, fit_anchors
from .objects import Objects, read_objects
from .plan import ASPECT, BASES, DEFAULT_MODEL, MODELS, Detector, Plan
from .reasons import explain
from .render import render

STARTS = ('published', 'imagenet', 'random')
SAMPLED = 500  # images whose size is read
SHORT_SIDE = {'cuda': {'det': 800, 'seg': 512}, 'cpu': {'det': 256, 'seg': 256}}  # pixels, at most
OBJECT_SIDE = 48  # pixels: images are enlarged until the median object has this side, within SHORT_SIDE
SMALLEST = 10  # pixels: and beyond SHORT_SIDE, up to LARGEST, until it has this one
LARGEST = {'cuda': 1344, 'cpu': 512}
PROPOSALS_PER_OBJECT = 10  # of the image with the most objects
# training images in all epochs together, as Penn-Fudan and CamVid needed; the fewest and the most epochs
IMAGES_SEEN = {'det': 4100, 'seg': 7300}
EPOCHS = (12, 100)


def plan_project(data: str, task: str | None = None, arch: str | None = None, start: str | None = None,
                 short: int | None = None, batch: int | None = None, epochs: int | None = None,
                 device: str | None = None, fit: bool = True, info: DatasetInfo | None = None,
                 model: str | None = None) -> Plan:
    """Choose everything that is not given, from the data and the machine.

    Args:
        data: folder that tools/convert_dataset.py wrote.
        task: 'det' or 'seg'; default: the task of the data.
        arch: a key of `BASES`; default: tiny on a GPU, atto on a CPU.
        start: one of `STARTS`, or a checkpoint file; default: published, for atto imagenet.
        short: short side of the input in pixels; default: `input_side`.
        batch: images per step; default: `batch_size`.
        epochs: default: `IMAGES_SEEN` / training images, within `EPOCHS`.
        device: 'cuda' or 'cpu' to train on; default: a GPU if there is one.
        fit: fit anchors, proposals and detections to the objects (`fit_detector`); False keeps the recipe's.
        info: of a folder without dataset.json (`datasets.direct.open_dataset`).
        model: a key of `MODELS` or `DEFAULT_MODEL`'s; default: the latter.

    Raises:
        UserError: no converted data set, a data set for another task, no training images, or a model, architecture
            or start that does not exist for the task.
    """
    for flag, value in (('--image-size', short), ('--batch-size', batch), ('--epochs', epochs)):
        if value is not None and value < 1:
            raise UserError(f'{flag} {value}: expected at least 1')
    info = info or DatasetInfo.read(data)
    root = Path(data).resolve()
    if task not in (None, info.task):
        raise UserError(f'--task {task}: {root / "dataset.json"} is a data set for {info.task}; leave --task out, or '
                        'convert the data again for the other task')
    count = info.splits['train'].images
    if not count:
        raise UserError(f'{root / "dataset.json"} has no training images: convert the data again with another --split')
    device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
    model = None if model == DEFAULT_MODEL[info.task] else model
    if model is None:
        arch, start = _network(info.task, arch, start, device)
    else:
        arch, start = _other_model(info, model, arch, start)
    objects = read_objects(root / info.splits['train'].ann_file) if info.task == 'det' else None
    own = image_side(info, root)
    chosen = Plan(info.task, info, root, arch, start, short or input_side(own, objects, info.task, device), batch or 1,
                  epochs or min(max(round(IMAGES_SEEN[info.task] / count), EPOCHS[0]), EPOCHS[1]),
                  min(4, (os.cpu_count() or 1) - 1), model=model)
    if objects is not None and len(objects.boxes) and model is None:
        objects = objects.resized(chosen.scale)
        most = RECIPE.count if chosen.loads_detector else 9
        detector = fit_detector(objects, chosen.base_detector, most) if fit else chosen.base_detector
        chosen = replace(chosen, detector=detector)
    else:
        objects = None
    if not batch:
        chosen = replace(chosen, batch=batch_size(chosen, memory_of(device)))
    choices = dict(short=short, batch=batch, epochs=epochs, fit=not fit)
    given = {name for name, value in choices.items() if value}
    return replace(chosen, reasons=tuple(explain(chosen, own, objects, device, given)))


def _network(task: str, arch: str | None, start: str | None, device: str) -> tuple[str, str]:
    """Architecture and start, checked."""
    arch = arch or ('tiny' if device == 'cuda' else 'atto')
    if arch not in BASES[task]:
        raise UserError(f'--arch {arch}: expected one of {", ".join(BASES[task])}')
    start = start or ('imagenet' if arch == 'atto' else 'published')
    if start == 'published' and arch == 'atto':
        raise UserError('--start published: no detector or segmentor with atto is published; use --arch tiny, or '
                        '--start imagenet')
    return arch, _checked(start, STARTS)


def _other_model(info: DatasetInfo, model: str, arch: str | None, start: str | None) -> tuple[str, str]:
    """As `_network`, for a model of `MODELS`, none of which is published."""
    if model not in MODELS[info.task]:
        raise UserError(f'--model {model}: expected one of {", ".join([DEFAULT_MODEL[info.task], *MODELS[info.task]])} '
                        f'for a data set of task {info.task}')
    if info.task == 'det' and not info.has_masks and MODELS['det'][model][1] is None:
        raise UserError(f'--model {model}: it learns masks and the data set has boxes only; use rtmdet or dino')
    if arch not in (None, 'tiny'):
        raise UserError(f'--arch {arch}: {model} has a config for tiny only; leave --arch out')
    if start in ('published', 'random'):
        raise UserError(f'--start {start}: {model} has published weights for its backbone only; use --start imagenet '
                        'or a checkpoint file')
    return 'tiny', _checked(start or 'imagenet', ('imagenet',))


def _checked(start: str, names: tuple[str, ...]) -> str:
    """``start``, as an absolute path if it is a file."""
    if start in names:
        return start
    if not Path(start).is_file():
        raise UserError(f'--start {start}: expected {", ".join(names)} or a checkpoint file; there is no such file')
    return str(Path(start).resolve())


def image_side(info: DatasetInfo, root: Path) -> float:
    """Median short side of the training images in pixels.

    Raises:
        UserError: there is no image that can be read.
    """
    split = info.splits['train']
    try:
        files = sorted(path for path in (root / split.img_prefix).iterdir() if path.is_file())
    except OSError as error:
        raise UserError(f'{root / split.img_prefix} cannot be read ({error.strerror}): convert the data '
                        'again') from None
    sizes = []
    for path in files[::max(1, len(files) // SAMPLED)]:
        try:
            sizes.append(image_size(path))
        except (OSError, ValueError, SyntaxError):
            continue  # tools/check_dataset.py reports it
    if not sizes:
        raise UserError(f'{root / split.img_prefix} has no image that can be read: run tools/check_dataset.py {root}')
    return median(min(size) for size in sizes)


def input_side(own: float, objects: Objects | None, task: str, device: str) -> int:
    """Short side of the input in pixels, a multiple of 32.

    That of the images, or enough for a median object of `OBJECT_SIDE`, up to `SHORT_SIDE`. Where the median object is
    under `SMALLEST` there, enough for that, up to `LARGEST`.
    """
    wanted, least = own, 0.0
    if objects is not None and len(objects.boxes):
        size = max(median(objects.sides), 1.0)
        wanted, least = own * max(1.0, OBJECT_SIDE / size), min(own * SMALLEST / size, LARGEST[device])
    return max(64, min(round(wanted / 32) * 32, SHORT_SIDE[device][task]), math.ceil(least / 32) * 32)


def fit_detector(objects: Objects, base: Detector, most_anchors: int = 9) -> Detector:
    """Anchors by the sizes of the objects, the other numbers by how many there are in an image, at least the base's.

    Args:
        objects: in pixels of the network's input.
        most_anchors: per position.
    """
    most, usual = int(objects.per_image.max()), median(objects.per_image)
    return Detector(fit_anchors(objects, most_anchors),
                    max(base.proposals, min(_up(PROPOSALS_PER_OBJECT * most, 250), 2000)),
                    max(base.detections, min(_up(1.5 * most, 50), 1000)),
                    max(base.rpn_samples, min(_up(4 * usual, 64), 512)))


def _up(value: float, step: int) -> int:
    return math.ceil(value / step) * step


def memory_of(device: str) -> int:
    """Bytes of memory to train in: what is free on this machine's GPU, otherwise all of its main memory."""
    if device == 'cuda' and torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')


def batch_size(chosen: Plan, memory: int) -> int:
    """The largest power of two, 1 to 16 (the published batch size), whose training fits into 80 % of ``memory`` bytes.

    At most 4 for fewer than 1000 images: from random weights, more steps help more than larger ones.
    """
    with TemporaryDirectory() as folder:
        cfg = load_config(str(write_project(folder, chosen)))
    width = chosen.short * (ASPECT if chosen.task == 'det' else 1)
    model, image = training_bytes(cfg, (_up(width, 32), _up(chosen.short, 32)))  # as batches are padded
    most = min((0.8 * memory - model) / image, 4 if chosen.info.splits['train'].images < 1000 else 16)
    return 2 ** int(math.log2(max(1.0, most)))


def write_project(folder: str, chosen: Plan) -> Path:
    """Write ``folder``/config.py and return its path.

    Raises:
        UserError: there is one already.
    """
    file = Path(folder, 'config.py')
    if file.exists():
        raise UserError(f'{file} exists already: name another folder, or remove it')
    text = render(chosen, Path(folder).resolve() / 'run')
    with atomic_write(file) as part:
        part.write_text(text, encoding='utf-8')
    return file
