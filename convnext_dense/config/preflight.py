"""Checks of a config and its data, in seconds, before anything is built or trained."""
import json
import math
import os
from collections import Counter
from pathlib import Path

from mmengine.config import Config

from ..errors import UserError, few
from ..utils.data_source import is_file, is_folder, join_paths, read_file
from ..utils.storage import is_url
from .data_files import leaves
from .dataloaders import DATALOADERS, datasets_of

PATH_KEYS = ('ann_file', 'proposal_file')
# what each launcher sets for the processes it starts
LAUNCHER_VARIABLES = {'none': (), 'pytorch': ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'),
                      'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NODELIST'),
                      'mpi': ('OMPI_COMM_WORLD_LOCAL_RANK', 'OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE')}


# settings that are easily set to nonsense: (key, smallest value, whether it must be an integer)
NUMBERS = [('optim_wrapper.optimizer.lr', 0, False), ('optim_wrapper.optimizer.weight_decay', 0, False),
           ('optim_wrapper.accumulative_counts', 1, True), ('train_cfg.max_epochs', 1, True),
           ('train_cfg.max_iters', 1, True), ('train_cfg.val_interval', 1, True),
           *((f'{loader}.{key}', least, True) for loader in DATALOADERS
             for key, least in (('batch_size', 1), ('num_workers', 0)))]


def check_numbers(cfg: Config) -> None:
    """Check that learning rate, batch sizes and the like are numbers that can be trained with.

    Raises:
        UserError: names the first setting that is not.
    """
    for key, least, whole in NUMBERS:
        value = cfg
        for part in key.split('.'):
            value = value.get(part) if isinstance(value, (dict, Config)) else None
        if value is None:
            continue
        valid = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if not valid or not math.isfinite(value) or value < least:
            kind = 'an integer' if whole else 'a finite number'
            raise UserError(f'{key} is {value!r}: expected {kind}, {least} or more; set it in the config, or with '
                            f'--cfg-options {key}=...')


def check_launcher(launcher: str) -> None:
    """Check that this process was started by what ``--launcher`` says.

    Raises:
        UserError: names the environment variables that are missing.
    """
    absent = [name for name in LAUNCHER_VARIABLES[launcher] if name not in os.environ]
    if absent:
        raise UserError(f'--launcher {launcher}: this process was not started by it, since {", ".join(absent)} are not '
                        'set: start with tools/dist_train.sh, tools/dist_test.sh or tools/slurm_train.sh, or leave '
                        '--launcher out to use one process')


def check_config(cfg: Config, loaders: tuple[str, ...]) -> None:
    """Check paths and class counts of the named loaders and their evaluators.

    Raises:
        UserError: names the first path that is missing or empty, or the class counts that do not fit.
    """
    for loader in loaders:
        for dataset in datasets_of(cfg.get(loader)):
            _check_paths(loader, dataset)
            _check_class_count(cfg, loader, dataset)
        for evaluator in _as_list(cfg.get(loader.replace('_dataloader', '_evaluator'))):
            ann_file = evaluator.get('ann_file')
            if isinstance(ann_file, str) and ann_file and not is_file(ann_file):
                raise UserError(f'{loader.replace("_dataloader", "_evaluator")}.ann_file {ann_file} does not exist: '
                                'put the annotations there, or point --data-root at the folder that has them')


def check_built_dataset(dataset) -> None:
    """Refuse a data set whose annotation file lacks a class that it should have.

    mmdet drops unknown class names silently; those classes then have no training samples, and their AP is 0 or missing.

    Raises:
        UserError: names the annotation file, the missing classes and the categories found there.
    """
    for leaf in leaves(dataset):
        classes = leaf.metainfo.get('classes') or ()
        if len(getattr(leaf, 'cat_ids', classes)) != len(classes):
            raise _explain_categories(leaf.ann_file, classes)


def explain_empty(loader: dict) -> UserError:
    """The error to raise when no image of a loader's data set is left after filtering."""
    sentences = []
    for dataset in datasets_of(loader):
        ann_file = join_paths(dataset.get('data_root'), dataset.get('ann_file') or '')
        classes = _classes(dataset) or ()
        if ann_file.endswith('.json') and is_file(ann_file):
            missing = _lacks_classes(ann_file, classes)
            if missing is not None:
                return missing
        sentences.append(f'{dataset["type"]} of {ann_file} is empty after filtering: expected images with annotations '
                         f'of {few(list(classes))}; check ann_file, data_prefix and filter_cfg')
    return UserError('; '.join(sentences))


def annotation_files(loader: dict) -> str:
    """The annotation files of a loader's data sets, for a sentence about them."""
    return ', '.join(join_paths(dataset.get('data_root'), dataset['ann_file'])
                     for dataset in datasets_of(loader) if dataset.get('ann_file'))


def _explain_categories(ann_file, classes) -> UserError:
    """The error to raise when a file's categories are not one for each class."""
    names = Counter(category['name'] for category in json.loads(read_file(ann_file, fresh=True))['categories'])
    for where, found, remedy in ((f'{ann_file} has', names, 'give each category a name of its own'),
                                 ('metainfo.classes of the data set has', Counter(classes), 'name each class once')):
        twice = [name for name, count in found.items() if count > 1 and name in classes]
        if twice:
            return UserError(f'{where} several categories of the same name ({few(twice)}), so their objects cannot be '
                             f'told apart: {remedy}')
    return _lacks_classes(ann_file, classes) or UserError(
        f'{ann_file} has {few(names)} as categories, expected one for each class ({few(list(classes))})')


def _lacks_classes(ann_file, classes) -> UserError | None:
    names = [category['name'] for category in json.loads(read_file(ann_file, fresh=True))['categories']]
    missing = [name for name in classes if name not in names]
    if not missing:
        return None
    return UserError(f'{ann_file}: {len(missing)} of the {len(classes)} classes in the config are not among its '
                     f'categories ({few(missing)} missing; the file has {few(names)}): set metainfo='
                     "dict(classes=...) of the data set to the file's category names")


def _check_paths(loader: str, dataset: dict) -> None:
    root = dataset.get('data_root') or ''
    if root and not is_folder(root):
        raise UserError(f'{loader}: data folder {root} does not exist: put the data there or set its location with '
                        '--data-root')
    for key in PATH_KEYS:
        if dataset.get(key):
            file = join_paths(root, dataset[key])
            if not is_file(file):
                raise UserError(f'{loader}: {key} {file} does not exist: expected the annotations there (layout in the '
                                'README); put them there or set their location with --data-root')
    for name, prefix in (dataset.get('data_prefix') or {}).items():
        folder = join_paths(root, prefix or '')
        if not is_folder(folder):
            raise UserError(f'{loader}: folder {folder} ({name}) does not exist: expected the files there (layout in '
                            'the README); put them there or set their location with --data-root')
        if not is_url(folder) and not any(Path(folder).iterdir()):
            raise UserError(f'{loader}: folder {folder} ({name}) is empty: expected image files there')


def _check_class_count(cfg: Config, loader: str, dataset: dict) -> None:
    classes = _classes(dataset)
    if classes is None:
        return
    for setting, count in _head_class_counts(cfg.model, 'model'):
        if count != len(classes):
            raise UserError(f'{setting} is {count}, but the data set of {loader} has {len(classes)} classes '
                            f'({few(list(classes))}): set every head to {len(classes)} classes, or the '
                            "data set's metainfo to the classes the heads are for")
    for setting, count in _class_weight_counts(cfg.model, 'model'):
        if count != len(classes) + 1:
            raise UserError(f'{setting} has {count} weights, but the data set of {loader} has {len(classes)} classes: '
                            f'give it {len(classes) + 1}, the last for queries without an object')


def _classes(dataset: dict) -> tuple | None:
    """Class names that a data set config will have: its metainfo's, else its registered type's."""
    classes = (dataset.get('metainfo') or {}).get('classes')
    if classes is None:
        from mmengine.registry import DATASETS
        registered = DATASETS.get(dataset['type']) if isinstance(dataset['type'], str) else dataset['type']
        classes = getattr(registered, 'METAINFO', {}).get('classes')
    return (classes,) if isinstance(classes, str) else classes


def _head_class_counts(model: dict, name: str) -> list[tuple[str, int]]:
    """(setting, number of classes) of every head that predicts the data set's classes."""
    found = []
    for place, node in _dicts_of(model, name):
        if isinstance(node.get('num_classes'), int) and 'rpn' not in place:
            found.append((f'{place}.num_classes', node['num_classes']))
        elif isinstance(node.get('num_things_classes'), int):  # Mask2Former and MaskFormer
            found.append((f'{place}.num_things_classes + num_stuff_classes',
                          node['num_things_classes'] + node.get('num_stuff_classes', 0)))
    return found


def _class_weight_counts(model: dict, name: str) -> list[tuple[str, int]]:
    """(setting, number of weights) of the class losses of heads with queries, which weigh "no object", too."""
    return [(f'{place}.loss_cls.class_weight', len(node['loss_cls']['class_weight']))
            for place, node in _dicts_of(model, name)
            if 'num_queries' in node and isinstance((node.get('loss_cls') or {}).get('class_weight'), (list, tuple))]


def _dicts_of(node, place: str) -> list[tuple[str, dict]]:
    """(place, dict) of every dict in a config, from the outside in."""
    if isinstance(node, (list, tuple)):
        return [found for index, item in enumerate(node) for found in _dicts_of(item, f'{place}[{index}]')]
    if not isinstance(node, dict):
        return []
    return [(place, node)] + [item for key, value in node.items() for item in _dicts_of(value, f'{place}.{key}')]


def _as_list(evaluator) -> list[dict]:
    if evaluator is None:
        return []
    return [evaluator] if isinstance(evaluator, dict) else list(evaluator)
