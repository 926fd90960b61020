"""Names that users rely on change deliberately only."""
import json

import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from public_surface import RECORD, public_surface  # noqa: E402


def test_public_surface_is_the_recorded_one():
    assert public_surface() == json.loads(RECORD.read_text()), \
        'if this change is meant: python tests/packaging/public_surface.py, and an entry in CHANGELOG.md'
