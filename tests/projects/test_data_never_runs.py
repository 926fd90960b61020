"""Names and paths from data reach a project's config as equal values: nothing is substituted, nothing runs."""
import ast
import functools
import json
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from mmengine.config import Config  # noqa: E402

from convnext_dense.config import load_config  # noqa: E402
from convnext_dense.datasets.layout import DatasetInfo, SplitInfo  # noqa: E402
from convnext_dense.errors import UserError  # noqa: E402
from convnext_dense.projects import render as render_module  # noqa: E402
from convnext_dense.projects.choose import write_project  # noqa: E402
from convnext_dense.projects.plan import Plan  # noqa: E402
from convnext_dense.projects.render import literal, render  # noqa: E402

SPECIAL = ['"', "'", '"""', "'''", '\\', '\\\\', '{', '}', '{{', '}}', '{{{', '#', '\n', '\r', '\r\n', '\t', '\0',
           '\x1b', '{{$HOME:', '{{$NO_SUCH:', "{{'$HOME:", '{{ fileDirname }}', '{{ fileBasename }}',
           '{{_base_.model}}', '{{ _base_.work_dir }}', '_base_', '_delete_', '(', ')', '[', ']', ',', ';', ':', '/',
           '..', '%s', '\\n', '\\x27', '\\N{DIGIT ONE}', '\u2028', '\u202e', '\ud800', 'é', '犬', '🐕', '|', '.*',
           'x', ' ', '\x85']


def random_text(rng: random.Random) -> str:
    pieces = [rng.choice(SPECIAL) if rng.random() < 0.7 else chr(rng.randrange(0x10ffff)) for _ in
              range(rng.randint(1, 10))]
    return ''.join(pieces)


def code_in_a_name(trace: Path) -> str:
    """As text in a config, its second half is replaced by its first, which closes the string and opens a file."""
    return '{{$A:\\\',open("' + str(trace) + '","w"),#|z}}'


def plan_of(task: str, classes: list[str], text: str = 'x', start: str = 'random') -> Plan:
    """A plan in which every string from data is, or ends in, `text`."""
    count = dict.fromkeys(classes, 1)
    own = dict(ann_file=text) if task == 'det' else dict(seg_prefix=text)
    info = DatasetInfo(task, classes, [[1, 2, 3]] * len(classes), {
        split: SplitInfo(4, count, img_prefix=text, **own) for split in ('train', 'val')}, source=text)
    info = replace(info, **(dict(has_masks=True) if task == 'det' else
                            dict(ignore_index=255, img_suffix=text, seg_map_suffix=text)))
    return Plan(task, info, Path('/data', text), 'tiny', start, 128, 2, 3, 0)


@pytest.mark.parametrize('task', ['det', 'seg'])
def test_code_in_data_stays_text(task, tmp_path, monkeypatch):
    """Also in the config that a run dumps into its work dir, which report and test read again."""
    monkeypatch.setenv('MY_TOKEN', 'a secret')
    code = code_in_a_name(tmp_path / 'trace')
    names = [code, '{{$MY_TOKEN:x}}', '{{ fileDirname }}', '{{_base_.model}}', *(f'class {i}' for i in range(50))]
    file = write_project(str(tmp_path / 'project'), plan_of(task, names, code, start=code))
    cfg = load_config(str(file))
    own = {key: cfg[key] for key in ('classes', 'load_from', 'data_root', 'train_dataloader')}
    Config(own).dump(tmp_path / 'dumped.py')
    for found in (cfg, Config.fromfile(tmp_path / 'dumped.py')):
        assert list(found.classes) == names and found.load_from == code
        assert list(found.train_dataloader.dataset.metainfo.classes) == names
        assert found.data_root == f'/data/{code}/' and 'a secret' not in str(found)
    assert not (tmp_path / 'trace').exists()


def test_a_folder_with_braces_keeps_its_name(tmp_path):
    folder = tmp_path / '{{ fileBasename }} "and\' {{$HOME:x}}'
    cfg = load_config(str(write_project(str(folder), plan_of('det', ['a']))))
    assert cfg.work_dir == str(folder / 'run')


GOOD = {'task': 'seg', 'classes': ['a', 'b'], 'palette': [[0, 0, 0], [9, 9, 9]], 'source': 'x', 'ignore_index': 255,
        'img_suffix': '.jpg', 'seg_map_suffix': '.png', 'splits': {split: {
            'images': 3, 'pixels': {'a': 1, 'b': 2}, 'img_prefix': f'images/{split}/',
            'seg_prefix': f'annotations/{split}/'} for split in ('train', 'val')}}
CODE = "__import__('os')"


def test_the_record_that_is_damaged_below_is_good(tmp_path):
    (tmp_path / 'dataset.json').write_text(json.dumps(GOOD))
    assert DatasetInfo.read(tmp_path).classes == ['a', 'b']


@pytest.mark.parametrize('path, value, expected', [
    ('ignore_index', CODE, 'ignore_index is .+ expected a number from 0 to 255'), ('ignore_index', 256, 'to 255'),
    ('ignore_index', True, 'to 255'), ('source', [CODE], 'name of a format'), ('task', ['seg'], 'det or seg'),
    ('classes', 'ab', 'list of names'), ('classes', [], 'list of names'), ('classes', ['a', 3], 'list of names'),
    ('classes', ['a', 'a'], "two classes are named 'a'"), ('classes', ['a', 'b\nimport os'], 'line break'),
    ('classes', ['a', ' '], 'empty'), ('classes', ['a', '\ud800'], 'control'), ('palette', [[0, 0, 0]], '2 lists'),
    ('palette', [[0, 0, 0], [0, CODE, 0]], 'three numbers'), ('img_suffix', 'jpg', 'suffix such as'),
    ('img_suffix', '.jpg/../..', 'suffix such as'), ('splits', {'train': {}}, 'train and val'),
    ('splits.train', None, 'expected an object'), ('splits.train.images', CODE, 'number of images'),
    ('splits.train.images', -1, 'number of images'), ('splits.train.pixels', {'a': 1}, 'number for each class'),
    ('splits.train.pixels', {'a': 1, 'b': CODE}, 'number for each class'),
    ('splits.train.img_prefix', '../../home/', 'inside the folder'),
    ('splits.train.img_prefix', '/home/', 'inside the folder'), ('splits.val.seg_prefix', 5, 'inside the folder'),
    ('splits.val.seg_prefix', 'a\nb', 'inside the folder'), ('splits.val.more', 1, "unknown key 'more'"),
    ('_base_', CODE, 'unknown key')])
def test_every_value_of_dataset_json_is_checked(path, value, expected, tmp_path):
    content = json.loads(json.dumps(GOOD))
    *parents, key = path.split('.')
    target = content
    for parent in parents:
        target = target[parent]
    target[key] = value
    (tmp_path / 'dataset.json').write_text(json.dumps(content))
    with pytest.raises(UserError, match=expected) as raised:
        DatasetInfo.read(tmp_path)
    assert '\n' not in str(raised.value)


def shape_and_strings(text: str) -> tuple[list, set[str]]:
    """The syntax tree of a config without the content of its strings, and these."""
    nodes = list(ast.walk(ast.parse(text)))
    strings = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    shape = [(type(node), getattr(node, 'id', None) or getattr(node, 'arg', None) or getattr(node, 'attr', None))
             for node in nodes]
    return shape, strings


def comments(text: str) -> list[str]:
    return [line for line in text.split('\n') if line.startswith('#')]


def check_rendered(rng: random.Random, count: int) -> None:
    """`count` configs are what the same plan with harmless strings gives, but for the strings."""
    cases = [(task, start) for task in ('det', 'seg') for start in ('published', 'FILE')]
    harmless = [render(plan_of(task, ['k', 'l', 'm'], 'x', start), Path('/run/x')) for task, start in cases]
    shapes = [shape_and_strings(text)[0] for text in harmless]
    for number in range(count):
        case, text, names = number % 4, random_text(rng), [random_text(rng) for _ in range(3)]
        task, start = cases[case]
        written = render(plan_of(task, names, text, text if start == 'FILE' else start), Path('/run', text))
        assert '{{' not in written and comments(written) == comments(harmless[case])
        shape, strings = shape_and_strings(written)
        assert shape == shapes[case], (task, names, text)
        assert {*names, text, str(Path('/run', text)), f'{Path("/data", text)}/'} <= strings


def check_read(rng: random.Random, count: int, folder: Path) -> None:
    """`count` random strings in one config come back equal through mmengine, and so they do once it has dumped them."""
    names = [random_text(rng) for _ in range(count)]
    (folder / 'read.py').write_text(f'names = {literal(names)}\n', encoding='utf-8')
    cfg = Config.fromfile(folder / 'read.py')
    assert cfg.names == names
    few = [name for name in names if not re.search('[\ud800-\udfff]', name)][:100]
    Config(dict(names=few)).dump(folder / 'dumped.py')
    assert Config.fromfile(folder / 'dumped.py').names == few


@pytest.fixture
def recipes_read_once(monkeypatch):
    """Looking up the recipe to inherit reads every metafile, for each config again."""
    monkeypatch.setattr(render_module, 'base_config', functools.cache(render_module.base_config))


def test_random_strings_come_back(recipes_read_once, tmp_path):
    check_rendered(random.Random(1), 60)
    check_read(random.Random(2), 300, tmp_path)


@pytest.mark.slow
def test_ten_thousand_random_strings_come_back(recipes_read_once, tmp_path):
    check_rendered(random.Random(3), 10_000)
    check_read(random.Random(4), 10_000, tmp_path)
    for number in range(3):  # through everything that reads a project
        rng = random.Random(number)
        names = list({random_text(rng) for _ in range(1000)})
        cfg = load_config(str(write_project(str(tmp_path / f'{number}'), plan_of('det', names, random_text(rng)))))
        assert list(cfg.val_dataloader.dataset.metainfo.classes) == names
