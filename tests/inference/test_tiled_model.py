"""`--tile` of the Predictor and the tools, both tasks, on the tests' smallest models."""
import json

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.dataset import pseudo_collate
from mmengine.registry import MODELS, DefaultScope
from PIL import Image
from pycocotools.coco import COCO
from tool_runs import must_run, run_tool
from torch.nn import functional as F

from convnext_dense.config import load_config
from convnext_dense.errors import UserError
from convnext_dense.inference.files import predict_files
from convnext_dense.inference.inputs import find_inputs
from convnext_dense.inference.outputs import Output
from convnext_dense.inference.predictor import Predictor
from convnext_dense.inference.protocols import use_tiles, without_annotations
from convnext_dense.inference.results import Segmentation
from convnext_dense.inference.tiled_labels import Scores, side_matrix
from convnext_dense.inference.tiled_model import TiledModel, TiledNetwork
from convnext_dense.inference.tiling import Tiling
from convnext_dense.utils.run_lengths import EncodedMasks
from convnext_dense.visualization.predictions import encode_mask, encoded_masks


@pytest.fixture(scope='module')
def predictors(tiny, checkpoints) -> dict[str, tuple[Predictor, Predictor]]:
    """task -> without tiles, with tiles of 64 pixels; every detection is kept."""
    return {task: tuple(Predictor(tiny[task], checkpoints[task], device='cpu', score_thr=0, tile=tile)
                        for tile in (None, 64)) for task in tiny}


@pytest.fixture(scope='module')
def large(tmp_path_factory) -> str:
    """A PNG file of 150x200 pixels."""
    noise = np.random.default_rng(5).integers(0, 256, (150, 200, 3), np.uint8)
    file = tmp_path_factory.mktemp('large') / 'large.png'
    cv2.imwrite(str(file), cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX))
    return str(file)


def test_images_of_one_tile_give_what_no_tiling_gives(predictors, images):
    plain, tiled = predictors['det']
    for ours, theirs in zip(tiled([images[0], images[2]]), plain([images[0], images[2]]), strict=True):
        for name in ('labels', 'boxes', 'scores', 'masks'):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        assert isinstance(ours.masks, np.ndarray) and len(ours)
    plain, tiled = predictors['seg']
    np.testing.assert_array_equal(tiled(images[0]).labels, plain(images[0]).labels)


def test_a_detector_gets_every_tile_as_an_image_of_its_own(predictors, large):
    """What is found are objects of single tiles, as they are, or hulls of several."""
    plain, tiled = predictors['det']
    found, array = tiled(large), cv2.imread(large)[..., ::-1]
    assert isinstance(found.masks, EncodedMasks) and found.size == (150, 200) and found.image == large
    single = {}
    for x1, y1, x2, y2 in Tiling(64).tiles(150, 200):
        for one in plain(array[y1:y2, x1:x2]):
            box = one.boxes[0] + [x1, y1, x1, y1]
            mask = np.zeros((150, 200), bool)
            mask[y1:y2, x1:x2] = one.masks[0]
            single[tuple(box.tolist())] = (int(one.labels[0]), float(one.scores[0]), mask)
    equal = 0
    for label, score, box, mask in zip(found.labels, found.scores, found.boxes, found.masks, strict=True):
        if tuple(box.tolist()) in single:
            equal += 1
            expected = single[tuple(box.tolist())]
            assert (label, score) == expected[:2]
            np.testing.assert_array_equal(mask, expected[2])
    assert len(single) > len(found) >= equal > 3
    of_array = tiled(np.ascontiguousarray(array))
    np.testing.assert_array_equal(of_array.boxes, found.boxes)
    assert of_array.image.shape == array.shape


@torch.no_grad()
@pytest.mark.parametrize('mode', ['whole', 'slide', 'resized', 'stock head', 'one channel'])
def test_label_maps_are_those_of_averaged_scores(mode, tiny, large):
    """Scores of every tile at its full size from mmseg's own code, added up over the image."""
    cfg = load_config(str(tiny['seg']))
    cfg.model.test_cfg.update(dict(mode='slide', crop_size=(40, 40), stride=(24, 24)) if mode == 'slide' else {})
    if mode == 'stock head':
        cfg.model.type = 'EncoderDecoder'
    if mode == 'one channel':
        cfg.model.decode_head.update(num_classes=2, out_channels=1, threshold=0.4)
        cfg.model.pop('auxiliary_head')
    torch.manual_seed(1)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(cfg.model).eval()
    torch.nn.init.normal_(model.decode_head.conv_seg.weight, std=0.5)
    model.labels_only = True
    if mode == 'resized':
        cfg.test_dataloader.dataset.pipeline.insert(1, dict(type='Resize', scale=(48, 48), keep_ratio=True))
    image, tiling = cv2.imread(large)[..., ::-1], Tiling(64, 0.3)
    cfg.model = load_config(str(tiny['seg'])).model  # of this predictor, only the pipeline is used
    predictor = Predictor(cfg, device='cpu')
    network = TiledNetwork(model, predictor._prepare_tile, tiling)
    labels = network.segment(image)
    total, count = None, torch.zeros(150, 200)
    model.labels_only = False
    for x1, y1, x2, y2 in tiling.tiles(150, 200):
        sample = predictor._prepare_tile(np.ascontiguousarray(image[y1:y2, x1:x2, ::-1]))
        scores = model.test_step(pseudo_collate([sample]))[0].seg_logits.data
        scores = torch.cat([torch.full_like(scores, 0.4), scores]).logit() if mode == 'one channel' else scores
        total = torch.zeros(len(scores), 150, 200) if total is None else total
        total[:, y1:y2, x1:x2] += scores
        count[y1:y2, x1:x2] += 1
    best = (total / count).topk(2, dim=0)
    differ = torch.from_numpy(labels).long() != best.indices[0]
    print(f'{mode}: {int(differ.sum())} of {differ.numel()} labels differ')
    assert len(np.unique(labels)) > 1 and differ.float().mean() < 1e-3
    assert not differ.any() or (best.values[0] - best.values[1])[differ].max() < 1e-4


def test_side_matrix_is_upsampling_cropping_and_resizing():
    scores = torch.randn(1, 1, 9, 1).double()
    padded = F.interpolate(scores, size=(36, 1), mode='bilinear')[:, :, 3:-1]
    expected = F.interpolate(padded, size=(50, 1), mode='bilinear')[0, 0]
    matrix = side_matrix(9, (0, 36), ((0, 36),), 36, (3, 1), 50, False)
    np.testing.assert_allclose(matrix @ scores[0, 0].numpy(), expected.numpy(), atol=1e-6)
    assert isinstance(Scores(scores[0].numpy(), matrix, np.ones((1, 1), np.float32)).supports[0], np.ndarray)


@pytest.fixture(scope='module')
def mosaic(shapes, tmp_path_factory):
    """The shapes' three validation images side by side, for both tasks; ground truth included."""
    root = tmp_path_factory.mktemp('mosaic')
    for folder in ('coco/annotations', 'coco/val2017', 'ade/images/validation', 'ade/annotations/validation'):
        (root / folder).mkdir(parents=True)
    coco = json.loads((shapes / 'coco/annotations/instances_val2017.json').read_text())
    images = {image['id']: (image['file_name'], 64 * index) for index, image in enumerate(coco['images'])}
    row = np.hstack([cv2.imread(str(shapes / 'coco/val2017' / name)) for name, _ in images.values()])
    cv2.imwrite(str(root / 'coco/val2017/row.png'), row)
    for item in coco['annotations']:
        shift = images[item['image_id']][1]
        item.update(image_id=1, bbox=[item['bbox'][0] + shift, *item['bbox'][1:]])
        mask = np.zeros(row.shape[:2], bool)
        mask[:, shift:shift + 64] = encoded_masks([item['segmentation']], (64, 64))[0]
        item['segmentation'] = encode_mask(mask)
    coco['images'] = [dict(id=1, file_name='row.png', width=row.shape[1], height=row.shape[0])]
    (root / 'coco/annotations/instances_val2017.json').write_text(json.dumps(coco))
    for kind, suffix in (('images', '*.[jp][pn]g'), ('annotations', '*.png')):
        files = sorted((shapes / f'ade/{kind}/validation').glob(suffix))
        parts = [np.asarray(Image.open(file)) for file in files]
        Image.fromarray(np.hstack(parts)).save(root / f'ade/{kind}/validation/row{files[0].suffix}')
    return root


@pytest.mark.parametrize('task', ['det', 'seg'])
def test_the_tools_agree_on_large_images(task, tiny, checkpoints, mosaic, tmp_path):
    """`test --tile` writes what `predict --tile` finds, and its metric is that of the whole image."""
    data = mosaic / {'det': 'coco', 'seg': 'ade'}[task]
    must_run('test', tiny[task], checkpoints[task], '--work-dir', tmp_path / 'test', '--data-root', data, '--tile', 64,
             '--out', tmp_path / 'found.npz', '--show-dir', tmp_path / 'shown')
    metrics = json.loads((tmp_path / 'test/metrics.json').read_text())
    image = next(data.rglob('row.*[gG]'))
    must_run('predict', tiny[task], checkpoints[task], image, '--out', tmp_path / 'out', '--tile', 64, '--score-thr', 0)
    found = json.loads((tmp_path / 'out/predictions.json').read_text())
    with np.load(tmp_path / 'found.npz') as archive:
        if task == 'seg':
            np.testing.assert_array_equal(archive['labels_0'], np.asarray(Image.open(tmp_path / 'out/labels/row.png')))
            assert metrics['mIoU'] >= 0
        else:
            np.testing.assert_allclose(archive['scores'], [item['score'] for item in found['annotations']], atol=1e-5)
            masks = COCO(tmp_path / 'out/predictions.json')
            areas = [masks.annToMask(item).sum() for item in found['annotations']]
            assert areas == [item['area'] for item in found['annotations']] and max(areas) > 0
            assert len(archive['mask_lengths']) == len(areas) > 5 and metrics['coco/segm_mAP'] >= 0
    assert len(list((tmp_path / 'shown').rglob('*.png'))) == len(list((tmp_path / 'out/pictures').iterdir())) == 1


@torch.no_grad()
@pytest.mark.parametrize('task', ['det', 'seg'])
def test_small_images_are_tested_as_without_tiles(task, tiny, predictors, images):
    """What the test tool runs, on the images of a data loader without the later transforms."""
    plain, _ = predictors[task]
    pipeline = without_annotations(load_config(str(tiny[task])).test_dataloader.dataset.pipeline)[1:]
    model = TiledModel(plain.model, pipeline, {'det': 'mmdet', 'seg': 'mmseg'}[task], 64, 0.2)
    raw = [torch.from_numpy(cv2.imread(str(images[index]))).permute(2, 0, 1) for index in (0, 2)]
    found = model.test_step(dict(inputs=raw, data_samples=[DetDataSample(), DetDataSample()]))
    for sample, expected in zip(found, plain([images[0], images[2]]), strict=True):
        if task == 'seg':
            np.testing.assert_array_equal(sample.pred_sem_seg.data[0].numpy(), expected.labels)
            continue
        np.testing.assert_array_equal(sample.pred_instances.bboxes.numpy(), expected.boxes)
        np.testing.assert_array_equal(sample.pred_instances.scores.numpy(), expected.scores)
        np.testing.assert_array_equal(sample.pred_instances.masks.numpy(), expected.masks)


@pytest.mark.parametrize(('flags', 'message'), [
    (('--tile', 16), 'tile 16: expected'), (('--tile', 64, '--overlap', 0.95), 'overlap 0.95 of tiles'),
    (('--tile', 64, '--overlap', -1), 'overlap -1 of tiles')])
def test_bad_tiles_are_named_before_a_model_is_loaded(flags, message, tiny, images, tmp_path):
    """The checkpoint does not exist, which nobody notices."""
    missing = tmp_path / 'missing.pth'
    assert message in run_tool('predict', tiny['det'], missing, images[0], '--out', tmp_path / 'out', *flags).error
    with pytest.raises(UserError, match=message):
        Predictor(tiny['det'], missing, tile=flags[1], overlap=float((*flags, 0, 0.2)[3]))


def test_files_of_a_predictor_with_samples_of_its_own(images, tmp_path):
    """As exported models have them: no dict, and no range of values."""
    class Exported:
        def load(self, path):
            return cv2.imread(str(path)).shape[:2]

        def predict(self, samples):
            return [Segmentation(np.zeros(size, np.uint8), ('a', 'b')) for size in samples]

    with Output(tmp_path, ('a', 'b'), [(255, 0, 0), (0, 255, 0)]) as output:
        assert predict_files(Exported(), find_inputs([str(images[1])]), output) == []
    assert [file.name for file in (tmp_path / 'pictures').iterdir()] == ['1.jpg']


def test_published_recipes_take_tiles():
    """Annotations are loaded for the whole image, later steps are left to the tiles; AP is not cut at 100 objects."""
    for name in ('det/mask-rcnn_convnext-t-in1k_fpn_8xb2-amp-ms-crop-3x_coco.py',
                 'seg/upernet_convnext-t-in1k_8xb2-amp-160k_ade20k-512x512.py'):
        cfg = load_config(name)
        before = list(cfg.test_dataloader.dataset.pipeline)
        use_tiles(cfg, 512, 0.25)
        outer, inner = cfg.test_dataloader.dataset.pipeline, cfg.model.pipeline
        assert [step.type for step in outer] == [step.type for step in before
                                                 if 'Resize' not in step.type and 'Pad' not in step.type]
        assert [step.type for step in inner] == [step.type for step in before[1:] if 'Annotations' not in step.type]
        assert not any(step.get('with_mask') for step in outer) and 'Resize' in ' '.join(step.type for step in inner)
        assert (cfg.model.tile, cfg.model.overlap, cfg.model.type) == (512, 0.25, 'TiledModel')
        if name.startswith('det'):
            assert cfg.test_evaluator.proposal_nums == (300, 1000, 10_000)


def test_bad_flags_of_the_test_tool(tiny, checkpoints, shapes, tmp_path):
    command = ('test', tiny['det'], checkpoints['det'], '--work-dir', tmp_path, '--data-root', shapes / 'coco')
    assert 'tile 16: expected' in run_tool(*command, '--tile', 16).error
    assert '--tile goes with neither --tta nor' in run_tool(*command, '--tile', 64, '--tta').error
    assert 'ends in .npz' in run_tool(*command, '--tile', 64, '--out', tmp_path / 'x.pkl').error


def test_the_limit_of_pixels_is_higher_with_tiles(predictors, large, monkeypatch):
    plain, tiled = predictors['seg']
    monkeypatch.setattr('convnext_dense.utils.images.DEFAULT_MAX_PIXELS', 20_000)
    with pytest.raises(UserError, match=r'30,000 pixels, more than the limit of 20,000: .*in tiles \(--tile 1024\)'):
        plain(large)
    assert tiled(large).labels.shape == (150, 200)
    monkeypatch.setenv('CONVNEXT_DENSE_MAX_PIXELS', '25000')
    with pytest.raises(UserError, match='more than the limit of 25,000'):
        tiled(large)
