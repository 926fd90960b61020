"""Files that appear complete or not at all."""
import pytest

from convnext_dense.utils.files import atomic_write


def test_content_appears_at_the_end_only(tmp_path):
    file = tmp_path / 'new/a.json'
    with atomic_write(file, sync=True) as part:
        part.write_text('x')
        assert not file.exists() and part.suffix == '.json'
    assert file.read_text() == 'x' and list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize('error', [OSError(28, 'No space left on device'), KeyboardInterrupt()])
def test_the_old_file_survives_a_failure_and_no_part_is_left(tmp_path, error):
    file = tmp_path / 'a.json'
    file.write_text('old')
    with pytest.raises(type(error)), atomic_write(file) as part:
        part.write_text('half')
        raise error
    assert file.read_text() == 'old' and list(tmp_path.iterdir()) == [file]
