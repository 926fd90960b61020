"""Each change to foreign code is still needed, and none is made outside convnext_dense/mm."""
import ast
import json
import subprocess
import sys
import warnings

import pytest

from convnext_dense.mm import patches

pytest.importorskip('mmdet')

# What the unchanged packages do, each as an expression that is true as long as our change is needed.
STOCK = '''
import inspect, io, json, os, pickle, sys, tempfile
import torch

def fails(action, *kinds):
    try:
        action()
    except kinds or Exception:
        return True
    return False

class Touch:
    def __reduce__(self):
        return os.mkdir, (os.path.join(folder, 'trace'),)

folder = tempfile.mkdtemp()
needed = {}

from mmengine.logging.history_buffer import HistoryBuffer
buffer = io.BytesIO()
torch.save({'loss': HistoryBuffer([1.0], [1])}, buffer)
buffer.seek(0)
needed['allow_own_checkpoints'] = fails(lambda: torch.load(buffer, weights_only=True), pickle.UnpicklingError)

import mmengine.device.utils as device_utils
device_utils.DEVICE = 'elsewhere'
needed['compute_on_cpu'] = device_utils.get_device() == 'elsewhere'

from mmengine.config import Config
with open(os.path.join(folder, 'mine.py'), 'w') as file:
    file.write("_base_ = 'convnext_dense::det/_base_/coco_instance.py'")
needed['resolve_configs'] = fails(lambda: Config.fromfile(os.path.join(folder, 'mine.py')))

from mmengine import fileio
needed['read_data_anywhere'] = (fails(lambda: fileio.get('gs://bucket/x'), KeyError)
                                and fails(lambda: fileio.get('s3://bucket/x'), ImportError))

name = '{{$NO_SUCH_VARIABLE:x}}'
Config(dict(classes=[name])).dump(os.path.join(folder, 'dumped.py'))
needed['escape_dumped_configs'] = Config.fromfile(os.path.join(folder, 'dumped.py')).classes != [name]

with open(os.path.join(folder, 'stock.py'), 'w') as file:
    file.write("custom_imports = dict(imports=['mmpretrain.models'], allow_failed_imports=False)")
needed['stand_in_for_mmpretrain'] = fails(lambda: Config.fromfile(os.path.join(folder, 'stock.py')), ImportError)

torch.save({'touch': Touch()}, os.path.join(folder, 'touch.pth'))
os.environ['TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'] = '1'  # the default of torch 2.4 and 2.5
from mmengine.runner.checkpoint import CheckpointLoader
CheckpointLoader.load_checkpoint(os.path.join(folder, 'touch.pth'), map_location='cpu')
needed['load_safely'] = os.path.isdir(os.path.join(folder, 'trace'))

import importlib.util, pathlib
heads = pathlib.Path(importlib.util.find_spec('mmdet').origin).parent / 'models/dense_heads'
needed['ssd'] = ('self.loss_cls' in (heads / 'base_dense_head.py').read_text()
                 and 'self.loss_cls' not in (heads / 'ssd_head.py').read_text())

detector = (heads.parent / 'detectors/two_stage.py').read_text()
needed['share_samples_with_rpn'] = 'rpn_data_samples = copy.deepcopy(batch_data_samples)' in detector

from mmengine.runner import Runner
needed['load_strictly'] = inspect.signature(Runner.load_checkpoint).parameters['strict'].default is False

print(json.dumps(needed))
'''


@pytest.fixture(scope='module')
def needed() -> dict:
    """Patch name -> whether the unchanged packages still need it, found in a process without convnext_dense."""
    done = subprocess.run([sys.executable, '-c', STOCK], text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize('name', ['allow_own_checkpoints', 'compute_on_cpu', 'escape_dumped_configs', 'resolve_configs',
                                  'load_safely', 'load_strictly', 'read_data_anywhere', 'share_samples_with_rpn',
                                  'ssd', 'stand_in_for_mmpretrain'])
def test_upstream_still_needs(name, needed):
    assert needed[name], f'{name} is no longer needed: remove it'


@pytest.mark.slow
def test_mmdet_still_cannot_do_with_a_broken_mmpretrain(tmp_path):
    """`disable_broken_mmpretrain`: mmdet expects an ImportError and mmpretrain under transformers 5 has a TypeError."""
    (tmp_path / 'mmpretrain').mkdir()
    (tmp_path / 'mmpretrain/__init__.py').write_text('')
    (tmp_path / 'mmpretrain/models.py').write_text("raise TypeError('as under transformers 5')")
    code = ('import {first}sys\nimport mmdet.models.language_models\n')

    def run(first: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, '-c', code.format(first=first)], text=True, capture_output=True,
                              timeout=300, env={'PYTHONPATH': f'{tmp_path}:{":".join(filter(None, sys.path))}',
                                                'PATH': '/usr/bin:/bin'})
    assert run('convnext_dense, ').returncode == 0
    # without our package mmcv.ops has no operators either: only the optional import itself is looked at
    source = (tmp_path / 'optional.py')
    source.write_text(OPTIONAL_IMPORTS)
    done = subprocess.run([sys.executable, str(source)], text=True, capture_output=True, timeout=120,
                          env={'PYTHONPATH': f'{tmp_path}:{":".join(filter(None, sys.path))}', 'PATH': '/usr/bin:/bin'})
    assert 'as under transformers 5' in done.stderr


# runs every `try: ... import mmpretrain ...` of mmdet as mmdet does
OPTIONAL_IMPORTS = '''
import ast, importlib.util, pathlib
folder = pathlib.Path(importlib.util.find_spec('mmdet').origin).parent
for file in sorted(folder.glob('models/**/*.py')):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Try) and 'mmpretrain' in ast.unparse(node.body[0]):
            exec(compile(ast.Module([node], []), str(file), 'exec'), {})
'''


def test_every_patch_is_tested():
    """Here, or as what it adds: `register_subclasses` in test_environment.py, `before_mm_imports` calls others."""
    tree = ast.parse(open(patches.__file__).read())
    public = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith('_')}
    assert public == {'before_mm_imports', 'disable_broken_mmpretrain', 'allow_own_checkpoints', 'compute_on_cpu',
                      'escape_dumped_configs', 'leave_out_notes', 'resolve_configs', 'load_safely', 'load_strictly',
                      'register_subclasses', 'read_data_anywhere', 'share_samples_with_rpn', 'stand_in_for_mmpretrain'}


def test_mmsegs_notes_about_itself_are_left_out_and_no_others():
    from mmseg.datasets.transforms import LoadAnnotations
    from mmseg.models.builder import build_loss

    def warned(prepare) -> list[str]:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter('always')
            prepare()
            LoadAnnotations(reduce_zero_label=True)
            build_loss(dict(type='mmseg.CrossEntropyLoss', loss_weight=1.0))
            warnings.warn('`reduce_zero_label` will be deprecated', UserWarning, stacklevel=1)  # of another module
        return [str(each.message)[:20] for each in seen if each.category is UserWarning]

    assert len(warned(lambda: None)) == 4
    assert warned(patches.leave_out_notes) == ['`reduce_zero_label` ']


def foreign_changes(source: str) -> list[str]:
    """Assignments to attributes of imported classes or modules, to sys.modules, and registrations by force."""
    tree = ast.parse(source)
    imported = {alias.asname or alias.name.split('.')[0] for node in ast.walk(tree)
                if isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and node.level == 0)
                for alias in node.names}
    found = []
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(
            node, (ast.AugAssign, ast.AnnAssign)) else []
        for target in targets:
            root = target
            while isinstance(root, (ast.Attribute, ast.Subscript)):
                root = root.value
            if root is not target and isinstance(root, ast.Name) and root.id in imported:
                found.append(ast.unparse(node))
        if isinstance(node, ast.Call) and any(word.arg == 'force' and getattr(word.value, 'value', None) is True
                                              for word in node.keywords):
            found.append(ast.unparse(node))
    return found


def test_the_search_finds_what_it_looks_for():
    assert foreign_changes('import sys\nsys.modules["a"] = None') and foreign_changes('from a import B\nB.c = 1')
    assert foreign_changes('HOOKS.register_module(name="x", force=True)')
    assert not foreign_changes('from a import B\nb = B()\nb.c = 1')


# changes of this process's own state that are no change of foreign code
OWN_STATE = {"os.environ['CUDA_VISIBLE_DEVICES'] = '-1'", "os.environ['CONVNEXT_DENSE_CACHE'] = folder",
             "sys.argv = [f'convnext-dense {name}', *sys.argv[2:]]"}


def test_foreign_code_is_changed_in_mm_alone(repo_root):
    package = repo_root / 'convnext_dense'
    found = {f'{file.relative_to(package)}: {change}' for file in sorted(package.rglob('*.py'))
             if file.relative_to(package).parts[0] != 'mm'
             for change in foreign_changes(file.read_text()) if change not in OWN_STATE}
    assert found == set()
