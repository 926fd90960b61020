"""tools/make_shapes.py."""
from tool_runs import must_run, run_tool


def test_writes_once_then_says_it_is_there_and_refuses_other_parameters(tmp_path):
    options = ['--out', tmp_path / 'shapes', '--val', 1, '--size', 64]
    first = must_run('make_shapes', *options, '--train', 3)
    assert len(list((tmp_path / 'shapes/coco/train2017').iterdir())) == 3
    assert 'images 4/4' in first.err and '3 + 1 images written' in first.out
    assert 'already there' in must_run('make_shapes', *options, '--train', 3).out
    assert '--overwrite' in run_tool('make_shapes', *options, '--train', 2).error
