"""COCO and YOLO: nothing of an annotation is lost, masks are equal, polygons come back."""
import json

import numpy as np
import pytest
from convert_sources import LOSSES, convert
from PIL import Image
from pycocotools.coco import COCO
from tool_runs import run_tool

from convnext_dense.datasets.convert.coco import split_in_name
from convnext_dense.datasets.json_stream import CHUNK, read_element, stream_json
from convnext_dense.datasets.layout import DatasetInfo
from convnext_dense.errors import UserError


def test_nothing_of_coco_is_lost(data_sets, tmp_path):
    source, out = data_sets / 'coco', tmp_path / 'out'
    convert(source, out, '--link', 'symlink')
    info = DatasetInfo.read(out)
    crowds = masks = polygons = 0
    for split, described in info.splits.items():
        before, after = COCO(source / f'annotations/instances_{split}2017.json'), COCO(out / described.ann_file)
        assert after.dataset['categories'] == before.dataset['categories']
        assert after.imgs == before.imgs and after.anns == before.anns
        assert described.images == len(before.imgs)
        assert described.counts == {c['name']: len(before.getAnnIds(catIds=c['id'])) for c in before.cats.values()}
        for annotation_id in before.anns:
            mask = after.annToMask(after.anns[annotation_id])
            np.testing.assert_array_equal(mask, before.annToMask(before.anns[annotation_id]))
            masks += 1
            crowds += after.anns[annotation_id]['iscrowd']
            polygons += isinstance(after.anns[annotation_id]['segmentation'], list)
        for image in after.imgs.values():
            assert (out / split / image['file_name']).resolve() == source / f'{split}2017' / image['file_name']
    assert info.has_masks and info.classes[0] == 'person'
    print(f'COCO: {masks} masks equal, {polygons} of them polygons and {crowds} crowds')
    if data_sets.name != 'generated':
        assert (masks, crowds, len(info.classes)) == (2035 + 1786, 19 + 21, 80)  # as the data set's note counts them
    assert polygons and crowds


def test_one_json_is_split(data_sets, tmp_path):
    """A single file, named as such, boxes only: every image and annotation is in exactly one half."""
    content = json.loads((data_sets / 'coco/annotations/instances_val2017.json').read_text())
    content['annotations'] = [{k: v for k, v in a.items() if k != 'segmentation'} for a in content['annotations']]
    file = tmp_path / 'boxes.json'
    file.write_text(json.dumps(content))
    finished = convert(file, tmp_path / 'out', '--images', data_sets / 'coco/val2017', '--split', '0.75', '--seed', 3)
    info = DatasetInfo.read(tmp_path / 'out')
    halves = [COCO(tmp_path / 'out' / split.ann_file) for split in info.splits.values()]
    assert halves[0].anns | halves[1].anns == {a['id']: a for a in content['annotations']}
    assert halves[0].imgs | halves[1].imgs == {image['id']: image for image in content['images']}
    assert info.has_masks is False and len(halves[0].imgs) + len(halves[1].imgs) == len(content['images'])
    for category in halves[0].cats:
        images = [len(half.getImgIds(catIds=category)) for half in halves]
        assert abs(images[0] - 0.75 * sum(images)) <= 6 and (min(images) > 0 or sum(images) < 2)
    assert 'boxes.json' not in finished.out


def test_annotations_of_nothing_are_left_out(data_sets, tmp_path):
    content = json.loads((data_sets / 'pennfudan/annotations/instances_val.json').read_text())
    first, second, third = content['annotations'][:3]
    first['image_id'], second['category_id'] = 999999, 7
    del third['image_id']
    file = tmp_path / 'val.json'
    file.write_text(json.dumps(content))
    out = convert(file, tmp_path / 'out', '--images', data_sets / 'pennfudan/images', status=LOSSES).out
    for reason in ('unknown image', 'unknown category', 'without an integer image_id'):
        assert f'1 x annotation of an {reason}' in out or f'1 x annotation {reason}' in out
    splits = DatasetInfo.read(tmp_path / 'out').splits.values()
    assert sum(split.counts['person'] for split in splits) == len(content['annotations']) - 3


def yolo_lines(annotations, image, classes, polygons: bool) -> str:
    lines = []
    for annotation in annotations:
        label = classes.index(annotation['category_id'])
        if polygons:
            points = np.array(annotation['segmentation'][0]).reshape(-1, 2)
        else:
            x, y, w, h = annotation['bbox']
            points = np.array([[x + w / 2, y + h / 2], [w, h]])
        values = (points / (image['width'], image['height'])).ravel()
        lines.append(' '.join([str(label), *(f'{value:.6f}' for value in values)]))
    return '\n'.join(lines) + '\n'


@pytest.mark.parametrize('polygons', [True, False])
@pytest.mark.parametrize('form', ['yaml', 'classes.txt'])
def test_coco_through_yolo_comes_back(polygons, form, data_sets, tmp_path):
    """Written as YOLO with six decimals, every coordinate comes back to half of the last of them."""
    source, expected = tmp_path / 'yolo', {}
    for split in ('train', 'val'):
        coco = COCO(data_sets / f'coco/annotations/instances_{split}2017.json')
        (source / 'images' / split).mkdir(parents=True)
        (source / 'labels' / split).mkdir(parents=True)
        for image in list(coco.imgs.values())[:60]:
            name = image['file_name']
            single = [a for a in coco.imgToAnns[image['id']] if isinstance(a['segmentation'], list)
                      and len(a['segmentation']) == 1]
            (source / 'images' / split / name).symlink_to(data_sets / f'coco/{split}2017/{name}')
            text = yolo_lines(single, image, list(coco.cats), polygons)
            (source / 'labels' / split / name).with_suffix('.txt').write_text(text)
            expected[name] = single
    names = [category['name'] for category in coco.cats.values()]
    if form == 'yaml':
        listing = f'path: /gone/away\ntrain: images/train\nval: images/val\nnames: {dict(enumerate(names))}\n'
        (source / 'data.yaml').write_text(listing)
    else:
        (source / 'classes.txt').write_text('\n'.join(names))
    out = tmp_path / 'out'
    assert 'from yolo' in convert(source, out, '--link', 'symlink').out
    info, objects, worst, equal, pixels = DatasetInfo.read(out), 0, 0.0, 0, np.zeros(2)
    assert info.classes == names and info.has_masks is polygons
    for described in info.splits.values():
        found = COCO(out / described.ann_file)
        for image in found.imgs.values():
            pairs = list(zip(expected.pop(image['file_name']), found.imgToAnns[image['id']], strict=True))
            for before, after in pairs:
                assert coco.cats[before['category_id']]['name'] == found.cats[after['category_id']]['name']
                key = (lambda a: a['segmentation'][0]) if polygons else (lambda a: a['bbox'])
                worst = max(worst, np.abs(np.subtract(key(before), key(after))).max())
                if polygons:
                    masks = [found.annToMask({**a, 'image_id': image['id']}) for a in (before, after)]
                    pixels += [(masks[0] != masks[1]).sum(), masks[1].sum()]
                    assert after['area'] == masks[1].sum()
                    equal += (masks[0] == masks[1]).all()
            objects += len(pairs)
    print(f'YOLO {"polygons" if polygons else "boxes"}: {objects} objects, coordinates off by at most {worst:.1e} '
          f'pixels, {equal} masks equal; {pixels[0]:.0f} of {pixels[1]:.0f} mask pixels differ')
    assert objects > (70 if data_sets.name == 'generated' else 900) and not expected and worst <= 640 * 1e-6
    # a coordinate of .5 that moves by a millionth flips a row of pixels
    assert not polygons or pixels[0] < 1e-3 * pixels[1]


def test_yolo_lines_that_are_wrong_are_named(tmp_path):
    (tmp_path / 'y/images').mkdir(parents=True)
    (tmp_path / 'y/labels').mkdir()
    for number in range(3):
        Image.fromarray(np.zeros((20, 40, 3), np.uint8)).save(tmp_path / f'y/images/{number}.png')
    lines = ['0 0.5 0.5 0.5 0.5', '1 0.5 0.5 0.5 0.5', '0 0.5 0.5 0.5', 'x 1 1 1 1', '0 7 8 3 2', '0 nan 0.5 1 1']
    (tmp_path / 'y/labels/0.txt').write_text('\n'.join(lines))
    (tmp_path / 'y/labels/1.txt').write_text('')
    (tmp_path / 'y/classes.txt').write_text('thing\n')
    out = convert(tmp_path / 'y', tmp_path / 'out', status=LOSSES).out
    for number, reason in enumerate(['class 1, expected 0 to 0', 'line with 3 numbers', 'no number',
                                     'outside 0 to 1', 'not finite'], 2):
        assert [line for line in out.splitlines() if reason in line and f'0.txt:{number}' in line], (reason, out)
    assert '1 images have no text file' in out
    info = DatasetInfo.read(tmp_path / 'out')
    assert sum(split.counts['thing'] for split in info.splits.values()) == 1


@pytest.mark.parametrize('shape', [(2, 3), (17, 2)])
def test_keypoints_of_yolo_are_no_polygons(shape, tmp_path):
    """17 keypoints of two numbers are 38 numbers after the class, which a polygon could have, too."""
    for split in ('train', 'val'):
        (tmp_path / f'y/images/{split}').mkdir(parents=True)
        (tmp_path / f'y/labels/{split}').mkdir(parents=True)
        Image.fromarray(np.zeros((20, 40, 3), np.uint8)).save(tmp_path / f'y/images/{split}/0.png')
        points = ' 0.1 0.9 2'[:None if shape[1] == 3 else -2] * shape[0]
        (tmp_path / f'y/labels/{split}/0.txt').write_text(f'0 0.5 0.5 0.25 0.5{points}\n0 0.1 0.1 0.2 0.1 0.2 0.2')
    text = f'train: images/train\nval: images/val\nnames: [thing]\nkpt_shape: {list(shape)}\n'
    (tmp_path / 'y/data.yaml').write_text(text)
    out = convert(tmp_path / 'y', tmp_path / 'out', status=LOSSES).out
    assert 'has a kpt_shape: boxes are read' in out
    assert f'2 x line with 6 numbers after the class, expected 4 of a box and {shape[0] * shape[1]}' in out
    found = json.loads((tmp_path / 'out/annotations/instances_train.json').read_text())['annotations']
    assert [item['bbox'] for item in found] == [[15, 5, 10, 10]] and not any(item.get('segmentation') for item in found)
    (tmp_path / 'y/data.yaml').write_text(text.replace('[2, 3]', '6').replace('[17, 2]', '[17]'))
    assert 'kpt_shape is' in run_tool('convert_dataset', tmp_path / 'y', tmp_path / 'other').error


def test_a_yaml_that_runs_code_is_named_and_not_run(tmp_path):
    (tmp_path / 'y/images').mkdir(parents=True)
    Image.fromarray(np.zeros((20, 40, 3), np.uint8)).save(tmp_path / 'y/images/0.png')
    (tmp_path / 'y/data.yaml').write_text(f"names: !!python/object/apply:os.mkdir ['{tmp_path / 'ran'}']\n")
    error = run_tool('convert_dataset', tmp_path / 'y', tmp_path / 'out', '--from', 'yolo').error
    assert 'data.yaml could not be read as a YOLO data.yaml' in error and not (tmp_path / 'ran').exists()


def test_unclear_formats_are_asked_for(generated, tmp_path):
    finished = run_tool('convert_dataset', generated / 'pennfudan', tmp_path / 'out')
    assert 'may be coco or instance-masks' in finished.error and '--from' in finished.error
    (tmp_path / 'empty').mkdir()
    assert 'no format that is known' in run_tool('convert_dataset', tmp_path / 'empty', tmp_path / 'out').error
    assert 'does not exist' in run_tool('convert_dataset', tmp_path / 'typo', tmp_path / 'out').error


def test_a_damaged_json_is_named(generated, tmp_path):
    text = (generated / 'pennfudan/annotations/instances_val.json').read_text()
    (tmp_path / 'val.json').write_text(text[:len(text) // 2])
    error = run_tool('convert_dataset', tmp_path / 'val.json', tmp_path / 'out', '--from', 'coco').error
    assert 'val.json' in error and 'cut off' in error


@pytest.mark.parametrize('stem, split', [('instances_train2017', 'train'), ('valid', 'val'), ('boxes', None),
                                         ('_annotations.coco-test', 'test'), ('training_set', 'train')])
def test_split_in_name(stem, split):
    assert split_in_name(stem) == split


def test_stream_reads_what_json_reads(data_sets, tmp_path):
    """Also with chunks that end anywhere, text that is not ASCII, and elements larger than a chunk."""
    content = json.loads((data_sets / 'coco/annotations/instances_val2017.json').read_text())
    content['images'][0]['author'] = 'Zoë Ωmega'
    content['info']['note'] = 'x' * CHUNK
    content['count'], content['none'] = 12345, []
    for number, options in enumerate([{}, {'indent': 1}, {'ensure_ascii': False, 'separators': (',', ':')}]):
        file = tmp_path / f'{number}.json'
        file.write_text(json.dumps(content, **options), encoding='utf-8')
        found = {'none': []}
        for key, value, offset, length in stream_json(file):
            assert read_element(file, offset, length) == value or isinstance(value, float)
            if isinstance(content[key], list):
                found.setdefault(key, []).append(value)
            else:
                found[key] = value
        assert found == content


@pytest.mark.parametrize('text', ['{"a": [1, 2', '{"a": [{"b": 1]}', '[1]', '', '{"a": 1} x', '{"a": [tru]}'])
def test_stream_names_what_is_no_json(text, tmp_path):
    (tmp_path / 'a.json').write_text(text)
    with pytest.raises(UserError, match='a.json could not be read as JSON'):
        list(stream_json(tmp_path / 'a.json'))
