"""The same pictures with 8 and with 16 bits a value, from folder to AP."""
import json

import cv2
import numpy as np
import pytest

pytest.importorskip('mmdet')

from tool_runs import CONFIGS, must_run, scalars  # noqa: E402

from convnext_dense.datasets.layout import DatasetInfo  # noqa: E402
from convnext_dense.projects.plan import Plan  # noqa: E402
from convnext_dense.projects.render import load_image  # noqa: E402

SIDE, IMAGES = 64, 40
SCALE = 16  # 12 bits in 16, as cameras write them
METRICS = ('coco/bbox_mAP', 'coco/segm_mAP')


def make_pictures(folder, dtype) -> None:
    """Bright rectangles on noise; black and white have more than 0.1 % of the values."""
    (folder / 'images').mkdir(parents=True)
    rng, images, annotations = np.random.default_rng(0), [], []
    for number in range(IMAGES):
        picture = rng.integers(0, 60, (SIDE, SIDE, 3))
        for place in range(rng.integers(1, 3)):
            w, h = rng.integers(16, 28, 2)
            x, y = rng.integers(0, SIDE // 2 - w // 2) + place * SIDE // 2, rng.integers(0, SIDE - h)
            w = min(w, SIDE - x)
            picture[y:y + h, x:x + w] = rng.integers(200, 256, (h, w, 3))
            annotations.append(dict(id=len(annotations) + 1, image_id=number, category_id=1, iscrowd=0, area=int(w * h),
                                    bbox=[int(v) for v in (x, y, w, h)],
                                    segmentation=[[int(v) for v in (x, y, x + w, y, x + w, y + h, x, y + h)]]))
        name = f'{number}.png'
        cv2.imwrite(str(folder / 'images' / name), (picture * (SCALE if dtype is np.uint16 else 1)).astype(dtype))
        images.append(dict(id=number, file_name=name, width=SIDE, height=SIDE))
    (folder / 'all.json').write_text(json.dumps(dict(images=images, annotations=annotations,
                                                     categories=[dict(id=1, name='rectangle')])))


CONFIG = """\
_base_ = {tiny!r}
model = dict(roi_head=dict(bbox_head=dict(num_classes=1), mask_head=dict(num_classes=1)))
load = {load}
dataset = dict(type='CocoDataset', data_root={root!r}, metainfo=dict(classes=('rectangle',)))
train_dataloader = dict(batch_size=4, dataset=dict(
    **dataset, ann_file='annotations/instances_train.json', data_prefix=dict(img='train/'),
    pipeline=[load, *_base_.train_pipeline[1:]]))
val_dataloader = dict(dataset=dict(
    **dataset, ann_file='annotations/instances_val.json', data_prefix=dict(img='val/'),
    pipeline=[load, *_base_.test_pipeline[1:]]))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file={root!r} + '/annotations/instances_val.json')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=25, val_interval=25)
optim_wrapper = dict(optimizer=dict(lr=4e-3))
"""


@pytest.mark.slow
@pytest.mark.long
def test_16_bits_train_to_the_ap_of_8_bits(tmp_path):
    """The loading step is the one that a project has (`projects.render`)."""
    found = {}
    for dtype in (np.uint8, np.uint16):
        name = np.dtype(dtype).name
        make_pictures(tmp_path / f'{name} source', dtype)
        must_run('convert_dataset', tmp_path / f'{name} source', tmp_path / name)
        info = DatasetInfo.read(tmp_path / name)
        plan = Plan('det', info, tmp_path / name, 'atto', 'random', SIDE, 4, 25, 0)
        config = tmp_path / f'{name}.py'
        config.write_text(CONFIG.format(tiny=str(CONFIGS['det']), root=str(tmp_path / name), load=load_image(plan)))
        must_run('train', config, '--work-dir', tmp_path / f'{name} run', '--device', 'cpu')
        found[name] = [next(line[key] for line in reversed(scalars(tmp_path / f'{name} run')) if key in line)
                       for key in METRICS]
    assert info.value_range == [0, 255 * SCALE] and 'LoadImageWithRange' in config.read_text()
    print(f'\n8 and 16 bits a value: {METRICS} {found["uint8"]} and {found["uint16"]}')
    assert min(found['uint8']) > 0.3
    np.testing.assert_allclose(found['uint16'], found['uint8'], atol=0.01)
