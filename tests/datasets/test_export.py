"""Exports: there and back again, every box, mask and class is compared; outlines hold every pixel."""
import json

import format_samples
import numpy as np
import pytest
from convert_sources import LOSSES, convert
from format_samples import CLASSES, HEIGHT, SCENE, WIDTH
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from test_formats import check_scene, objects_in
from tool_runs import run_tool

from convnext_dense.datasets.export.outlines import decode, joined, polygons_of, rings, single_polygon


@pytest.fixture(scope='module')
def converted(tmp_path_factory):
    """The scene, as polygons and, from masks, as run lengths."""
    folder = tmp_path_factory.mktemp('scene')
    for sample, options in (('label_studio', ()), ('supervisely', ())):
        getattr(format_samples, sample)(folder / f'{sample} source')
        convert(folder / f'{sample} source', folder / sample, *options)
    return folder


@pytest.mark.parametrize('sample', ['label_studio', 'supervisely'])
@pytest.mark.parametrize('name', ['coco', 'yolo', 'voc', 'labelme'])
def test_there_and_back(name, sample, converted, tmp_path):
    printed = convert(converted / sample, tmp_path / 'out', '--to', name).out
    assert f'4 images with 6 objects as {name}' in printed and 'left out' not in printed
    assert ('6 masks are not written' in printed) == (name == 'voc')
    back = convert(tmp_path / 'out', tmp_path / 'back').out
    assert f'from {name}' in back
    assert check_scene(tmp_path / 'back', masks=name != 'voc', tolerance=1e-6) == 6
    splits = [{file.stem for file in (tmp_path / 'back' / split).iterdir()} for split in ('train', 'val')]
    assert splits == [{file.stem for file in (converted / sample / split).iterdir()} for split in ('train', 'val')]


def test_an_export_is_replaced_only_if_it_is_one(converted, tmp_path):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/labels.txt').write_text('dear')
    source = converted / 'label_studio'
    assert 'no export.json in it' in run_tool('convert_dataset', source, tmp_path / 'mine', '--to', 'labelme',
                                              '--overwrite').error
    convert(source, tmp_path / 'out', '--to', 'voc')
    assert '--overwrite' in run_tool('convert_dataset', source, tmp_path / 'out', '--to', 'voc').error
    convert(source, tmp_path / 'out', '--to', 'yolo', '--overwrite')
    assert not (tmp_path / 'out/Annotations').exists()


@pytest.mark.parametrize('data', ['generated', pytest.param('real_data', marks=pytest.mark.slow)])
@pytest.mark.parametrize('name', ['yolo', 'labelme'])
def test_masks_of_coco_come_back(name, data, request, tmp_path):
    """Polygons of one and of several parts; crowds cannot be marked, and are counted."""
    source = request.getfixturevalue(data) / 'coco/annotations/instances_val2017.json'
    before = COCO(source)
    crowds = sum(entry['iscrowd'] for entry in before.anns.values())
    printed = convert(source, tmp_path / 'out', '--to', name, '--link', 'symlink', status=LOSSES if crowds else 0).out
    assert f'left out: {crowds} x crowd region' in printed
    convert(tmp_path / 'out', tmp_path / 'back', '--link', 'symlink')
    found, differing, pixels, boxes = objects_in(tmp_path / 'back'), 0, 0, 0
    for image in before.imgs.values():
        expected = [entry for entry in before.imgToAnns[image['id']] if not entry['iscrowd']]
        for entry, (category, _, mask) in zip(expected, found[image['file_name'].removesuffix('.jpg')], strict=True):
            truth = before.annToMask(entry).astype(bool)
            assert category == before.cats[entry['category_id']]['name']
            differing, pixels, boxes = differing + (truth != mask).sum(), pixels + truth.sum(), boxes + 1
    print(f'COCO val through {name}: {boxes} objects, {differing} of {pixels} mask pixels differ')
    assert boxes > 30 and differing <= (2e-4 * pixels if name == 'yolo' else 0)  # YOLO divides by the image's size


def test_outlines_hold_every_pixel():
    """Random masks with parts, holes, diagonal neighbours and pixels at the border, filled by pycocotools."""
    rng = np.random.default_rng(0)
    for trial in range(200):
        height, width = rng.integers(1, 24, 2)
        mask = rng.random((height, width)) < rng.uniform(0.1, 0.9)
        if trial % 2:
            mask = np.kron(mask, np.ones((3, 2), bool))
        if not mask.any():
            continue
        outer, holes = rings(mask)
        polygon = joined([*outer, *holes]).ravel().tolist()
        size = mask.shape[::-1]
        np.testing.assert_array_equal(decode([polygon], size), mask)
        encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
        segmentation = {'size': list(mask.shape), 'counts': encoded['counts'].decode()}
        np.testing.assert_array_equal(decode(segmentation, size), mask)
        assert single_polygon(segmentation, size) == polygon
        parts, has_holes = polygons_of(segmentation, size)
        assert has_holes == bool(holes)
        if not holes:
            np.testing.assert_array_equal(decode(parts, size), mask)


def test_holes_come_back_in_labelme(tmp_path):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[5:25, 5:30] = True
    mask[8:12, 9:20] = mask[20:22, 25:28] = False
    encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    content = format_samples.coco_content()
    content['annotations'] = [{'id': 1, 'image_id': n, 'category_id': 1, 'bbox': [5, 5, 25, 20], 'iscrowd': 0,
                               'area': int(mask.sum()), 'segmentation': {'size': [HEIGHT, WIDTH],
                                                                         'counts': encoded['counts'].decode()}}
                              for n in range(4)]
    format_samples.write_images(tmp_path / 'source/images')
    format_samples.write_json(tmp_path / 'source/all.json', content)
    for name in ('labelme', 'yolo'):
        convert(tmp_path / 'source', tmp_path / name, '--to', name)
        convert(tmp_path / name, tmp_path / f'{name} back')
        found = objects_in(tmp_path / f'{name} back')
        assert len(found) == 4
        for (_, box, back), in found.values():
            np.testing.assert_array_equal(back, mask)
            np.testing.assert_allclose(box, [5, 5, 25, 20], atol=1e-6)


def test_what_a_format_cannot_hold_is_counted(tmp_path):
    content = format_samples.coco_content()
    crowd, off, damaged, boxless = content['annotations'][:4]
    crowd['iscrowd'], off['bbox'], off['segmentation'] = 1, [WIDTH + 5, 2, 4, 4], []
    damaged['segmentation'] = [[1, 2, 3]]
    del boxless['bbox']
    format_samples.write_images(tmp_path / 'source/images')
    format_samples.write_json(tmp_path / 'source/all.json', content)
    printed = convert(tmp_path / 'source', tmp_path / 'out', '--to', 'voc', status=LOSSES).out
    for reason in ('crowd region', 'box outside its image', 'object with a damaged mask', 'object without a box of'):
        assert f'left out: 1 x {reason}' in printed, printed
    assert 'for segmentation' in run_tool('convert_dataset', segmentation_set(tmp_path / 'seg'), tmp_path / 'o', '--to',
                                          'yolo', '--from', 'label-pngs', '--classes', 'a,b').error


def segmentation_set(folder):
    for kind in ('images', 'masks'):
        format_samples.write_images(folder / kind)
    for file in (folder / 'masks').iterdir():
        Image.fromarray(np.eye(HEIGHT, WIDTH, dtype=np.uint8)).save(file)
    return folder


@pytest.mark.parametrize('name', ['labelme', 'coco', 'yolo'])
def test_predictions_become_annotations_to_correct(name, tmp_path):
    """As `predict` writes them: paths as given to it, run lengths, scores."""
    format_samples.write_images(tmp_path / 'photos/set 1')
    content = format_samples.coco_content(str(tmp_path / 'photos/set 1/{}.png'))
    for image in content['images'][::2]:
        image['file_name'] = image['file_name'].removeprefix(f'{tmp_path}/')  # predict was called there
    for number, entry in enumerate(content['annotations']):
        encoded = coco_mask.frPyObjects(entry['segmentation'], HEIGHT, WIDTH)[0]
        entry['segmentation'] = {'size': [HEIGHT, WIDTH], 'counts': encoded['counts'].decode()}
        entry['score'] = 0.4 if number == 0 else 0.75
    for number, category in enumerate(content['categories']):
        category['color'] = [number, 0, 0]
    format_samples.write_json(tmp_path / 'results/predictions.json', content)
    arguments = (tmp_path / 'results', tmp_path / 'out')
    assert 'name their folder with --images' in run_tool('convert_dataset', *arguments).error
    arguments = (*arguments, '--images', tmp_path / 'photos')
    assert 'for a labelling tool with --to' in run_tool('convert_dataset', *arguments).error
    printed = convert(*arguments, '--to', name, '--min-score', 0.5).out
    assert f'4 images with 5 objects as {name}' in printed
    if name == 'labelme':
        shapes = json.loads((tmp_path / 'out/a b.json').read_text())['shapes']
        assert [shape['description'] for shape in shapes] == ['score 0.750'] * 2
    convert(tmp_path / 'out', tmp_path / 'back')
    found = objects_in(tmp_path / 'back')
    assert sorted(found) == sorted(SCENE)
    for stem, things in SCENE.items():
        kept = things[1:] if stem == 'a b' else things
        for thing, (category, box, mask) in zip(kept, found[stem], strict=True):
            assert category == thing.name in CLASSES
            np.testing.assert_allclose(box, thing.box, atol=1e-6)
            np.testing.assert_array_equal(mask, thing.mask)
