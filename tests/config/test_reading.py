"""Config files and command-line overrides."""
import pytest
from mmengine.config import Config

from convnext_dense import config
from convnext_dense.config import options
from convnext_dense.errors import UserError


@pytest.fixture(scope='module')
def det_config(repo_root) -> str:
    return str(sorted((repo_root / 'configs/det').glob('mask-rcnn_convnext-t*_coco.py'))[0])


def strings(node):
    """Every string anywhere in a config."""
    if isinstance(node, dict):
        return [found for value in node.values() for found in strings(value)]
    if isinstance(node, (list, tuple)):
        return [found for value in node for found in strings(value)]
    return [node] if isinstance(node, str) else []


def test_data_root_reaches_every_loader_and_evaluator(det_config):
    stock = config.load_config(det_config)
    moved = config.load_config(det_config, data_root='/elsewhere/coco/')
    keys = (*config.DATALOADERS, *config.EVALUATORS)
    before = [text for key in keys for text in strings(stock[key]) if text.startswith('data/coco')]
    after = [text for key in keys for text in strings(moved[key])]
    assert len(before) >= 5  # three data sets and two evaluators
    assert not [text for text in after if text.startswith('data/')]
    assert [text.replace('/elsewhere/coco/', 'data/coco/') for text in after if text.startswith('/elsewhere')] == before


def test_data_root_moves_wrapped_data_sets_and_concatenations():
    leaf = dict(type='CocoDataset', data_root='old', ann_file='a.json')
    both = dict(type='ConcatDataset', datasets=[leaf, dict(leaf, data_root='old/')])
    cfg = Config(dict(
        model=dict(), train_dataloader=dict(dataset=dict(type='RepeatDataset', times=2, dataset=both)),
        val_evaluator=[dict(ann_file='old/a.json'), dict(ann_file='older/a.json')]))
    config.set_data_root(cfg, 'new')
    assert [d.data_root.rstrip('/') for d in config.datasets_of(cfg.train_dataloader)] == ['new', 'new']
    assert [e['ann_file'] for e in cfg.val_evaluator] == ['new/a.json', 'older/a.json']


@pytest.mark.parametrize('text, value', [
    ('a=1', 1), ('a=1e-3', 1e-3), ('a=None', None), ('a=True', True), ('a=tiny', 'tiny'), ('a=1,2', [1, 2]),
    ('a=[1,2]', [1, 2]), ('a=(1,2)', (1, 2)), ('a=x,y', ['x', 'y']), ('a=path/to=b.pth', 'path/to=b.pth'),
    ('a=dict(b=1,c=[dict(d=2)])', {'b': 1, 'c': [{'d': 2}]})])
def test_option_values(text, value):
    parsed = options.parse_options([text])['a']
    assert parsed == value and type(parsed) is type(value)


def test_an_override_of_a_tuple_stays_a_tuple(det_config):
    cfg = config.load_config(det_config, ['test_pipeline.1.scale=640,400'])
    assert cfg.test_pipeline[1].scale == (640, 400)


@pytest.mark.parametrize('option, message', [
    ('modle.backbone.arch=tiny', r"the config has no 'modle'; did you mean model\?"),
    ('model.bakbone.arch=tiny', r"model has no 'bakbone'; did you mean model.backbone\?"),
    ('train_cgf=1', r"the config has no 'train_cgf'; did you mean train_cfg\?"),
    ('test_pipeline.9.scale=1', r"test_pipeline has no '9'; it has 0, 1, 2, 3"),
    ('model', 'expected key=value')])
def test_a_mistyped_option_is_refused(det_config, option, message):
    with pytest.raises(UserError, match=message):
        config.load_config(det_config, [option])


@pytest.mark.parametrize('option', ['model.backbone.with_cp=True', 'randomness.seed=0', 'find_unused_parameters=True'])
def test_new_leaves_and_runner_keys_are_accepted(det_config, option):
    key, _, value = option.partition('=')
    cfg = config.load_config(det_config, [option])
    for part in key.split('.'):
        cfg = cfg[part]
    assert str(cfg) == value


def test_a_missing_config_names_the_nearest():
    with pytest.raises(UserError, match='does not exist; the nearest ones are configs/det/mask-rcnn_convnext-t-in1k'):
        config.load_config('configs/det/mask-rcnn_convnext-t_fpn_8xb2-amp-ms-crop-3x_coco.py')


def test_configs_of_the_package_are_found_from_any_folder(det_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = 'det/' + det_config.rpartition('/')[2]
    for spelled in (name, f'configs/{name}', f'convnext_dense::{name}'):
        assert config.load_config(spelled).model.backbone.arch == 'tiny'


@pytest.mark.parametrize('content, message', [
    ('model = dict(', 'could not be read as a config'), ('x = 1', 'has no `model`'),
    ("_base_ = 'nowhere.py'\nmodel = dict()", 'could not be read as a config')])
def test_a_file_that_is_no_recipe(tmp_path, content, message):
    (tmp_path / 'bad.py').write_text(content)
    with pytest.raises(UserError, match=message):
        config.load_config(str(tmp_path / 'bad.py'))
