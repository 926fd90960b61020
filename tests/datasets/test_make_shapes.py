"""tools/make_shapes.py; how tools report a UserError is tested with the tools' common code."""
import pytest

from convnext_dense.cli import make_shapes
from convnext_dense.errors import UserError


def test_writes_once_then_says_it_is_there_and_refuses_other_parameters(tmp_path, capsys):
    options = ['--out', str(tmp_path / 'shapes'), '--val', '1', '--size', '64']
    make_shapes.main([*options, '--train', '3'])
    first = capsys.readouterr()
    assert len(list((tmp_path / 'shapes/coco/train2017').iterdir())) == 3
    assert 'images 4/4' in first.err and '3 + 1 images written' in first.out
    make_shapes.main([*options, '--train', '3'])
    assert 'already there' in capsys.readouterr().out
    with pytest.raises(UserError, match='--overwrite'):
        make_shapes.main([*options, '--train', '2'])
