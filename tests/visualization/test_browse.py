"""tools/browse_dataset.py: what is drawn equals what separate readings of the files give."""
import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from convnext_dense.config import load_config  # noqa: E402
from convnext_dense.errors import UserError  # noqa: E402
from convnext_dense.visualization.browse import browse, contact_sheet, write_preview  # noqa: E402
from convnext_dense.visualization.draw import Instances, draw_instances, draw_segmentation  # noqa: E402

FOLDERS = {'det': 'coco', 'seg': 'ade'}


@pytest.fixture(scope='module')
def shapes(make_shapes):
    return make_shapes(train=4, val=2)


@pytest.fixture
def config(shapes, repo_root):
    """task -> a fresh tiny config on the shapes."""
    return lambda task: load_config(str(repo_root / f'tests/tools/tiny_{task}.py'),
                                    data_root=str(shapes / FOLDERS[task]))


def annotated(ann_file) -> dict[str, Instances]:
    """File name -> its annotated instances, by pycocotools; labels count the categories in the order of their ids."""
    coco, found = COCO(str(ann_file)), {}
    for image in coco.imgs.values():
        items = coco.imgToAnns[image['id']]
        boxes = np.array([item['bbox'] for item in items], float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = np.array([coco.getCatIds().index(item['category_id']) for item in items])
        masks = np.array([coco.annToMask(item) for item in items], bool)
        found[image['file_name']] = Instances(labels, boxes, masks)
    return found


def rgb(file) -> np.ndarray:
    return np.array(Image.open(file).convert('RGB'))


def read(file) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)


@pytest.mark.parametrize('to_rgb', [True, False])
@pytest.mark.parametrize('flip', [0.0, 1.0])
def test_detection_is_drawn_as_the_pipeline_leaves_it(flip, to_rgb, config, shapes):
    cfg = config('det')
    cfg.train_dataloader.dataset.pipeline[2].prob = flip
    cfg.model.data_preprocessor.bgr_to_rgb = to_rgb
    preview = browse(cfg, 'train', number=9)
    truth = annotated(shapes / 'coco/annotations/instances_train2017.json')
    assert len(preview.samples) == 4 and ('RGB values' if to_rgb else 'BGR values') in preview.title
    for sample, (name, expected) in zip(preview.samples, sorted(truth.items()), strict=True):
        image, boxes, masks = read(shapes / 'coco/train2017' / name), expected.boxes, expected.masks
        if flip:
            image, masks = image[:, ::-1], masks[..., ::-1]
            boxes = np.stack([64 - boxes[:, 2], boxes[:, 1], 64 - boxes[:, 0], boxes[:, 3]], axis=1)
        drawn = draw_instances(np.ascontiguousarray(image), Instances(expected.labels, boxes, masks), preview.classes,
                               preview.palette)
        assert sample.picture.shape == drawn.shape
        assert (sample.picture != drawn).any(axis=2).mean() < 0.01  # polygons: a flip may move an edge by a pixel
        assert sample.labels == set(expected.labels) and f'objects: {len(boxes)}' in sample.caption


def test_annotations_of_a_test_pipeline_are_resized_with_the_image(config, shapes):
    cfg = config('det')
    cfg.val_dataloader.dataset.pipeline[1].scale = (128, 128)
    preview = browse(cfg, 'val')
    truth = annotated(shapes / 'coco/annotations/instances_val2017.json')
    for sample, (name, expected) in zip(preview.samples, sorted(truth.items()), strict=True):
        image = cv2.resize(read(shapes / 'coco/val2017' / name), (128, 128))
        drawn = draw_instances(image, Instances(expected.labels, expected.boxes * 2), preview.classes, preview.palette)
        frame = (drawn != draw_instances(image, Instances(expected.labels[:0]), preview.classes)).any(axis=2)
        assert '64x64 to 128x128' in sample.caption
        assert (sample.picture == drawn).all(axis=2)[frame].mean() > 0.9  # outlines of masks cover a few


def test_segmentation_shows_image_and_labels_with_padding(config, shapes):
    cfg = config('seg')
    cfg.train_dataloader.dataset.pipeline[2].prob = 0.0
    cfg.model.data_preprocessor.size = (64, 96)
    preview = browse(cfg, 'train')
    for sample, file in zip(preview.samples, sorted((shapes / 'ade/images/training').iterdir()), strict=True):
        labels = np.array(Image.open(shapes / 'ade/annotations/training' / f'{file.stem}.png')).astype(int) - 1
        image, expected = np.zeros((64, 96, 3), np.uint8), np.full((64, 96), 255, np.uint8)
        image[:, :64], expected[:, :64] = read(file), np.where(labels < 0, 255, labels)
        image[:, 64:] = np.rint([123.675, 116.28, 103.53])  # zeros after normalisation
        np.testing.assert_array_equal(sample.picture[:, :96], image)
        drawn = draw_segmentation(image, expected, preview.palette, min_side=1)
        np.testing.assert_array_equal(sample.picture[:, -96:], drawn)
        assert sample.labels == set(np.unique(labels)) - {-1}


def test_a_seed_repeats_choice_and_augmentation(config):
    def look(seed):
        preview = browse(config('det'), 'train', number=2, seed=seed)
        return [sample.name for sample in preview.samples], contact_sheet(preview)
    first, again = look(3), look(3)
    assert first[0] == again[0] and (first[1] == again[1]).all()
    assert any(look(seed)[0] != first[0] for seed in range(3))


@pytest.mark.parametrize('wrapper', [dict(type='RepeatDataset', times=2), dict(type='ConcatDataset')])
def test_wrappers_are_seen_through(wrapper, config):
    cfg = config('det')
    inner = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = {**wrapper, **({'dataset': inner} if 'times' in wrapper
                                                  else {'datasets': [inner, config('det').val_dataloader.dataset]})}
    assert f'of {8 if "times" in wrapper else 6} images' in browse(cfg, 'train', 2).title


def test_sheet_folder_and_page(config, shapes, tmp_path):
    preview = browse(config('seg'), 'val')
    assert write_preview(preview, tmp_path / 'new/sheet.png') == [tmp_path / 'new/sheet.png']
    np.testing.assert_array_equal(rgb(tmp_path / 'new/sheet.png'), contact_sheet(preview))
    files = write_preview(preview, tmp_path / 'folder')
    assert len(files) == 3 and rgb(files[1]).shape == preview.samples[0].picture.shape
    write_preview(preview, tmp_path / 'page.html')
    page = (tmp_path / 'page.html').read_text()
    assert page.count('<figure>') == 2 and all(sample.caption in page for sample in preview.samples)
    assert not list(tmp_path.rglob('*.part*'))


def test_mistakes_are_named(config):
    cfg = config('det')
    cfg.pop('test_dataloader')
    with pytest.raises(UserError, match='no test_dataloader'):
        browse(cfg, 'test')
    cfg.train_dataloader.dataset.ann_file = 'typo.json'
    with pytest.raises(UserError, match='typo.json does not exist'):
        browse(cfg)
    with pytest.raises(UserError, match='hexagon'):
        cfg = config('det')
        cfg.val_dataloader.dataset.metainfo = dict(classes=('circle', 'square', 'hexagon'))
        browse(cfg, 'val')
