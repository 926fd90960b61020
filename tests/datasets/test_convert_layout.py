"""dataset.json: what is written is read back, and a file that is something else is named."""
import json

import pytest

from convnext_dense.datasets.layout import DatasetInfo, SplitInfo
from convnext_dense.errors import UserError

DET = DatasetInfo(
    'det', ['cat', 'dog'], [[1, 2, 3], [4, 5, 6]],
    {'train': SplitInfo(3, {'cat': 4, 'dog': 0}, 'train/', 'annotations/instances_train.json'),
     'val': SplitInfo(1, {'cat': 0, 'dog': 1}, 'val/', 'annotations/instances_val.json')}, 'coco', has_masks=True)
SEG = DatasetInfo(
    'seg', ['road'], [[0, 0, 0]],
    {split: SplitInfo(2, {'road': 9}, f'images/{split}/', seg_prefix=f'annotations/{split}/')
     for split in ('train', 'val')}, 'label-pngs', ignore_index=255, img_suffix='.jpg', seg_map_suffix='.png')


@pytest.mark.parametrize('info, counted, absent', [(DET, 'objects', 'ignore_index'), (SEG, 'pixels', 'has_masks')])
def test_written_is_read(info, counted, absent, tmp_path):
    info.write(tmp_path)
    assert DatasetInfo.read(tmp_path) == info
    content = json.loads((tmp_path / 'dataset.json').read_text())
    assert content['splits']['train'][counted] == info.splits['train'].counts and absent not in content
    assert [file.name for file in tmp_path.iterdir()] == ['dataset.json']


@pytest.mark.parametrize('content, expected', [
    (None, 'has no dataset.json'), ('{', 'JSON'), ('{"task": "det"}', 'has no classes'), ('[]', 'not as'),
    ('{"task": "seg", "splits": {}, "classes": [], "palette": [], "source": ""}', r'classes is \[\]')])
def test_another_file_is_named(content, expected, tmp_path):
    if content is not None:
        (tmp_path / 'dataset.json').write_text(content)
    with pytest.raises(UserError, match=expected):
        DatasetInfo.read(tmp_path)
