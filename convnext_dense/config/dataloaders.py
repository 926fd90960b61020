"""The data loaders and evaluators of a config, and where their data is."""
from mmengine.config import Config, ConfigDict

from ..errors import UserError

DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
EVALUATORS = ('val_evaluator', 'test_evaluator')


def set_data_root(cfg: Config, data_root: str) -> None:
    """Point every data loader and evaluator at ``data_root``, in place.

    A recipe writes its root into each data set (``data_root``) and into evaluator paths that start with it
    (``ann_file``); all of them move.

    Raises:
        UserError: the config names no data root, so nothing would have moved.
    """
    old = {str(dataset['data_root']) for key in DATALOADERS for dataset in datasets_of(cfg.get(key))
           if dataset.get('data_root')}
    if not old:
        raise UserError(f'--data-root {data_root}: no data set of {cfg.filename} has a data_root to replace; '
                        'set the paths with --cfg-options instead')
    roots = sorted({root.rstrip('/') for root in old}, key=len, reverse=True)

    def moved(node):
        if isinstance(node, dict):
            return ConfigDict({key: moved(value) for key, value in node.items()})
        if isinstance(node, (list, tuple)):
            return type(node)(moved(value) for value in node)
        if isinstance(node, str):
            for root in roots:
                if node.rstrip('/') == root or node.startswith(root + '/'):
                    return data_root.rstrip('/') + (node[len(root):] or '/')
        return node

    for key in (*DATALOADERS, *EVALUATORS):
        if cfg.get(key) is not None:
            cfg[key] = moved(cfg[key])
    if 'data_root' in cfg:
        cfg.data_root = data_root.rstrip('/') + '/'


def value_range_of(pipeline: list[dict]) -> tuple[float, float] | None:
    """The range by which a pipeline's LoadImageWithRange maps values to 8 bits, or None."""
    return next((tuple(step['value_range']) for step in pipeline or () if step.get('value_range')), None)


def datasets_of(loader: dict | None) -> list[dict]:
    """The leaf data set configs of a loader, seen through wrappers (RepeatDataset, ConcatDataset, ...)."""
    if not loader or 'dataset' not in loader:
        return []
    leaves, queue = [], [loader['dataset']]
    while queue:
        node = queue.pop(0)
        inner = node.get('dataset'), *(node.get('datasets') or ())
        inner = [entry for entry in inner if isinstance(entry, dict)]
        queue.extend(inner)
        if not inner:
            leaves.append(node)
    return leaves
