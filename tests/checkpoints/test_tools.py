"""What a user sees: tools/test.py on files that it must refuse, one sentence and exit status 2 each."""
import pytest
import torch
from test_bad_input import KINDS, Evil, no_trace, plant
from tool_runs import CONFIGS, run_tool

from convnext_dense.errors import UserError

pytest.importorskip('mmseg')


@pytest.fixture(scope='module')
def images(make_shapes):
    return make_shapes(train=1, val=1) / 'ade'


@pytest.fixture
def tool(images):
    """Run tools/test.py on a checkpoint."""
    def run(checkpoint):
        return run_tool('test', CONFIGS['seg'], checkpoint, '--device', 'cpu', '--data-root', images, '--work-dir',
                        images.parent / 'work')
    return run


def segmentor_state(repo_root):
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope
    init_default_scope('mmseg')
    return MODELS.build(Config.fromfile(repo_root / 'tests/tools/tiny_seg.py').model).state_dict()


@pytest.mark.parametrize('kind', KINDS)
def test_planted_code_does_not_run(tool, tmp_path, kind):
    assert 'mkdir' in tool(plant(tmp_path, kind)).error
    assert no_trace(tmp_path)


def test_the_same_weights_without_code_are_evaluated_and_with_it_are_not(tool, repo_root, tmp_path):
    content = {'meta': {}, 'state_dict': segmentor_state(repo_root)}
    torch.save(content, tmp_path / 'clean.pth')
    assert tool(tmp_path / 'clean.pth').code == 0
    torch.save({**content, 'evil': Evil(tmp_path / 'trace')}, tmp_path / 'planted.pth')
    assert tool(tmp_path / 'planted.pth').code == 2
    assert no_trace(tmp_path)


def test_bad_input_is_one_sentence(tool, repo_root, tmp_path):
    """A kind each of file, content and name; the others are in test_bad_input.py and test_loading.py."""
    state = segmentor_state(repo_root)
    torch.save({'state_dict': state}, tmp_path / 'good.pth')
    whole = (tmp_path / 'good.pth').read_bytes()
    cases = {
        'cut.pth': (whole[:len(whole) // 2], 'damaged or cut off'),
        'version.pth': ({**state, 'backbone.stages.0.0.grn.gamma': torch.ones(1, 1, 1, 32)}, 'is a ConvNeXt V2'),
        'convnext_tiny_in2k': (None, 'nearest names: convnext_tiny_in22k'),
        '.': (None, 'is a directory'),
    }
    for name, (content, expected) in cases.items():
        path = tmp_path / name if name != 'convnext_tiny_in2k' else name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            torch.save({'state_dict': content}, path)
        line = tool(path).error
        assert expected in line, (name, line)


def test_a_planted_file_is_refused_in_a_config_too(tmp_path):
    from mmengine.registry import MODELS

    from convnext_dense.models import ConvNeXt
    file = plant(tmp_path, 'zip')
    backbone = MODELS.build(dict(type='ConvNeXt', arch='atto', init_cfg=dict(type='Pretrained', checkpoint=str(file))))
    assert isinstance(backbone, ConvNeXt)
    with pytest.raises(UserError, match='mkdir'):
        backbone.init_weights()
    assert no_trace(tmp_path)
