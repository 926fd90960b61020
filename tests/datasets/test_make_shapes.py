"""tools/make_shapes.py; how tools report a UserError is tested with the tools' common code."""
import importlib.util

import pytest

from convnext_dense.errors import UserError


def test_writes_once_then_says_it_is_there_and_refuses_other_parameters(repo_root, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location('make_shapes', repo_root / 'tools/make_shapes.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    options = ['--out', str(tmp_path / 'shapes'), '--val', '1', '--size', '64']
    tool.main([*options, '--train', '3'])
    first = capsys.readouterr()
    assert len(list((tmp_path / 'shapes/coco/train2017').iterdir())) == 3
    assert 'images 4/4' in first.err and '3 + 1 images written' in first.out
    tool.main([*options, '--train', '3'])
    assert 'already there' in capsys.readouterr().out
    with pytest.raises(UserError, match='--overwrite'):
        tool.main([*options, '--train', '2'])
