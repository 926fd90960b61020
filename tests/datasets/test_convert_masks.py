"""Mask formats: every object and every label equals that of the source, pixel for pixel."""
import json
import os

import numpy as np
import pytest
from convert_sources import CAMVID_COLOURS, LOSSES, camvid_copy, convert, small_pairs
from PIL import Image
from pycocotools.coco import COCO
from tool_runs import run_tool

from convnext_dense.datasets.layout import DatasetInfo


def labels_in(folder, name) -> np.ndarray:
    return np.asarray(Image.open(folder / 'annotations' / name))


def expected_labels(camvid, name) -> np.ndarray:
    labels = np.array(Image.open(camvid / 'annotations' / name))
    labels[labels == 11] = 255
    return labels


def test_penn_fudan_masks_are_the_objects(data_sets, tmp_path):
    source, out = data_sets / 'pennfudan', tmp_path / 'out'
    convert(source, out, '--from', 'instance-masks', '--classes', 'person', '--link', 'symlink')
    info, seen, objects = DatasetInfo.read(out), set(), 0
    assert info.classes == ['person'] and info.has_masks
    for split, described in info.splits.items():
        coco = COCO(out / described.ann_file)
        assert len(coco.imgs) == described.images and len(coco.anns) == described.counts['person']
        for image_id, image in coco.imgs.items():
            stem = image['file_name'].removesuffix('.jpg')
            ids = np.asarray(Image.open(source / f'PedMasks/{stem}_mask.png'))
            drawn = np.zeros_like(ids)
            for number, annotation in enumerate(coco.imgToAnns[image_id], 1):
                mask = coco.annToMask(annotation).astype(bool)
                assert not drawn[mask].any() and annotation['area'] == mask.sum()
                rows, columns = np.nonzero(mask)
                assert annotation['bbox'] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
                drawn[mask] = number
                objects += 1
            np.testing.assert_array_equal(drawn, ids)
            assert (out / split / image['file_name']).read_bytes() == (source / f'images/{stem}.jpg').read_bytes()
            seen.add(stem)
    print(f'Penn-Fudan: {len(seen)} images, {objects} masks equal pixel for pixel')
    if data_sets.name == 'generated':
        assert (len(seen), objects) == (16, 32)
    else:
        assert (len(seen), objects) == (170, 423)  # the published size of the data set


def test_camvid_labels_are_kept(data_sets, tmp_path):
    out = tmp_path / 'out'
    finished = convert(data_sets / 'camvid', out, '--link', 'symlink')  # the format is found out
    info = DatasetInfo.read(out)
    pixels = {split: np.zeros(256, int) for split in info.splits}
    for split, described in info.splits.items():
        files = sorted((data_sets / 'camvid/annotations' / split).iterdir())
        assert described.images == len(files) == len(list((out / described.img_prefix).iterdir()))
        for file in files:
            labels = labels_in(out, f'{split}/{file.name}')
            np.testing.assert_array_equal(labels, expected_labels(data_sets / 'camvid', f'{split}/{file.name}'))
            pixels[split] += np.bincount(labels.ravel(), minlength=256)
        assert list(described.counts.values()) == pixels[split][:11].tolist()
    assert 'ignored (label 255): Unlabelled' in finished.out
    print(f'CamVid: {sum(s.images for s in info.splits.values())} label maps equal, {pixels["train"].sum()} pixels')


def rgb(labels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.array(list(CAMVID_COLOURS.values()), np.uint8)[labels])


def with_palette(labels: np.ndarray) -> Image.Image:
    image = Image.fromarray(labels)
    image.putpalette(np.array(list(CAMVID_COLOURS.values()), np.uint8).ravel().tolist())
    return image


def other_ids(labels: np.ndarray) -> Image.Image:
    return Image.fromarray((labels.astype(np.uint16) + 7) * 40)  # beyond 255, in 16 bits


def colour_lines() -> str:
    return ''.join(f'{r} {g} {b}\t\t{name}\n' for name, (r, g, b) in CAMVID_COLOURS.items())


@pytest.mark.parametrize('name, paint, class_file, content', [
    ('rgb-masks', rgb, 'label_colors.txt', colour_lines()),
    ('rgb-masks', with_palette, None, colour_lines()),
    ('label-pngs', with_palette, 'classes.txt', ''.join(f'{name}\n' for name in CAMVID_COLOURS)),
    ('label-pngs', other_ids, 'classes.json', json.dumps({n: (i + 7) * 40 for i, n in enumerate(CAMVID_COLOURS)})),
], ids=['colours', 'colours of a palette', 'palette indices', '16-bit ids'])
@pytest.mark.parametrize('step', [24, pytest.param(1, marks=pytest.mark.slow)])
def test_camvid_in_another_coding_comes_back(name, paint, class_file, content, step, data_sets, tmp_path):
    source, out = tmp_path / 'source', tmp_path / 'out'
    names = camvid_copy(data_sets / 'camvid', source, step, paint)
    file = source / (class_file or 'list.txt')
    file.write_text(content)
    arguments = () if class_file else ('--from', name, '--classes', file)
    assert f'from {name}' in convert(source, out, '--link', 'hardlink', *arguments).out
    for mask in names:
        np.testing.assert_array_equal(labels_in(out, mask), expected_labels(data_sets / 'camvid', mask))
    if paint is rgb:
        assert DatasetInfo.read(out).palette == [list(colour) for colour in list(CAMVID_COLOURS.values())[:11]]
    print(f'CamVid as {name}: {len(names)} label maps equal')


def test_instances_with_classes_of_their_own(tmp_path):
    """Cityscapes ids (class * 1000 + number), and a map from file and id to a class."""
    ids = [np.kron(np.array([[0, 1001], [2000, 1002]]), np.ones((4, 4))).astype(np.uint16) for _ in range(4)]
    source = small_pairs(tmp_path / 'source', ids)
    (tmp_path / 'names.txt').write_text('1 car\n2 bus\n')
    convert(source, tmp_path / 'a', '--from', 'instance-masks', '--id-divisor', 1000, '--classes',
            tmp_path / 'names.txt')
    table = {str(i): {'1001': 'car', '2000': 'bus'} for i in range(4)}
    (tmp_path / 'map.json').write_text(json.dumps(table))
    finished = convert(source, tmp_path / 'b', '--from', 'instance-masks', '--class-map', tmp_path / 'map.json',
                       status=LOSSES)
    counts = [{name: sum(split.counts[name] for split in DatasetInfo.read(tmp_path / out).splits.values())
               for name in ('car', 'bus')} for out in 'ab']
    assert counts == [{'car': 8, 'bus': 4}, {'car': 4, 'bus': 4}]
    assert '4 x instance id without a class' in finished.out and 'id 1002' in finished.out


def test_images_of_several_formats_become_one(tmp_path):
    label = np.eye(8, dtype=np.uint8)
    source = small_pairs(tmp_path / 'source', [label] * 3, '.JPG')
    Image.fromarray(np.full((8, 8, 3), 7, np.uint8)).save(source / 'images/9.bmp')
    Image.fromarray(label).save(source / 'masks/9.png')
    out = tmp_path / 'out'
    finished = convert(source, out, '--from', 'label-pngs', '--classes', 'ground,line')
    assert DatasetInfo.read(out).img_suffix == '.png' and 'written as PNG' in finished.out
    for file in source.glob('images/*'):
        written = next(out.glob(f'images/*/{file.stem}.png'))
        np.testing.assert_array_equal(np.asarray(Image.open(written)), np.asarray(Image.open(file)))


def test_what_cannot_be_used_is_left_out_and_named(tmp_path):
    source = small_pairs(tmp_path / 'source', [np.eye(8, dtype=np.uint8)] * 6)
    (source / 'images/1.png').write_bytes(b'no image')
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(source / 'masks/2.png')
    (source / 'masks/3.png').unlink()
    finished = convert(source, tmp_path / 'out', '--from', 'label-pngs', '--classes', 'ground,line', status=LOSSES)
    for reason, name in [('image cannot be read', 'images/1.png'), ('label map of another size', 'images/2.png'),
                         ('image without a mask', 'images/3.png')]:
        line = next(line for line in finished.out.splitlines() if reason in line)
        assert line.startswith('left out: 1 x') and name in line
    assert sum(split.images for split in DatasetInfo.read(tmp_path / 'out').splits.values()) == 3


@pytest.mark.parametrize('arguments, expected', [
    (('--classes', 'ground'), 'id 1'),
    (('--classes', 'nowhere.txt'), 'nowhere.txt: no such file'),
    (('--classes', 'ground,line', '--ignore', 'sky'), '--ignore sky: no such class'),
    (('--classes', 'ground,line', '--masks', 'typo'), 'typo: no such folder'),
    (('--classes', 'ground,line', '--split', '1.5'), '--split 1.5'),
    ((), 'no class list'),
    (('--from', 'rgb-masks', '--classes', 'ground,line'), 'no colour for ground'),
    (('--from', 'instance-masks'), '--classes with one name'),
])
def test_mistake_is_one_sentence(arguments, expected, tmp_path):
    source = small_pairs(tmp_path / 'source', [np.eye(8, dtype=np.uint8)] * 3)
    finished = run_tool('convert_dataset', source, tmp_path / 'out', '--from', 'label-pngs', *arguments)
    assert expected in finished.error
    assert not (tmp_path / 'out').exists() and os.listdir(tmp_path) == ['source']


def test_folders_are_never_harmed(tmp_path):
    source = small_pairs(tmp_path / 'source', [np.eye(8, dtype=np.uint8)] * 3)
    arguments = ('--from', 'label-pngs', '--classes', 'ground,line')
    assert 'in one another' in run_tool('convert_dataset', source, source / 'out', *arguments).error
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/letter.txt').write_text('dear')
    finished = run_tool('convert_dataset', source, tmp_path / 'mine', *arguments, '--overwrite')
    assert 'no converted data set' in finished.error and (tmp_path / 'mine/letter.txt').read_text() == 'dear'
    convert('source', 'out', *arguments, cwd=tmp_path)
    assert '--overwrite' in run_tool('convert_dataset', source, tmp_path / 'out', *arguments).error
    convert(source, tmp_path / 'out', *arguments, '--overwrite')
    assert sorted(os.listdir(tmp_path)) == ['mine', 'out', 'source']
