"""The checker on configs: the data as the config reads it, its classes, and a normalisation that does not fit."""
import json
from pathlib import Path

import numpy as np
import pytest
from clean_copies import SEG_INFO
from PIL import Image
from tool_runs import run_tool

NORM = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)
DET = '''
default_scope = 'mmdet'
model = dict(
    type='MaskRCNN',
    data_preprocessor=dict(type='DetDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
                           bgr_to_rgb=True),
    backbone=dict(type='ConvNeXt', arch='atto', init_cfg=None),
    roi_head=dict(bbox_head=dict(num_classes=2)))
pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(1333, 800), keep_ratio=True)]
dataset = dict(type='CocoDataset', data_root={root!r}, metainfo=dict(classes=('person', 'chair')), pipeline=pipeline)
train_dataloader = dict(batch_size=1, dataset=dict(
    **dataset, ann_file='annotations/instances_train.json', data_prefix=dict(img='train/')))
val_dataloader = dict(batch_size=1, dataset=dict(
    **dataset, ann_file='annotations/instances_val.json', data_prefix=dict(img='val/'), test_mode=True))
del pipeline, dataset
'''
SEG = '''
default_scope = 'mmseg'
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
                           bgr_to_rgb=True),
    backbone=dict(type='ConvNeXt', arch='atto', init_cfg=None),
    decode_head=dict(num_classes=4))
dataset = dict(type='BaseSegDataset', data_root={root!r}, metainfo=dict(classes=('Sky', 'Building', 'Road', 'Car')),
               pipeline=[], reduce_zero_label=False)
train_dataloader = dict(batch_size=1, dataset=dict(
    **dataset, data_prefix=dict(img_path='images/train', seg_map_path='annotations/train')))
val_dataloader = dict(batch_size=1, dataset=dict(
    **dataset, data_prefix=dict(img_path='images/val', seg_map_path='annotations/val')))
del dataset
'''
BOTH = ('train_dataloader', 'val_dataloader')


def found(task: str, clean: Path, folder: Path, *options: str) -> tuple[int, dict[str, list]]:
    """Exit status, and code -> findings, of the tool on a config with `--cfg-options`."""
    config = folder / 'config.py'
    config.write_text({'det': DET, 'seg': SEG}[task].format(root=f'{clean}/{"coco" if task == "det" else "camvid"}'))
    options = ('--cfg-options', *options) if options else ()
    finished = run_tool('check_dataset', config, '--workers', 0, '--strict', '--json', folder / 'found.json', *options)
    assert finished.code in (0, 3, 4), finished.err
    codes = {}
    for finding in json.loads((folder / 'found.json').read_text())['findings']:
        codes.setdefault(finding['code'], []).append(finding)
    return finished.code, codes


def norm(**changed) -> list[str]:
    """Options that set the normalisation."""
    return [f'model.data_preprocessor.{key}={value}' for key, value in {**NORM, **changed}.items()]


def test_a_config_that_fits_has_no_finding(clean, tmp_path):
    code, codes = found('det', clean, tmp_path)
    assert (code, set(codes)) == (0, {'category-ids'})
    assert found('seg', clean, tmp_path) == (0, {})


def test_small_objects_are_counted_after_resizing(clean, tmp_path):
    """The count is that of a loop over the annotations, with mmcv's own rule for the size of the image."""
    from mmcv.image import rescale_size
    for scale in ((400, 300), (160, 100)):
        finding = found('det', clean, tmp_path, *(f'{loader}.dataset.pipeline.1.scale={scale}' for loader in BOTH)
                        )[1]['object-small'][0]
        content = json.loads((clean / 'coco/annotations/instances_train.json').read_text())
        images = {image['id']: image for image in content['images']}
        small = 0
        for annotation in content['annotations']:
            size = images[annotation['image_id']]['width'], images[annotation['image_id']]['height']
            small += min(annotation['bbox'][2:]) * rescale_size(size, scale, return_scale=True)[1] < 8
        assert finding['id'].startswith(f'{small} of {len(content["annotations"])} objects') and small > 0


RGB = [123.675, 116.28, 103.53]
FAULTS = [
    ('norm-scale', 'det', norm(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]), '0.485'),
    ('norm-order', 'det', norm(bgr_to_rgb=False), 'bgr_to_rgb=False'),
    ('norm-order', 'seg', norm(mean=RGB[::-1]), 'bgr_to_rgb=True'),
    ('norm-weights', 'det', [*norm(mean=[127.5] * 3, std=[127.5] * 3),
                             'load_from=convnext_tiny_in1k.pth'],
     'convnext_tiny_in1k.pth'),
    ('norm-missing', 'det', ['model.data_preprocessor.mean=None'], 'no mean'),
    ('config-refused', 'det', ['model.roi_head.bbox_head.num_classes=80'], 'num_classes is 80'),
    ('config-refused', 'seg', ['model.decode_head.num_classes=150'], 'num_classes is 150'),
    ('class-unknown', 'det', [f"{loader}.dataset.metainfo.classes=('person', 'sofa')" for loader in BOTH], 'sofa'),
    ('category-dropped', 'det', [f"{loader}.dataset.metainfo.classes=('person',)" for loader in BOTH], 'chair'),
    ('zero-is-class', 'seg', [f'{loader}.dataset.reduce_zero_label=True' for loader in BOTH], 'values 0 to 3'),
    ('ignore-as-class', 'seg', [f'{loader}.dataset.ignore_index=2' for loader in BOTH], 'Road'),
    ('class-absent', 'seg', [f"{loader}.dataset.metainfo.classes=('Sky', 'Building', 'Road', 'Car', 'Boat')"
                             for loader in BOTH], 'Boat'),
    ('label-value', 'seg', [f"{loader}.dataset.metainfo.classes=('Sky', 'Building', 'Road')" for loader in BOTH],
     'value 3'),
]


@pytest.mark.parametrize('code, task, options, where', FAULTS, ids=[f'{f[0]}-{f[1]}' for f in FAULTS])
def test_a_config_that_does_not_fit_is_named(code, task, options, where, clean, tmp_path):
    status, codes = found(task, clean, tmp_path, *options)
    assert code in codes and status == {'error': 4, 'warning': 3}[codes[code][0]['severity']] or status == 4
    assert any(where in f'{finding["id"]} {finding["value"]}' for finding in codes[code]), codes[code]


def test_labels_are_read_as_mmseg_reads_them(clean, tmp_path):
    """reduce_zero_label and ignore_index give the very labels of mmseg's LoadAnnotations."""
    from mmseg.datasets.transforms import LoadAnnotations

    from convnext_dense.datasets.checks.findings import Findings
    from convnext_dense.datasets.checks.labels import LabelCheck
    from convnext_dense.datasets.checks.targets import LabelTarget
    every = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(every).save(tmp_path / 'every.png')
    for reduce_zero_label in (False, True):
        read = LoadAnnotations(reduce_zero_label=reduce_zero_label, imdecode_backend='pillow').transform(dict(
            seg_map_path=str(tmp_path / 'every.png'), seg_fields=[], reduce_zero_label=reduce_zero_label))
        target = LabelTarget('train', [], [], tmp_path, SEG_INFO['classes'], 255, reduce_zero_label)
        check = LabelCheck(target, Findings())
        ours = [check.class_of(value) for value in range(256)]
        assert [255 if label is None else label for label in ours] == read['gt_seg_map'].ravel().tolist()
