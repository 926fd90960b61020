"""A trained detector on a mosaic of real images: AP in tiles beside AP of the images one by one."""
import pytest
from mosaic import compare, describe, prepare


@pytest.mark.slow
@pytest.mark.long
def test_tiles_find_what_the_images_show_one_by_one(real_data, tmp_path):
    """AP within one point; `mosaic.py`, run as a script, does the same with 8000 x 8000 pixels."""
    results = compare(*prepare(real_data, tmp_path), side=1600, tile=640, overlap=0.25)
    print(f'\n{describe(results)}')
    assert min(results['one by one'].values()) > 30
    for kind in ('bbox', 'segm'):
        assert results['tiles'][kind] > results['one by one'][kind] - 1
    seams = results['at edges']
    assert seams['objects'] > 50 and seams['once'] > 0.9 * seams['objects'] and seams['repeated'] == 0
