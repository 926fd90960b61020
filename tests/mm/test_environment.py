"""The MM stack: safe loading, mixed precision without a GPU, missing packages, own configs as bases."""
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging.history_buffer import HistoryBuffer
from torch import nn

from convnext_dense import ConvNeXt
from convnext_dense.errors import UserError
from convnext_dense.mm import environment
from convnext_dense.mm.device import use_device
from convnext_dense.optim.amp import MixedPrecisionOptimWrapper

WITHOUT = '''
import importlib.abc, sys
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {names!r}:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)
sys.meta_path.insert(0, Missing())
# importlib.util.find_spec must say None for a missing top-level package, as it does for a package not installed
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name.split('.')[0] in {names!r} else real(name, package)
'''


def run_without(names: set, code: str, repo_root: Path) -> subprocess.CompletedProcess:
    """Run ``code`` in a Python that cannot import ``names``."""
    return subprocess.run([sys.executable, '-c', WITHOUT.format(names=names) + code], cwd=repo_root, text=True,
                          capture_output=True, timeout=300)


class TestSafeLoading:
    def test_a_message_hub_survives_weights_only(self, tmp_path):
        history = HistoryBuffer([3.0, 1.0, 2.0], [1, 1, 2])
        torch.save({'history': history, 'step': np.float64(0.25), 'array': np.arange(3)}, tmp_path / 'run.pth')
        loaded = torch.load(tmp_path / 'run.pth', weights_only=True)
        assert loaded['history'].mean() == history.mean() == pytest.approx(6 / 4)
        assert loaded['history'].data[0].tolist() == [3.0, 1.0, 2.0]
        assert loaded['step'] == 0.25 and loaded['array'].tolist() == [0, 1, 2]

    @pytest.mark.parametrize('owner, name', [
        (HistoryBuffer, '__init__'), (HistoryBuffer, '__class__'), (np.ndarray, 'tofile'), (np.dtype, 'mean')])
    def test_getattr_reaches_nothing_but_the_statistics(self, owner, name, tmp_path):
        class Reach:
            def __reduce__(self):
                return getattr, (owner, name)
        torch.save({'reach': Reach()}, tmp_path / 'reach.pth')
        with pytest.raises(pickle.UnpicklingError, match='getattr'):
            torch.load(tmp_path / 'reach.pth', weights_only=True)

    def test_other_functions_stay_refused(self, tmp_path):
        class Touch:
            def __reduce__(self):
                return Path.touch, (tmp_path / 'trace',)
        torch.save({'touch': Touch()}, tmp_path / 'touch.pth')
        with pytest.raises(pickle.UnpicklingError):
            torch.load(tmp_path / 'touch.pth', weights_only=True)
        assert not (tmp_path / 'trace').exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason='what happens without a GPU')
class TestAmpWithoutGpu:
    @staticmethod
    def output_dtype(**kwargs) -> torch.dtype:
        model = nn.Linear(4, 4)
        wrapper = MixedPrecisionOptimWrapper(**kwargs, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
        with wrapper.optim_context(model):
            out = model(torch.ones(1, 4))
        before = model.weight.clone()
        wrapper.update_params(out.float().sum())
        assert not torch.equal(model.weight, before)  # it trains
        return out.dtype

    @pytest.mark.parametrize('kwargs', [{}, {'loss_scale': 'dynamic'}, {'dtype': 'float16'}])
    def test_fp16_falls_back_to_float32(self, kwargs):
        assert self.output_dtype(**kwargs) == torch.float32

    def test_bf16_is_bf16(self):
        assert self.output_dtype(dtype='bfloat16') == torch.bfloat16


class TestMissingPackages:
    @pytest.mark.parametrize('missing', [{'mmcv', 'mmdet', 'mmseg', 'mmpretrain'},
                                         {'mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain'}], ids=['mm*', 'all'])
    def test_the_backbone_works_alone(self, missing, repo_root, tmp_path):
        """Build, save, load through init_cfg, run: with the same maps as in this process, which has everything."""
        arch = dict(depths=[1, 1, 1, 1], channels=[8, 16, 24, 32])
        torch.manual_seed(0)
        model, image = ConvNeXt(arch).eval(), torch.randn(1, 3, 64, 96)
        torch.save(model.state_dict(), tmp_path / 'weights.pth')
        torch.save(image, tmp_path / 'image.pt')
        done = run_without(missing, f'''
import torch
from convnext_dense import ConvNeXt
folder = {str(tmp_path)!r}
model = ConvNeXt({arch}, init_cfg=dict(type='Pretrained', checkpoint=folder + '/weights.pth')).eval()
model.init_weights()
torch.save(model(torch.load(folder + '/image.pt')), folder + '/maps.pt')
''', repo_root)
        assert done.returncode == 0, done.stderr
        for found, expected in zip(torch.load(tmp_path / 'maps.pt'), model(image), strict=True):
            assert torch.equal(found, expected)

    def test_the_tools_say_in_one_sentence_what_is_missing(self, repo_root):
        config = sorted((repo_root / 'configs/det').glob('mask-rcnn_convnext-t*_coco.py'))[0]
        done = run_without({'mmdet'}, f'''
import runpy, sys
sys.argv = ['tools/train.py', {str(config)!r}]
runpy.run_path('tools/train.py', run_name='__main__')
''', repo_root)
        assert done.returncode == 2
        assert [line for line in done.stderr.splitlines() if line.startswith('error:')] == [
            "error: mmdet is not installed, and this needs it: pip install 'convnext-dense[openmmlab]'"]
        assert 'Traceback' not in done.stderr

    def test_a_broken_package_is_told_from_a_missing_one(self, tmp_path, monkeypatch):
        (tmp_path / 'brokenpackage.py').write_text("raise AssertionError('MMCV==9 is incompatible')")
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(UserError, match='brokenpackage is installed but its import fails .*MMCV==9'):
            environment.require('brokenpackage')


def test_import_is_light(repo_root):
    """`import convnext_dense` must not pull in mmdet's or mmseg's models (seconds, and fragile)."""
    code = "import convnext_dense, sys; print({'mmdet.models', 'mmseg.models', 'mmcv.ops'} & set(sys.modules))"
    done = subprocess.run([sys.executable, '-c', code], cwd=repo_root, text=True, capture_output=True, timeout=300)
    assert done.stdout.strip() == 'set()', done.stderr


def test_data_sets_are_found_without_further_imports(repo_root):
    """Registered by `import convnext_dense` alone, in the registries of the package that they extend."""
    code = ("import convnext_dense; from mmdet.registry import DATASETS as det; from mmseg.registry import DATASETS "
            "as seg; print(det.get('ShapesDetDataset').__mro__[1].__name__, seg.get('ShapesSegDataset').__mro__[1]"
            '.__name__)')
    done = subprocess.run([sys.executable, '-c', code], cwd=repo_root, text=True, capture_output=True, timeout=300)
    assert done.stdout.split()[-2:] == ['FastCocoDataset', 'BaseSegDataset'], done.stderr


def test_own_configs_work_as_bases_from_anywhere(tmp_path, repo_root):
    leaf = sorted((repo_root / 'configs/seg').glob('upernet_convnext-t*512x512.py'))[0]
    (tmp_path / 'mine.py').write_text(
        f"_base_ = 'convnext_dense::seg/{leaf.name}'\nmodel = dict(test_cfg=dict(mode='whole'))")
    merged, own = Config.fromfile(tmp_path / 'mine.py'), Config.fromfile(leaf)
    assert merged.model.test_cfg.mode == 'whole'
    merged.model.test_cfg.mode = own.model.test_cfg.mode
    assert merged.to_dict() == own.to_dict()


def test_cuda_asked_for_and_absent():
    if torch.cuda.is_available():
        pytest.skip('there is a GPU')
    with pytest.raises(UserError, match='--device cuda was asked for, but torch sees no GPU'):
        use_device('cuda')
