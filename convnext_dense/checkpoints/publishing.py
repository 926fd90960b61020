"""Publishing: the weights of a run's checkpoint with config, metrics and versions, in a file named by its hash."""
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError, first_line
from ..mm import environment
from ..mm.fallbacks import print_log
from ..version import __version__
from .classes import meta_of
from .converting import write
from .downloads import HASH_IN_NAME, sha256
from .formats import recognise
from .loading import check_finite, check_floats
from .reading import META_KEY, find_state_dict, read_checkpoint

MAX_META = 1_000_000  # values in the record; a config and the classes are some thousand at most
KEPT = ('cfg', 'dataset_meta', 'epoch', 'iter', 'seed', 'experiment_name', 'time', 'mmengine_version')


def publish(src: str | os.PathLike, folder: str | os.PathLike | None = None, suffix: str = '.pth',
            metrics: str | os.PathLike | None = None) -> Path:
    """Write the weights of a checkpoint, and what they are, to ``NAME-HASH.pth`` or ``.safetensors``.

    Kept: the weights (with an EMA the averaged ones, which evaluation uses), the config, the data set's classes,
    the step, the metrics and the versions. Left out: optimizer, schedules, message hub, the plain weights beside an
    EMA. HASH is the first eight digits of the file's sha256, which `downloads.fetch` and torch.hub check.

    Args:
        src: a checkpoint of a run; whatever `read_checkpoint` accepts.
        folder: where to write, by default beside ``src``.
        suffix: '.pth' or '.safetensors'.
        metrics: a JSON file of name -> number, as tools/test.py writes it; by default the validation metrics that the
            run logged for this very step, if any.

    Raises:
        UserError: as `read_checkpoint`, no ConvNeXt in it, not finite, or no such metrics file.
    """
    name = os.fspath(src)
    if suffix not in ('.pth', '.safetensors'):
        raise UserError(f'published files end in .pth or .safetensors, not in {suffix!r}')
    checkpoint = read_checkpoint(src)
    state = find_state_dict(checkpoint, name)
    check_floats(recognise(state, name).backbone, name)
    check_finite(state, name)
    meta = describe(checkpoint, Path(name), metrics)
    folder = Path(name).parent if folder is None else Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stem = HASH_IN_NAME.sub('', Path(name).name).removesuffix(Path(name).suffix)
    state = {key: tensor.contiguous() for key, tensor in state.items()}
    unnamed = folder / f'.{stem}.publishing{suffix}'
    try:
        if suffix == '.pth':
            write({'meta': meta, 'state_dict': state}, unnamed)
        else:
            write(state, unnamed, {META_KEY: json.dumps(meta)})
        published = folder / f'{stem}-{sha256(unnamed)[:8]}{suffix}'
        os.replace(unnamed, published)
    finally:
        unnamed.unlink(missing_ok=True)
    left_out = [str(key)[:40] for key in checkpoint if key not in ('meta', 'state_dict', 'model')]
    print_log(f'{name} -> {published}: {len(state)} tensors; left out {", ".join(left_out) or "nothing"}; metrics '
              f'{meta["metrics"] or "none found, give them with --metrics"}', logger='current')
    return published


def describe(checkpoint: Mapping, src: Path, metrics: str | os.PathLike | None) -> dict:
    """The record that is published with the weights: plain containers, strings and numbers only.

    Raises:
        UserError: the checkpoint's own record is nested without end, or no such metrics file.
    """
    meta = meta_of(checkpoint)
    record = {key: meta[key] for key in KEPT if key in meta}
    record['metrics'] = read_metrics(metrics) if metrics is not None else logged_metrics(src, meta)
    record['ema'] = any(key in checkpoint for key in ('ema_state_dict', 'model_ema', 'state_dict_ema'))
    record['versions'] = {'convnext_dense': __version__, **environment.versions()}
    if not is_small(record):
        raise UserError(f'{src} has a meta entry of more than {MAX_META} values or one that contains itself: it was '
                        'not written by a run of mmengine; publish its state dict alone')
    try:
        return json.loads(json.dumps(record, default=str))
    except (TypeError, ValueError, RecursionError) as error:  # keys that JSON has none of, a thousand nested lists
        raise UserError(f'{src} has a meta entry that cannot be recorded as JSON ({first_line(error)}): publish its '
                        'state dict alone') from error


def is_small(value: Any) -> bool:
    """Whether nested containers hold at most `MAX_META` values; one that contains itself holds endlessly many."""
    waiting, count = [value], 0
    while waiting and count <= MAX_META:
        each = waiting.pop()
        count += 1
        waiting += each.values() if isinstance(each, Mapping) else each if isinstance(each, list | tuple | set) else ()
    return count <= MAX_META


def read_metrics(file: str | os.PathLike) -> dict:
    """Name -> number from a JSON file.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    try:
        content = json.loads(Path(file).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f'metrics {file} cannot be read ({error}): expected a JSON file as tools/test.py writes it') \
            from error
    if not isinstance(content, dict) or not all(isinstance(v, int | float | None) for v in content.values()):
        raise UserError(f'metrics {file} must hold one JSON object of names and numbers')
    return content


def logged_metrics(src: Path, meta: Mapping) -> dict:
    """What the run beside ``src`` logged when it validated at the step of this checkpoint; empty if it did not."""
    step = meta.get('iter') if src.name.startswith('iter_') or '_iter_' in src.name else meta.get('epoch')
    found = {}
    for log in sorted(src.parent.glob('*/vis_data/scalars.json')):
        for line in log.read_text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # the last line of a killed run may be cut off
            if entry.get('step') == step and 'lr' not in entry and 'loss' not in entry:
                found = {key: value for key, value in entry.items() if key not in ('step', 'data_time', 'time')}
    return found
