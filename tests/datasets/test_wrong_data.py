"""Data that used to be read wrongly without a word: recognised, and either read rightly or refused in a sentence."""
import json
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from convert_sources import LOSSES, convert, small_pairs
from PIL import Image, ImageOps
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from tool_runs import run_tool

from convnext_dense.datasets.checks.files import read_facts
from convnext_dense.datasets.layout import DatasetInfo
from convnext_dense.errors import UserError
from convnext_dense.utils.image_values import check_values, read_bgr, to_8_bits
from convnext_dense.utils.images import read_header
from convnext_dense.visualization.draw import read_image

NOISE = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)


def coco(folder: Path, boxes: list, images: int = 2, **changed) -> Path:
    """A COCO folder whose images have every box of `boxes`; images are 16 x 12."""
    (folder / 'images').mkdir(parents=True)
    for number in range(1, images + 1):
        Image.fromarray(NOISE // number).save(folder / f'images/{number}.png')
    content = {
        'images': [{'id': n, 'file_name': f'{n}.png', 'width': 16, 'height': 12} for n in range(1, images + 1)],
        'annotations': [{'id': 100 * n + i, 'image_id': n, 'category_id': 1, 'bbox': list(box), 'iscrowd': 0,
                         'area': box[2] * box[3], 'segmentation': []}
                        for n in range(1, images + 1) for i, box in enumerate(boxes)],
        'categories': [{'id': 1, 'name': 'thing'}], **changed}
    (folder / 'all.json').write_text(json.dumps(content))
    return folder


def boxes_in(out: Path) -> list:
    return sorted(annotation['bbox'] for split in DatasetInfo.read(out).splits.values()
                  for annotation in COCO(out / split.ann_file).anns.values())


def annotations_of(out: Path) -> list[dict]:
    return [annotation for split in DatasetInfo.read(out).splits.values()
            for annotation in COCO(out / split.ann_file).anns.values()]


# ---- more than 8 bits a value

DEEP = {  # name -> (values, suffix)
    '16-bit grey png': (np.arange(192, dtype=np.uint16).reshape(12, 16) * 21, '.png'),
    '16-bit colour png': (NOISE.astype(np.uint16) * 16, '.png'),
    '16-bit grey tif': (np.arange(192, dtype=np.uint16).reshape(12, 16) * 340, '.tif'),
    '16-bit colour tif': (NOISE.astype(np.uint16) * 257, '.tif'),
    'float tif': (np.linspace(-1, 3, 192, dtype=np.float32).reshape(12, 16), '.tif'),
    'float colour tif': (NOISE.astype(np.float32) / 7, '.tif')}


def write_deep(file: Path, values: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), values)  # OpenCV writes blue first, and reads it so


@pytest.mark.parametrize('name', DEEP)
def test_deep_images_are_mapped_as_stated(name, tmp_path):
    values, suffix = DEEP[name]
    file = tmp_path / f'a{suffix}'
    write_deep(file, values)
    assert read_header(file).values == values.dtype.name
    with pytest.raises(UserError, match=f'type {values.dtype.name}, and no range'):
        read_image(file)
    low, high = float(values.min()), float(values.max())
    found = read_bgr(file.read_bytes(), file, (low, high))
    for place in np.ndindex(12, 16, 3):  # by hand, one value after another
        value = float(values[place] if values.ndim == 3 else values[place[:2]])
        assert found[place] == round((value - low) / (high - low) * 255) or abs(
            (value - low) / (high - low) * 255 % 1 - 0.5) < 1e-4
    assert np.array_equal(read_image(file, (low, high)), found[..., ::-1])


def test_values_outside_the_range_are_clipped_and_nan_is_0():
    values = np.array([-np.inf, -5, 0, 5, 10, 99, np.inf, np.nan])
    assert to_8_bits(values, (0, 10)).tolist() == [0, 0, 0, 128, 255, 255, 255, 0]


@pytest.mark.parametrize('how, expected', [('full', (0, 4000)), ('100,3000', (100, 3000)), ('percentiles', None)])
def test_the_converter_measures_one_range_for_the_set(how, expected, tmp_path):
    """In dataset.json, the project's config, the pipeline, the checker and the Predictor's reader: the same one."""
    source = coco(tmp_path / 'source', [(1, 1, 4, 4), (8, 2, 5, 6)], images=4)
    rng = np.random.default_rng(1)
    values = [rng.integers(200, 1500, (12, 16)).astype(np.uint16) for _ in range(4)]
    values[0][0, 0], values[3][5, 5] = 0, 4000
    for number, image in enumerate(values, 1):
        write_deep(source / f'images/{number}.png', image)
    out = tmp_path / 'out'
    printed = convert(source, out, '--value-range', how).out
    if expected is None:
        expected = np.percentile(np.repeat(np.stack(values)[..., None], 3, -1), (0.1, 99.9))
    info = DatasetInfo.read(out)
    assert info.value_range == pytest.approx(expected)
    assert f'uint16 values: {info.value_range[0]:g} to {info.value_range[1]:g}' in printed
    assert run_tool('check_dataset', out, '--workers', 0).code == 0
    must_say = run_tool('check_dataset', source, '--workers', 0)
    assert must_say.code == 4 and 'image-depth (4)' in must_say.out
    text = project_text(info, tmp_path)
    assert text.count("type='LoadImageWithRange', value_range=(") == 2 and 'LoadImageFromFile' not in text
    loaded = load_in_pipeline(out / 'train', info)
    for file, image in loaded.items():
        stored = cv2.imread(str(file), cv2.IMREAD_UNCHANGED).astype(float)
        low, high = expected
        assert np.array_equal(image[..., 0], np.clip(np.rint((stored - low) / (high - low) * 255), 0, 255))


def project_text(info: DatasetInfo, root: Path) -> str:
    from convnext_dense.projects.plan import Plan
    from convnext_dense.projects.render import render
    return render(Plan('det', info, root, 'atto', 'random', 64, 2, 1, 0), root / 'run')


def load_in_pipeline(folder: Path, info: DatasetInfo) -> dict[Path, np.ndarray]:
    from mmdet.registry import TRANSFORMS as DET
    from mmseg.registry import TRANSFORMS as SEG
    described = dict(type='LoadImageWithRange', value_range=info.value_range)
    found = {}
    for file in sorted(folder.iterdir()):
        images = [registry.build(described)(dict(img_path=str(file)))['img'] for registry in (DET, SEG)]
        assert np.array_equal(*images)
        found[file] = images[0]
    return found


def test_images_of_two_types_are_refused(tmp_path):
    source = coco(tmp_path / 'source', [(1, 1, 4, 4)])
    write_deep(source / 'images/1.png', np.zeros((12, 16), np.uint16))
    content = json.loads((source / 'all.json').read_text())
    content['images'][1]['file_name'] = '2.tif'
    (source / 'all.json').write_text(json.dumps(content))
    write_deep(source / 'images/2.tif', np.zeros((12, 16), np.float32))
    assert 'bring all images to one type' in run_tool('convert_dataset', source, tmp_path / 'out').error
    content['images'][1]['file_name'] = '1.png'
    (source / 'all.json').write_text(json.dumps(content))
    for text, expected in (('7', 'expected percentiles, full, or two numbers'), ('7,3', 'the lower value first'),
                           ('full', 'are 0: give the range with')):
        assert expected in run_tool('convert_dataset', source, tmp_path / 'out', '--value-range', text).error


def test_pages_of_a_tiff_are_never_dropped_in_silence(tmp_path):
    source = coco(tmp_path / 'source', [(1, 1, 4, 4)], images=3)
    pages = [Image.fromarray(NOISE // n) for n in (1, 2, 3)]
    pages[0].save(source / 'images/1.png', 'TIFF', save_all=True, append_images=pages[1:])
    printed = convert(source, tmp_path / 'out', status=LOSSES).out
    assert 'left out: 1 x image with 3 pages, of which only the first would be read' in printed
    assert 'left out: 1 x object of an image that was left out' in printed
    with pytest.raises(UserError, match='has 3 pages'):
        read_image(source / 'images/1.png')


def test_reduced_copies_in_a_geotiff_are_no_pages(tmp_path):
    """A cloud-optimised GeoTIFF has smaller copies of itself behind the image."""
    pages = [Image.fromarray(NOISE), Image.fromarray(NOISE[::2, ::2])]
    pages[1].encoderinfo = {'tiffinfo': {254: 1}}
    info = {33550: (0.5, 0.5, 0.0), 33922: (0.0, 0.0, 0.0, 7.0, 51.0, 0.0)}  # ModelPixelScale, ModelTiepoint
    pages[0].save(tmp_path / 'a.tif', save_all=True, append_images=pages[1:], tiffinfo=info)
    assert read_header(tmp_path / 'a.tif').pages == 1 and check_values(tmp_path / 'a.tif').width == 16
    assert np.array_equal(read_image(tmp_path / 'a.tif'), NOISE)


@pytest.mark.parametrize('channels, dtype', [(5, np.uint8), (6, np.uint16), (2, np.uint8)])
def test_bands_beyond_four_are_never_dropped_in_silence(channels, dtype, tmp_path):
    """A TIFF written by hand, since neither PIL nor OpenCV writes such ones: header, tags, pixels."""
    pixels = np.ones((4, 4, channels), dtype)
    tags = [(256, 4, 4), (257, 4, 4), (258, 3, 8 * pixels.itemsize), (259, 3, 1), (262, 3, 1), (273, 4, 200),
            (277, 3, channels), (278, 4, 4), (279, 4, pixels.nbytes)]
    head = struct.pack('<4sIH', b'II*\0', 8, len(tags)) + b''.join(
        struct.pack('<HHII', number, kind, 1, value) for number, kind, value in tags) + bytes(4)
    (tmp_path / 'a.tif').write_bytes(head.ljust(200, b'\0') + pixels.tobytes())
    with pytest.raises(UserError, match=f'has {channels} channels, expected 1, 3 or 4'):
        read_image(tmp_path / 'a.tif', (0, 2))
    assert read_facts((str(tmp_path / 'a.tif'), False)).problem == 'unreadable'


# ---- masks

def blobs(value: int) -> np.ndarray:
    mask = np.zeros((12, 16), np.uint8)
    mask[1:4, 1:4] = mask[6:10, 2:7] = mask[2:9, 10:14] = value
    return mask


@pytest.mark.parametrize('value', [255, 1])
def test_binary_masks_are_asked_about_and_divided(value, tmp_path):
    source = small_pairs(tmp_path / 'source', [blobs(value)] * 4)
    arguments = (source, tmp_path / 'out', '--from', 'instance-masks', '--classes', 'cell')
    asked = convert(*arguments, status=LOSSES).out
    assert 'question: ' in asked and 'has 3)' in asked and '--components' in asked
    printed = convert(*arguments, '--components', '--overwrite').out
    assert 'objects per image: 3 to 3, median 3' in printed and 'question' not in printed
    expected = [(1, 1, 3, 3), (2, 6, 5, 4), (10, 2, 4, 7)]
    assert boxes_in(tmp_path / 'out') == sorted(map(list, expected * 4))


def test_one_object_everywhere_is_asked_about(tmp_path):
    assert 'question: every image has exactly one object' in convert(
        coco(tmp_path / 'source', [(1, 1, 4, 4)]), tmp_path / 'out').out


def test_objects_with_the_ignored_value_are_refused(tmp_path):
    source = small_pairs(tmp_path / 'source', [blobs(255)] * 3)
    arguments = (source, tmp_path / 'out', '--from', 'label-pngs', '--classes')
    for classes in ('background,cell', 'cell'):
        assert 'values 0 and 255 only, and 255 is ignored' in run_tool('convert_dataset', *arguments, classes).error
    (tmp_path / 'classes.txt').write_text('0 background\n255 cell\n')
    printed = convert(*arguments, tmp_path / 'classes.txt').out
    info = DatasetInfo.read(tmp_path / 'out')
    assert sum(split.counts['cell'] for split in info.splits.values()) == 3 * (9 + 20 + 28)
    assert 'ignored pixels: 0 (0.0% of all)' in printed


def test_ignored_pixels_are_counted(tmp_path):
    labels = blobs(1)
    labels[0] = 255
    source = small_pairs(tmp_path / 'source', [labels] * 2)
    assert f'ignored pixels: 32 ({32 / 384:.1%} of all)' in convert(
        source, tmp_path / 'out', '--from', 'label-pngs', '--classes', 'ground,cell').out


def test_swapped_folders_are_refused(tmp_path):
    source = small_pairs(tmp_path / 'source', [blobs(n) for n in (1, 2)])
    for file in (source / 'images').iterdir():
        Image.fromarray(NOISE).save(file)
    (tmp_path / 'colours.txt').write_text('cell 1 2 3\n')
    for form, classes in (('instance-masks', 'cell'), ('label-pngs', 'cell'), ('rgb-masks', tmp_path / 'colours.txt')):
        assert 'seem to be swapped' in run_tool(
            'convert_dataset', source, tmp_path / 'out', '--from', form, '--classes', classes, '--images', 'masks',
            '--masks', 'images').error
    convert(source, tmp_path / 'out', '--from', 'instance-masks', '--classes', 'cell')


def test_a_file_that_is_its_own_mask_is_refused(tmp_path):
    source = small_pairs(tmp_path / 'source', [blobs(1)] * 2)
    error = run_tool('convert_dataset', source, tmp_path / 'out', '--from', 'instance-masks', '--classes', 'cell',
                     '--images', 'images', '--masks', 'images').error
    assert 'is its own mask' in error and '--masks' in error


def test_jpeg_masks_hold_two_values_or_are_refused(tmp_path):
    """The compression invents values: three ids became 89 objects an image."""
    ids = np.zeros((60, 80), np.uint8)
    for number in range(3):
        ids[5 + 15 * number:15 + 15 * number, 10:30] = number + 1
    source = tmp_path / 'source'
    for name in ('images', 'masks'):
        (source / name).mkdir(parents=True)
    for number in range(2):
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (60, 80, 3), np.uint8)).save(
            source / f'images/{number}.png')
        Image.fromarray(ids * 60).save(source / f'masks/{number}.jpg', quality=60)
    arguments = ('convert_dataset', source, tmp_path / 'out', '--from', 'instance-masks', '--classes', 'cell')
    error = run_tool(*arguments).error
    assert 'masks/0.jpg is a JPEG with values other than 0 and 255' in error and 'as PNG' in error
    for number in range(2):  # red on black has two values in its first channel
        red = np.stack([np.where(ids, 255, 0), 0 * ids, 0 * ids], 2).astype(np.uint8)
        Image.fromarray(red).save(source / f'masks/{number}.jpg', quality=60)
    assert 'masks/0.jpg has colours' in run_tool(*arguments).error
    for number in range(2):
        mode = 'RGB' if number else 'L'
        Image.fromarray(np.where(ids, 255, 0).astype(np.uint8)).convert(mode).save(
            source / f'masks/{number}.jpg', quality=60)
    convert(*arguments[1:], '--components')
    for annotation in annotations_of(tmp_path / 'out'):
        mask = coco_mask.decode(annotation['segmentation'])
        assert (mask != 0).sum() == 200 and np.isin(ids[mask != 0], (1, 2, 3)).all()
    assert len(annotations_of(tmp_path / 'out')) == 6


@pytest.mark.parametrize('size', [(30, 80), (80, 60)])
def test_masks_of_another_size_are_left_out_and_counted(size, tmp_path):
    source = small_pairs(tmp_path / 'source', [blobs(1)] * 3)
    Image.fromarray(np.ones(size, np.uint8)).save(sorted((source / 'masks').iterdir())[0])
    out = convert(source, tmp_path / 'out', '--from', 'instance-masks', '--classes', 'cell', status=LOSSES).out
    assert f'1 x mask of another size than its image, as {size[1]}x{size[0]} instead of' in out


# ---- photographs that an EXIF tag turns

TURN_BACK = {1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
             4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90,
             7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270}
SEEN = (24, 50, 12, 20)  # x, y, width, height of the one bright object in 60 x 80 pixels


def photograph(file, orientation: int) -> None:
    """An image that is seen upright, 60 x 80 pixels, stored as a camera held otherwise stores it."""
    seen = np.zeros((80, 60, 3), np.uint8)
    x, y, width, height = SEEN
    seen[y:y + height, x:x + width] = 255
    image = Image.fromarray(seen)
    if TURN_BACK[orientation] is not None:
        image = image.transpose(TURN_BACK[orientation])
    exif = image.getexif()
    exif[274] = orientation
    image.save(file, exif=exif, quality=95)
    assert np.array_equal(np.asarray(ImageOps.exif_transpose(Image.open(file))) > 127, seen > 127)


def is_on_the_object(out) -> bool:
    """Whether each image, as OpenCV reads it for training, is bright in its box and dark elsewhere."""
    content = json.loads((out / 'annotations/instances_train.json').read_text())
    found = []
    for image, annotation in zip(content['images'], content['annotations'], strict=True):
        content = np.fromfile(out / 'train' / image['file_name'], np.uint8)
        pixels = cv2.imdecode(content, cv2.IMREAD_COLOR)[..., 0] > 127
        x, y, width, height = (round(value) for value in annotation['bbox'])
        inside = pixels[y:y + height, x:x + width]
        found.append(pixels.shape == (image['height'], image['width']) and inside.all() and pixels.sum() == inside.size
                     and inside.size == SEEN[2] * SEEN[3])
    return bool(found) and all(found)


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.tif'])
def test_yolo_boxes_lie_on_photographs_as_they_are_seen(suffix, tmp_path):
    """Fractions are of what is seen, as in YOLO itself."""
    (tmp_path / 'y/images/train').mkdir(parents=True)
    (tmp_path / 'y/labels/train').mkdir(parents=True)
    x, y, width, height = SEEN
    for orientation in TURN_BACK:
        photograph(tmp_path / f'y/images/train/{orientation}{suffix}', orientation)
        (tmp_path / f'y/labels/train/{orientation}.txt').write_text(
            f'0 {(x + width / 2) / 60} {(y + height / 2) / 80} {width / 60} {height / 80}')
    (tmp_path / 'y/classes.txt').write_text('thing\n')
    convert(tmp_path / 'y', tmp_path / 'out', '--split', '0.99')
    assert is_on_the_object(tmp_path / 'out')
    assert 'image-size' not in run_tool('check_dataset', tmp_path / 'out', '--workers', 0).out


@pytest.mark.parametrize('stored', [False, True])
def test_labelme_shapes_of_what_is_stored_are_refused(stored, tmp_path):
    x, y, width, height = SEEN
    (tmp_path / 'l').mkdir()
    for number in range(4):
        photograph(tmp_path / f'l/{number}.jpg', 6)
        points = [[y, x], [y + height, x + width]] if stored else [[x, y], [x + width, y + height]]
        (tmp_path / f'l/{number}.json').write_text(json.dumps(dict(
            shapes=[dict(label='thing', points=points, shape_type='rectangle')], imagePath=f'{number}.jpg',
            imageWidth=80 if stored else 60, imageHeight=60 if stored else 80)))
    if stored:
        error = run_tool('convert_dataset', tmp_path / 'l', tmp_path / 'out').error
        assert '4 x annotation for an image as it is stored, which an EXIF tag turns when it is read' in error
    else:
        convert(tmp_path / 'l', tmp_path / 'out')
        assert is_on_the_object(tmp_path / 'out')


def test_label_maps_of_what_is_stored_are_refused(tmp_path):
    for name in ('images', 'masks'):
        (tmp_path / 's' / name).mkdir(parents=True)
    for number in range(6):
        photograph(tmp_path / f's/images/{number}.jpg', 8)
        labels = np.ones((60, 80) if number < 3 else (80, 60), np.uint8)
        Image.fromarray(labels).save(tmp_path / f's/masks/{number}.png')
    arguments = ('--from', 'label-pngs', '--classes', 'ground,thing')
    out = convert(tmp_path / 's', tmp_path / 'out', *arguments, status=LOSSES).out
    assert '3 x label map of another size than its image' in out


# ---- COCO and YOLO

RIGHT = [(1, 1, 4, 4), (8, 2, 7, 9), (10, 6, 5, 5)]


def test_corners_instead_of_width_and_height_are_recognised(tmp_path):
    corners = [(x, y, x + w, y + h) for x, y, w, h in RIGHT]
    source = coco(tmp_path / 'source', corners)
    error = run_tool('convert_dataset', source, tmp_path / 'out').error
    assert '4 of 6 boxes leave their image' in error and '--boxes xyxy' in error
    convert(source, tmp_path / 'out', '--boxes', 'xyxy')
    assert boxes_in(tmp_path / 'out') == sorted(map(list, RIGHT * 2))
    checked = run_tool('check_dataset', source, '--workers', 0)
    assert checked.code == 4 and 'box-corners (1)' in checked.out
    right = coco(tmp_path / 'right', RIGHT)
    convert(right, tmp_path / 'out', '--overwrite')
    assert 'box-corners' not in run_tool('check_dataset', right, '--workers', 0).out


def test_shares_of_the_image_are_recognised(tmp_path):
    """As YOLO and TensorFlow have them; of boxes that are really so small, one is larger than a pixel."""
    source = coco(tmp_path / 'source', [(0.1, 0.2, 0.5, 0.3), (0, 0, 1, 1), (0.3, 0.3, 0.1, 0.1)])
    error = run_tool('convert_dataset', source, tmp_path / 'out').error
    assert '6 of 6 boxes have no number above 1' in error and 'are in pixels' in error
    checked = run_tool('check_dataset', source, '--workers', 0)
    assert checked.code == 4 and 'box-shares (1)' in checked.out
    right = coco(tmp_path / 'right', [(0.1, 0.2, 0.5, 0.3), (0, 0, 1, 1), (0.3, 0.3, 3, 2)])
    convert(right, tmp_path / 'out', '--overwrite')
    assert 'box-shares' not in run_tool('check_dataset', right, '--workers', 0).out


def test_boxes_without_masks_are_fine_data(tmp_path):
    """`segmentation: []` is what many tools write; a warning alone is status 0, with --strict 3."""
    source = coco(tmp_path / 'source', RIGHT)
    checked = run_tool('check_dataset', source, '--workers', 0)
    assert checked.code == 0 and '0 errors' in checked.out and 'mask' not in checked.out
    convert(source, tmp_path / 'out')
    assert DatasetInfo.read(tmp_path / 'out').has_masks is False
    out = tmp_path / 'out'
    assert 'class-tiny' in run_tool('check_dataset', out, '--workers', 0).out
    assert run_tool('check_dataset', out, '--workers', 0).code == 0
    assert run_tool('check_dataset', out, '--workers', 0, '--strict').code == 3


def test_ids_as_text(tmp_path):
    """Digits are read as numbers; names that match are kept together; names that match nothing are an error."""
    for name, image_ids, annotation_ids in [('digits', ('1', '2'), (1, 2)), ('names', ('a', 'b'), ('a', 'b'))]:
        source = coco(tmp_path / name, RIGHT)
        content = json.loads((source / 'all.json').read_text())
        for image in content['images']:
            image['id'] = image_ids[image['id'] - 1]
        for annotation in content['annotations']:
            annotation['image_id'] = annotation_ids[annotation['image_id'] - 1]
            annotation['category_id'] = '1'
        (source / 'all.json').write_text(json.dumps(content))
        convert(source, tmp_path / f'{name} out')
        assert boxes_in(tmp_path / f'{name} out') == sorted(map(list, RIGHT * 2))
    for annotation in content['annotations']:
        annotation['image_id'] = 'image ' + annotation['image_id']
    (source / 'all.json').write_text(json.dumps(content))
    error = run_tool('convert_dataset', source, tmp_path / 'out').error
    assert "none of its 6 annotations is of one of its images: image_id is 'image a'" in error


def test_a_class_named_twice_is_refused(tmp_path):
    (tmp_path / 'y/images').mkdir(parents=True)
    (tmp_path / 'y/labels').mkdir()
    for n in range(2):
        Image.fromarray(NOISE).save(tmp_path / f'y/images/{n}.png')
        (tmp_path / f'y/labels/{n}.txt').write_text('2 0.5 0.5 0.5 0.5\n')
    (tmp_path / 'y/classes.txt').write_text('cat\ndog\ncat\n')
    error = run_tool('convert_dataset', tmp_path / 'y', tmp_path / 'out').error
    assert "classes.txt has the class 'cat' 2 times (ids 0, 2)" in error


# ---- file names

def test_a_gif_and_an_unusual_suffix_are_the_same_by_name_and_in_a_folder(tmp_path):
    from convnext_dense.inference.inputs import find_inputs
    for name in ('a.gif', 'b.photo', 'c.png'):
        Image.fromarray(NOISE).save(tmp_path / name, 'GIF' if name == 'a.gif' else 'PNG')
    assert [entry.path.name for entry in find_inputs([str(tmp_path)])] == ['a.gif', 'c.png']
    assert [entry.path.name for entry in find_inputs([str(tmp_path / 'a.gif')])] == ['a.gif']
    with pytest.raises(UserError, match='b.photo is no image or video by its suffix'):
        find_inputs([str(tmp_path / 'b.photo')])


def test_gifs_are_converted_with_every_pixel(tmp_path):
    source = coco(tmp_path / 'source', RIGHT)
    content = json.loads((source / 'all.json').read_text())
    for image in content['images']:
        image['file_name'] = f'{image["id"]}.gif'
        Image.open(source / f'images/{image["id"]}.png').save(source / f'images/{image["id"]}.gif')
    (source / 'all.json').write_text(json.dumps(content))
    convert(source, tmp_path / 'out')
    for number in (1, 2):
        file = next((tmp_path / 'out').glob(f'*/{number}.png'))
        assert np.array_equal(np.asarray(Image.open(file).convert('RGB')),
                              np.asarray(Image.open(source / f'images/{number}.gif').convert('RGB')))
