"""Every format: a small scene is written as its tool writes it, converted, and every box, mask and class compared."""
import json
import time
from pathlib import Path

import format_samples
import numpy as np
import pytest
from convert_sources import LOSSES, convert
from format_samples import CLASSES, HEIGHT, SCENE, WIDTH, write_images, write_json
from PIL import Image
from pycocotools.coco import COCO
from tool_runs import run_tool

from convnext_dense.datasets.convert.xml_files import read_xml
from convnext_dense.datasets.layout import DatasetInfo
from convnext_dense.errors import UserError

FORMATS = {  # the function that writes it -> the format's name, options, whether all masks come back
    'voc': ('voc', (), False), 'labelme': ('labelme', (), True), 'cvat': ('cvat', (), True),
    'supervisely': ('supervisely', (), True), 'label_studio': ('coco', (), True), 'cvat_coco': ('coco', (), True),
    'roboflow': ('coco', (), True), 'yolo': ('yolo', ('--classes', 'CLASSES'), True),
    'dsb2018': ('object-masks', ('--classes', 'thing'), True), 'cellpose': ('cellpose', ('--classes', 'thing'), True)}


def objects_in(out: Path) -> dict[str, list[tuple]]:
    """Stem of an image -> (class, box, mask or None) of its objects."""
    info, found = DatasetInfo.read(out), {}
    for split in info.splits.values():
        coco = COCO(out / split.ann_file)
        for image in coco.imgs.values():
            assert (out / split.img_prefix / image['file_name']).is_file()
            found[Path(image['file_name']).stem] = [
                (coco.cats[entry['category_id']]['name'], entry['bbox'],
                 coco.annToMask(entry).astype(bool) if entry.get('segmentation') else None)
                for entry in coco.imgToAnns[image['id']]]
    return found


def check_scene(out: Path, masks: bool = True, single: str | None = None, tolerance: float = 1e-9) -> int:
    """Compare a converted data set with the scene; returns the number of objects."""
    found, count = objects_in(out), 0
    assert sorted(found) == sorted(SCENE)
    for stem, things in SCENE.items():
        expected = sorted(things, key=lambda thing: thing.box)
        for thing, (name, box, mask) in zip(expected, sorted(found[stem], key=lambda entry: entry[1]), strict=True):
            assert name == (single or thing.name)
            np.testing.assert_allclose(box, thing.box, atol=tolerance)
            if masks:
                np.testing.assert_array_equal(mask, thing.mask, err_msg=f'{stem}, {thing}')
            else:
                assert mask is None
            count += 1
    return count


@pytest.fixture
def class_list(tmp_path) -> Path:
    file = tmp_path / 'names.txt'
    file.write_text('\n'.join(CLASSES), encoding='utf-8')
    return file


@pytest.mark.parametrize('sample', FORMATS)
def test_every_box_mask_and_class_comes_through(sample, class_list, tmp_path):
    """The format is recognised, and nothing is left out."""
    name, options, masks = FORMATS[sample]
    getattr(format_samples, sample)(tmp_path / 'source')
    options = [class_list if option == 'CLASSES' else option for option in options]
    printed = convert(tmp_path / 'source', tmp_path / 'out', *options).out
    assert f'from {name}' in printed
    count = check_scene(tmp_path / 'out', masks, 'thing' if 'thing' in options else None, 1e-6)
    assert count == sum(map(len, SCENE.values())) == 6 and DatasetInfo.read(tmp_path / 'out').has_masks is masks
    if sample in ('cvat', 'supervisely', 'label_studio', 'cvat_coco', 'roboflow', 'yolo'):
        assert DatasetInfo.read(tmp_path / 'out').classes == CLASSES
    if sample == 'roboflow':
        assert "the category 'animals' stands above all others" in printed
        assert [split.images for split in DatasetInfo.read(tmp_path / 'out').splits.values()] == [3, 1]


def test_corners_of_voc_from_zero(tmp_path):
    """One corner at 0 says that the tool counts from 0, without the last pixel."""
    format_samples.voc(tmp_path / 'source', offset=0)
    file = tmp_path / 'source/Annotations/last.xml'
    file.write_text(file.read_text().replace('<xmin>30<', '<xmin>0<'))
    assert 'read as counted from 0' in convert(tmp_path / 'source', tmp_path / 'out').out
    found = objects_in(tmp_path / 'out')
    assert found['last'][0][1] == [0, 20, 40, 10] and found['Zoë'][0][1] == [1, 1, 1, 1]


def test_splits_of_voc(tmp_path):
    format_samples.voc(tmp_path / 'source')
    for split, stems in (('train', ['Zoë', 'empty']), ('val', ['last']), ('test', ['a b'])):
        write_text(tmp_path / f'source/ImageSets/Main/{split}.txt', '\r\n'.join(stems))
    printed = convert(tmp_path / 'source', tmp_path / 'out').out  # leaving out a test split is status 0
    assert 'left out: 1 x image of a test split' in printed
    for split, stems in (('train', ['Zoë', 'empty']), ('val', ['last'])):
        assert sorted(file.stem for file in (tmp_path / 'out' / split).iterdir()) == stems


def write_text(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding='utf-8')


# ---- Cityscapes

def cityscapes(folder: Path) -> dict[str, np.ndarray]:
    """Three images of two cities; label ids with road (7), car (26), a group of people (24), ego vehicle (1)."""
    labels = {}
    for number, (split, city) in enumerate((('train', 'aachen'), ('train', 'bochum'), ('val', 'ulm'), ('test', 'x'))):
        stem = f'{city}_00000{number}_000019'
        place = folder / f'leftImg8bit/{split}/{city}'
        place.mkdir(parents=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (20, 30, 3), np.uint8)).save(
            place / f'{stem}_leftImg8bit.png')
        ids = np.full((20, 30), 7, np.uint8)
        ids[15:], ids[2:6, 3:9], ids[2:6, 12:20], ids[9:12, :5] = 1, 26, 26, 24
        instances = ids.astype(np.uint16)
        instances[2:6, 3:9], instances[2:6, 12:20] = 26000, 26001
        place = folder / f'gtFine/{split}/{city}'
        place.mkdir(parents=True)
        Image.fromarray(ids).save(place / f'{stem}_gtFine_labelIds.png')
        Image.fromarray(instances).save(place / f'{stem}_gtFine_instanceIds.png')
        labels[stem] = ids
    return labels


def test_cityscapes_labels_and_instances(tmp_path):
    labels = cityscapes(tmp_path / 'source')
    assert 'may be cityscapes or cityscapes-instances' in run_tool(
        'convert_dataset', tmp_path / 'source', tmp_path / 'out').error
    convert(tmp_path / 'source', tmp_path / 'out', '--from', 'cityscapes')
    info = DatasetInfo.read(tmp_path / 'out')
    assert len(info.classes) == 19 and info.classes[0] == 'road' and info.classes[13] == 'car'
    files = sorted((tmp_path / 'out').glob('annotations/*/*.png'))
    for file in files:
        expected = {7: 0, 26: 13, 24: 11, 1: 255}
        ids = labels[file.stem.removesuffix('_leftImg8bit')]
        np.testing.assert_array_equal(np.asarray(Image.open(file)), np.vectorize(expected.get)(ids))
    assert [file.parent.name for file in files] == ['train', 'train', 'val']
    convert(tmp_path / 'source', tmp_path / 'objects', '--from', 'cityscapes-instances')
    found = objects_in(tmp_path / 'objects')
    assert len(found) == 3 and DatasetInfo.read(tmp_path / 'objects').classes[:3] == ['person', 'rider', 'car']
    for entries in found.values():
        assert sorted((name, box) for name, box, _ in entries) == [
            ('car', [3, 2, 6, 4]), ('car', [12, 2, 8, 4]), ('person', [0, 9, 5, 3])]
    coco = COCO(tmp_path / 'objects/annotations/instances_val.json')
    assert sorted(entry['iscrowd'] for entry in coco.anns.values()) == [0, 0, 1]


# ---- GeoTIFF

@pytest.mark.parametrize('dtype, range_', [(np.uint8, None), (np.uint16, (100, 9000))])
def test_geotiffs_are_plain_images(dtype, range_, tmp_path):
    write_json(tmp_path / 'source/result.json', format_samples.coco_content('{}.tif'))
    for number, stem in enumerate(SCENE):
        pixels = np.random.default_rng(number).integers(100, 200, (HEIGHT, WIDTH)).astype(dtype)
        Image.fromarray(pixels).save(tmp_path / f'source/{stem}.tif', tiffinfo={
            33550: (0.5, 0.5, 0.0), 33922: (0.0, 0.0, 0.0, 7.0, 51.0, 0.0), 42113: '-9999'})
    options = ('--value-range', '100,9000') if range_ else ()
    convert(tmp_path / 'source', tmp_path / 'out', *options)
    check_scene(tmp_path / 'out')
    assert DatasetInfo.read(tmp_path / 'out').value_range == (list(range_) if range_ else None)


# ---- what is wrong

def test_a_format_that_is_not_known_is_described(tmp_path):
    write_images(tmp_path / 'source/photos')
    write_text(tmp_path / 'source/labels.geojson', '{}')
    error = run_tool('convert_dataset', tmp_path / 'source', tmp_path / 'out').error
    assert 'it has 4 .png, 1 .geojson files and the folders photos' in error


BOMB = '<!DOCTYPE a [<!ENTITY a "xxxxxxxxxx">' + ''.join(
    f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9)) + ']>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize('head, entity', [(BOMB, '&j;'), (OUTSIDE, '&x;')])
def test_entities_are_refused_before_they_grow(head, entity, tmp_path):
    write_images(tmp_path / 'source')
    start = time.process_time()
    for form, text in (('voc', f'<annotation><filename>{entity}</filename></annotation>'),
                       ('cvat', f'<annotations><image name="last.png">{entity}</image></annotations>')):
        write_text(tmp_path / 'source/a.xml', head + text)
        error = run_tool('convert_dataset', tmp_path / 'source', tmp_path / 'out', '--from', form).error
        assert 'declares the XML entity' in error and 'root:' not in error
    assert time.process_time() - start < 5


@pytest.mark.parametrize('text', ['', '<annotation>', '<a></b>', 'no xml', '<a>' * 100 + '</a>' * 100,
                                  '<?xml version="1.0" encoding="nothing"?><a/>', '<a>\0</a>'])
def test_broken_xml_is_one_sentence(text, tmp_path):
    write_text(tmp_path / 'a.xml', text)
    with pytest.raises(UserError, match='a.xml (cannot be read as XML|is nested more than)'):
        read_xml(tmp_path / 'a.xml')


def test_xml_in_other_encodings(tmp_path):
    for encoding in ('utf-8-sig', 'utf-16', 'latin-1'):
        head = f'<?xml version="1.0" encoding="{encoding.removesuffix("-sig")}"?>'
        (tmp_path / 'a.xml').write_bytes(f'{head}\r\n<a>Zoë</a>'.encode(encoding))
        assert read_xml(tmp_path / 'a.xml').text == 'Zoë'


def test_what_is_wrong_in_voc_is_left_out_and_named(tmp_path):
    format_samples.voc(tmp_path / 'source')
    folder = tmp_path / 'source/Annotations'
    (tmp_path / 'source/JPEGImages/last.png').unlink()
    text = (folder / 'a b.xml').read_text().replace('<xmin>3<', '<xmin>nan<', 1).replace('<xmax>26<', '<xmax>1<')
    (folder / 'a b.xml').write_text(text)
    text = (folder / 'Zoë.xml').read_text().replace(f'<width>{WIDTH}<', '<width>80<')
    (folder / 'Zoë.xml').write_text(text)
    write_text(folder / 'broken.xml', '<annotation>')
    printed = convert(tmp_path / 'source', tmp_path / 'out', status=LOSSES).out
    for reason in ('1 x image does not exist', '3 x object of an image that was left out',
                   '1 x annotation file that cannot be read', '1 x object without four numbers', '1 x box without area',
                   f'1 x annotation for an image of another size, as 80x{HEIGHT} instead of {WIDTH}x{HEIGHT}'):
        assert f'left out: {reason}' in printed, reason
    assert [len(found) for found in objects_in(tmp_path / 'out').values()] == [1, 0]


def test_what_is_wrong_in_labelme_is_left_out_and_named(tmp_path):
    format_samples.labelme(tmp_path / 'source')
    content = json.loads((tmp_path / 'source/last.json').read_text())
    good = content['shapes'][0]
    content['shapes'] = [good, {**good, 'shape_type': 'line', 'points': [[1, 1], [2, 2]]}, {**good, 'mask': 'aaaa'},
                         {**good, 'label': 3}, {**good, 'points': [['x', 1]]}, 7,
                         {'label': 'cat', 'shape_type': 'polygon', 'points': [[1, 1], [5, 1]]},
                         {'label': 'cat', 'shape_type': 'polygon', 'points': [[-50, -50], [90, -50], [90, 5]]},
                         {'label': 'cat', 'shape_type': 'circle', 'points': [[10, 10], [13, 14]]}]
    write_json(tmp_path / 'source/last.json', content)
    printed = convert(tmp_path / 'source', tmp_path / 'out', status=LOSSES).out
    for reason in ("1 x shape without an area ('line')", '1 x mask that is no PNG', '3 x shape without a label and',
                   '1 x polygon with fewer than three points'):
        assert f'left out: {reason}' in printed, printed
    circle, = [entry for entry in objects_in(tmp_path / 'out')['last'] if entry[1][2] == pytest.approx(10)
               and entry[1][0] == pytest.approx(5)]
    assert circle[2].sum() == pytest.approx(np.pi * 25, rel=0.05)
    assert any(entry[1][0] == -50 for entry in objects_in(tmp_path / 'out')['last'])  # the checker's box-outside


def test_names_cannot_leave_the_folder(tmp_path):
    write_images(tmp_path)
    for form in ('voc', 'labelme', 'cvat', 'supervisely'):
        source = tmp_path / form
        getattr(format_samples, form)(source)
        for file in [*source.rglob('*.xml'), *source.rglob('*.json')]:
            text = file.read_text(encoding='utf-8').replace('..\\\\photos\\\\', '../').replace('sub dir/', '../../')
            file.write_text(text.replace('<filename>', '<filename>../../'), encoding='utf-8')
        finished = run_tool('convert_dataset', source, tmp_path / f'{form} out')
        assert finished.code == 0 or 'image does not exist' in finished.error
        for image in (tmp_path / f'{form} out').rglob('*.png'):  # not those of the folder above
            assert image.read_bytes() in {file.read_bytes() for file in source.rglob('*.png')}


def test_the_same_name_in_two_folders(tmp_path):
    """Each annotation keeps its own image."""
    for number, folder in enumerate(('train', 'val')):
        format_samples.labelme(tmp_path / f'source/{folder}')
        for stem in SCENE:
            Image.fromarray(np.full((HEIGHT, WIDTH, 3), 100 * number, np.uint8)).save(
                tmp_path / f'source/{folder}/{stem}.png')
    convert(tmp_path / 'source', tmp_path / 'out')
    for number, split in enumerate(('train', 'val')):
        files = list((tmp_path / 'out' / split).glob('*.png'))
        assert len(files) == 4 and all(np.asarray(Image.open(file)).max() == 100 * number for file in files)


def test_windows_paths_take_the_longest_end(tmp_path):
    for folder, value in (('a', 1), ('b', 2)):
        (tmp_path / f'source/images/{folder}').mkdir(parents=True)
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), value, np.uint8)).save(tmp_path / f'source/images/{folder}/1.png')
    write_json(tmp_path / 'source/all.json', {
        'images': [{'id': n, 'file_name': f'D:\\x\\images\\{folder}\\1.png'} for n, folder in enumerate('ab')],
        'annotations': [{'id': n, 'image_id': n, 'category_id': 1, 'bbox': [n, n, 5, 5], 'area': 25, 'iscrowd': 0}
                        for n in range(2)], 'categories': [{'id': 1, 'name': 'thing'}]})
    convert(tmp_path / 'source', tmp_path / 'out')
    for split in ('train', 'val'):
        coco = COCO(tmp_path / f'out/annotations/instances_{split}.json')
        image, = coco.imgs.values()
        value = np.asarray(Image.open(tmp_path / f'out/{split}/{image["file_name"]}')).max()
        assert coco.imgToAnns[image['id']][0]['bbox'][0] == value - 1


def test_thing_masks_are_their_polygons():
    """The scene itself: outline and mask of every object agree, by crossing the upright edges from left to right."""
    for thing in (thing for things in SCENE.values() for thing in things):
        inside = np.zeros((HEIGHT, WIDTH), bool)
        corners = thing.points
        for (x, y1), (_, y2) in zip(corners, corners[1:] + corners[:1], strict=True):
            for row in range(HEIGHT):
                if min(y1, y2) <= row < max(y1, y2):
                    inside[row, x:] ^= True
        np.testing.assert_array_equal(inside, thing.mask)

