"""Layer decay of the V2 entries: every parameter's learning rate and weight decay by the official V2 rule."""
import pytest
from rows import ROOT, ROWS
from test_v2_entries import ENTRIES, PUBLISHED

from convnext_dense.config import load_config
from convnext_dense.optim import parameter_settings
from convnext_dense.recipes.model_info import build_on_meta

LEAVES = sorted(f'{path.parent.name}/{path.name}' for path in (ROOT / 'configs').glob('*/*convnextv2*.py'))
DEPTHS = {'base': (3, 3, 27, 3), 'large': (3, 3, 27, 3), 'huge': (3, 3, 27, 3), 'atto': (2, 2, 6, 2)}
RATE = {'det': 0.95, 'seg': 0.9}
KIND = {'det': 'layer_wise', 'seg': 'stage_wise'}


def official_multipliers(names: list[str], depths: tuple, kind: str, rate: float) -> dict[str, float]:
    """{parameter: multiplier on the learning rate}, by counting layers from the stem on.

    The rule as optim_factory.py of facebookresearch/ConvNeXt-V2 describes it, there for depths (3, 3, 27, 3): the
    stem is layer 0, every three consecutive blocks of a stage are a layer, and a downsampling layer belongs to the
    block after it. `stage_wise` is that of semantic_segmentation in facebookresearch/ConvNeXt: the downsampling
    layers are layer 0, every stage is a layer, and what is outside the backbone counts as under `layer_wise`.
    """
    layers, by_stage, layer = {'downsample_layers.0.': 0}, {}, 0
    for stage, depth in enumerate(depths):
        by_stage[f'downsample_layers.{stage}.'] = 0
        by_stage[f'stages.{stage}.'] = stage + 1
        for block in range(depth):
            layer += block % 3 == 0
            layers.setdefault(f'downsample_layers.{stage}.', layer)
            layers[f'stages.{stage}.{block}.'] = layer
    last = layer + 1
    starts = layers if kind == 'layer_wise' else by_stage
    multipliers = {}
    for name in names:
        inside = [number for start, number in starts.items() if name.startswith(f'backbone.{start}')]
        assert len(inside) <= 1
        multipliers[name] = rate ** (last - (inside or [last])[0])
    return multipliers


@pytest.mark.parametrize('row', ROWS, ids=lambda row: row['name'])
def test_rule_gives_what_the_official_constructor_gave(row, official_layer_decay):
    """The answers of the official code to the V1 recipes, which are recorded to ten digits."""
    official = official_layer_decay[row['name']]
    found = official_multipliers(list(official), row['depths'], row['decay_type'], row['decay_rate'])
    assert found == pytest.approx({name: multiplier for name, (multiplier, _) in official.items()}, rel=0, abs=5.1e-11)


def test_every_v2_entry_of_the_paper_is_held():
    assert {name for name, row in ENTRIES if row['version'] == 'V2'} < {leaf[4:-3] for leaf in LEAVES}
    assert len(LEAVES) == 9


@pytest.mark.parametrize('leaf', LEAVES)
def test_layer_decay_is_the_official_one_for_every_parameter(leaf):
    task, cfg = leaf[:3], load_config(leaf)
    paramwise, optimizer = cfg.optim_wrapper.paramwise_cfg, cfg.optim_wrapper.optimizer
    depths = DEPTHS[cfg.model.backbone.arch]
    num_layers = 3 + depths[2] // 3
    assert cfg.optim_wrapper.constructor == 'LayerDecayOptimWrapperConstructor'
    assert paramwise.to_dict() == dict(
        decay_type=KIND[task], decay_rate=RATE[task], num_layers=num_layers)
    published = PUBLISHED['coco' if task == 'det' else 'ade20k']['settings']
    assert RATE[task] in published['swept']['layer_wise_decay']
    assert optimizer.weight_decay == published['weight_decay']

    model = build_on_meta(cfg)
    params = dict(model.named_parameters())
    multipliers = official_multipliers(list(params), depths, KIND[task], RATE[task])
    expected = {}
    for name, param in params.items():  # .gamma and .beta: GRN's, which the official code holds in four dimensions
        exempt = param.ndim == 1 or name.endswith(('.bias', '.gamma', '.beta'))
        expected[name] = multipliers[name], 0.0 if exempt else published['weight_decay']
    found = parameter_settings(model, paramwise, optimizer.weight_decay)
    assert {name: (one.multiplier, one.weight_decay) for name, one in found.items()} == expected
    assert max(multipliers.values()) == 1 and len(set(multipliers.values())) == (num_layers + 2 if task == 'det' else 6)
