"""Our transforms for mmseg's pipelines return what mmseg's own do, bit for bit."""
import warnings

import cv2
import numpy as np
import pytest
from samples import Pair

from convnext_dense.datasets.transforms import stock_pipeline
from convnext_dense.errors import UserError

READ, LABELS = dict(type='LoadImageFromFile'), dict(type='FastLoadAnnotations')
RESIZE = dict(type='RandomResize', scale=(90, 60), ratio_range=(0.5, 2.0), keep_ratio=True)
CROP = dict(type='FastRandomCrop', crop_size=(40, 50), cat_max_ratio=0.4)
FLIP = dict(type='FastRandomFlip', prob=[0.3, 0.3, 0.3], direction=['horizontal', 'vertical', 'diagonal'])
DISTORT, PACK = dict(type='FastPhotoMetricDistortion'), dict(type='FastPackSegInputs')
PIPELINES = {
    'as the recipes': [READ, LABELS, RESIZE, CROP, FLIP, DISTORT, PACK],
    'flip first': [READ, LABELS, FLIP, RESIZE, CROP, PACK],
    'any crop': [READ, LABELS, dict(type='FastRandomCrop', crop_size=30), DISTORT, PACK],
    'a label that is not counted': [READ, LABELS, dict(CROP, ignore_index=3), PACK],
    'left and right': [READ, LABELS, dict(FLIP, swap_seg_labels=[(1, 2), (3, 0)]), PACK],
    'strong distortion': [READ, LABELS, dict(DISTORT, brightness_delta=200, contrast_range=(0.1, 4.0),
                                             saturation_range=(0.0, 5.0), hue_delta=179), PACK],
    'gray image': [dict(READ, color_type='grayscale'), LABELS, FLIP, CROP, PACK],
    'float image': [dict(READ, to_float32=True), LABELS, FLIP, RESIZE, CROP, DISTORT, PACK],
    'labels read by OpenCV': [READ, dict(LABELS, imdecode_backend='cv2'), FLIP, PACK],
    'no labels': [READ, FLIP, RESIZE, PACK],
}


def sample_infos(folder, **settings) -> list[dict]:
    """Images of several sizes with labels in patches, of all 256 values, and of one."""
    rng, infos = np.random.default_rng(0), []
    for number, (height, width) in enumerate([(60, 80), (33, 21), (120, 47), (64, 64)]):
        image, labels = folder / f'{number}.jpg', folder / f'{number}.png'
        smooth = cv2.resize(rng.integers(0, 256, (9, 9, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(image), smooth)
        patches = [rng.integers(0, 5, (3, 3)), rng.integers(0, 256, (20, 20)), np.full((1, 1), 255)][number % 3]
        cv2.imwrite(str(labels), cv2.resize(patches.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST))
        infos.append(dict(img_path=str(image), seg_map_path=str(labels), seg_fields=[], label_map=None,
                          reduce_zero_label=False) | settings)
    return infos


def check(pipeline: list, infos: list[dict], seeds: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)  # mmseg's, about reduce_zero_label
        pair = Pair('mmseg', stock_pipeline(pipeline), pipeline)
    for index, info in enumerate(infos):
        for seed in range(seeds):
            pair.check(info, seed, f'image {index}, seed {seed}')


@pytest.mark.parametrize('name', PIPELINES)
def test_equals_mmseg_on_generated_images(name, tmp_path):
    check(PIPELINES[name], sample_infos(tmp_path), 20)


@pytest.mark.parametrize('reduce_zero_label', [True, False, None])
@pytest.mark.parametrize('label_map', [None, {}, {0: 3, 3: 0, 7: 255, 250: 1, 300: 2}])
def test_labels_are_changed_as_by_mmseg(reduce_zero_label, label_map, tmp_path):
    infos = sample_infos(tmp_path, reduce_zero_label=bool(reduce_zero_label), label_map=label_map)
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    cv2.imwrite(infos[0]['seg_map_path'], labels)
    check([READ, dict(LABELS, reduce_zero_label=reduce_zero_label), PACK], infos, 1)


def test_a_palette_is_read_as_by_mmseg(tmp_path):
    from PIL import Image
    infos = sample_infos(tmp_path)[:1]
    picture = Image.fromarray(np.arange(80, dtype=np.uint8)[None].repeat(60, 0), mode='P')
    picture.putpalette(list(np.random.default_rng(0).integers(0, 256, 768)))
    picture.save(infos[0]['seg_map_path'])
    check([READ, LABELS, FLIP, PACK], infos, 3)


@pytest.mark.parametrize('kind', ['transparent', 'one bit', 'two bytes', 'colours', 'jpeg'])
def test_other_files_are_read_as_by_mmseg(kind, tmp_path):
    from PIL import Image
    infos, values = sample_infos(tmp_path)[:1], np.random.default_rng(0).integers(0, 200, (60, 80), np.uint8)
    file = infos[0]['seg_map_path']
    if kind == 'transparent':
        Image.fromarray(values).save(file, transparency=7)
    elif kind == 'one bit':
        Image.fromarray(values > 100).save(file)
    elif kind == 'two bytes':
        Image.fromarray(values.astype(np.uint16) * 300).save(file)
    elif kind == 'colours':
        Image.fromarray(np.stack([values, values // 2, 255 - values], -1)).save(file)
    else:
        Image.fromarray(values).save(file, format='JPEG')
    check([READ, LABELS, FLIP] if kind == 'colours' else [READ, LABELS, FLIP, PACK], infos, 3)


@pytest.mark.parametrize('damage', [lambda content: content[:-40], lambda content: content.replace(b'IDAT', b'IDAX')])
def test_a_damaged_file_is_an_error_as_in_mmseg(damage, tmp_path):
    info = sample_infos(tmp_path)[0]
    with open(info['seg_map_path'], 'rb+') as file:
        content = damage(file.read())
        file.seek(0)
        file.truncate()
        file.write(content)
    raised = []
    for pipeline in Pair('mmseg', stock_pipeline([READ, LABELS]), [READ, LABELS]).pipelines:
        with pytest.raises((OSError, SyntaxError)) as error:
            pipeline(dict(info))
        raised.append(str(error.value).partition('<')[0])
    assert raised[0] == raised[1]


def test_another_reduce_zero_label_is_named(tmp_path):
    pipeline = Pair('mmseg', [], [READ, dict(LABELS, reduce_zero_label=True)]).pipelines[1]
    with pytest.raises(UserError, match='reduce_zero_label=True, but the data set has False'):
        pipeline(sample_infos(tmp_path)[0])


@pytest.mark.parametrize('steps, key', [
    ([LABELS], 'seg_fields'), ([dict(FLIP, prob=1.0, direction='vertical')], 'img'), ([CROP], 'img'),
    ([READ, CROP], 'gt_seg_map'), ([DISTORT], 'img')])
def test_a_missing_key_is_named(steps, key, tmp_path):
    info = {key: value for key, value in sample_infos(tmp_path)[0].items() if key != 'seg_fields'}
    with pytest.raises(UserError, match=rf"Fast.* finds no '{key}' in the sample of .*0\.jpg"):
        Pair('mmseg', [], steps).pipelines[1](info)
