"""tools/reproduce.py from end to end, with a stand-in checkpoint in the official format.

The stand-in's own predictions are written as ground truth, so a correct run finds every object and pixel again.
"""
import importlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from rows import ROWS, load_row

from convnext_dense.config import load_config
from convnext_dense.engine.reproduce import check_layout, format_result, judge, reproduce, write_results
from convnext_dense.engine.runner import DenseRunner, prepare_testing
from convnext_dense.errors import UserError
from convnext_dense.inference.protocols import use_ms_flip
from convnext_dense.recipes.metafile import find_recipe

DET, SEG = 'mask-rcnn_convnext-t-in1k', 'upernet_convnext-t-in1k_ade20k-512x512'
LOADER = ['test_dataloader.num_workers=0']
SMALL_DET = [*LOADER, 'test_dataloader.dataset.pipeline.1.scale=(160,96)', 'model.test_cfg.rpn.nms_pre=50',
             'model.test_cfg.rpn.max_per_img=30',
             'model.test_cfg.rpn.min_bbox_size=0']  # boxes without area, which match nothing, must not be ground truth
SMALL_SEG = [*LOADER, 'model.test_cfg.crop_size=(64,64)', 'model.test_cfg.stride=(43,43)',
             'test_dataloader.dataset.pipeline.1.scale=(256,64)',
             *(f'tta_pipeline.1.transforms.0.{i}.scale=({int(256 * r)},{int(64 * r)})'
               for i, r in enumerate((0.5, 0.75, 1.0, 1.25, 1.5, 1.75)))]


def stand_in(name: str, file: Path) -> Path:
    """Random weights of a row's model, saved as the official fine-tuned files are: under ``state_dict``."""
    torch.manual_seed(0)
    cfg = load_row(next(row for row in ROWS if row['name'] == name))
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.init_cfg = None
    model = MODELS.build(cfg.model)
    model.init_weights()
    with torch.no_grad():
        if name == DET:  # random scores would all be below the threshold, random masks all noise
            model.roi_head.bbox_head.fc_cls.bias[[3, 7]] = 5.0
            model.roi_head.mask_head.conv_logits.bias.fill_(3.0)
            model.rpn_head.rpn_cls.weight.mul_(20)
        elif name == SEG:
            model.decode_head.conv_seg.weight.mul_(100)
    torch.save(dict(state_dict=model.state_dict(), meta=dict(epoch=36)), file)
    return file


def write_images(folder: Path, count: int) -> list[str]:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = [f'{i:012}.jpg' for i in range(1, count + 1)]
    for name in names:
        blobs = cv2.resize(rng.integers(0, 256, (6, 9, 3), dtype=np.uint8), (144, 96), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / name), blobs)
    return names


def predictions(name: str, options: list[str], root: Path, checkpoint: Path, multi_scale: bool = False) -> list:
    """What mmengine's own test loop gets from the model, image by image, without reproduce()."""
    cfg = load_config(find_recipe(name).config, options, str(root))
    cfg = prepare_testing(cfg, str(checkpoint))
    if multi_scale:
        use_ms_flip(cfg)
    cfg.work_dir = str(checkpoint.parent / 'work')
    runner = DenseRunner.from_cfg(cfg)
    runner.load_or_resume()
    runner.model.eval()
    samples = []
    for batch in runner.test_dataloader:
        with torch.no_grad():
            samples += runner.model.test_step(batch)
    return samples


@pytest.fixture(scope='module')
def coco(tmp_path_factory) -> tuple[Path, Path]:
    """(data root, checkpoint): three images whose ground truth is what the checkpoint predicts."""
    from pycocotools import mask as mask_api
    root = tmp_path_factory.mktemp('coco')
    checkpoint = stand_in(DET, root / 'stand_in.pth')
    names = write_images(root / 'val2017', 3)
    # the file's categories are COCO's own ids: 80 of them, in order, with the names that mmdet knows
    from mmdet.datasets import CocoDataset
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(CocoDataset.METAINFO['classes'])]
    images = [dict(id=i + 1, file_name=name, width=144, height=96) for i, name in enumerate(names)]
    file = root / 'annotations/instances_val2017.json'
    file.parent.mkdir()
    content = dict(images=images, categories=categories, annotations=[])
    file.write_text(json.dumps(content))
    for sample in predictions(DET, SMALL_DET, root, checkpoint):
        found = sample.pred_instances
        for box, label, mask in zip(found.bboxes.tolist(), found.labels.tolist(), found.masks.cpu(), strict=True):
            rle = mask_api.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
            x1, y1, x2, y2 = box
            content['annotations'].append(dict(
                id=len(content['annotations']) + 1, image_id=sample.img_id, category_id=label + 1, iscrowd=0,
                bbox=[x1, y1, x2 - x1, y2 - y1], area=max(1.0, float(mask_api.area(rle))),
                segmentation=dict(size=rle['size'], counts=rle['counts'].decode())))
    assert len(content['annotations']) >= 10
    file.write_text(json.dumps(content))
    return root, checkpoint


@pytest.fixture(scope='module')
def ade(tmp_path_factory) -> tuple[Path, Path]:
    """(data root, checkpoint): two images whose labels are the checkpoint's multi-scale predictions."""
    root = tmp_path_factory.mktemp('ade')
    checkpoint = stand_in(SEG, root / 'stand_in.pth')
    names = write_images(root / 'images/validation', 2)
    labels = root / 'annotations/validation'
    labels.mkdir(parents=True)
    for name in names:
        cv2.imwrite(str(labels / name.replace('.jpg', '.png')), np.ones((96, 144), np.uint8))
    for sample in predictions(SEG, SMALL_SEG, root, checkpoint, multi_scale=True):
        label = sample.pred_sem_seg.data[0].cpu().numpy().astype(np.uint8) + 1  # on disk 0 is "other"
        assert len(np.unique(label)) > 1
        cv2.imwrite(str(labels / Path(sample.img_path).with_suffix('.png').name), label)
    return root, checkpoint


@pytest.mark.slow
def test_detection_end_to_end(coco, tmp_path):
    root, checkpoint = coco
    recipe = find_recipe(DET)
    results = reproduce(recipe, data_root=str(root), checkpoint=str(checkpoint), work_dir=str(tmp_path),
                        cfg_options=SMALL_DET)
    assert [(r.metric, r.published, r.images, r.verdict) for r in results] == [
        ('box AP', 46.2, 3, 'no verdict'), ('mask AP', 41.7, 3, 'no verdict')]
    assert results[0].ours > 99 and results[1].ours > 99, results
    assert json.loads((tmp_path / 'reproduce.json').read_text())[0]['ours'] == results[0].ours


@pytest.mark.slow
def test_cascade_end_to_end(coco, tmp_path):
    """The whole path with Cascade's three box heads; random weights against Mask R-CNN's ground truth score low."""
    root, _ = coco
    name = 'cascade-mask-rcnn_convnext-t-in1k'
    checkpoint = stand_in(name, tmp_path / 'stand_in.pth')
    results = reproduce(find_recipe(name), data_root=str(root), checkpoint=str(checkpoint), work_dir=str(tmp_path),
                        cfg_options=[*SMALL_DET, 'model.test_cfg.rcnn.score_thr=0.0'])
    assert [(r.metric, r.published, r.images, r.verdict) for r in results] == [
        ('box AP', 50.4, 3, 'no verdict'), ('mask AP', 43.7, 3, 'no verdict')]
    assert all(0 <= r.ours < 50 for r in results)


@pytest.mark.slow
def test_segmentation_end_to_end(ade, tmp_path):
    root, checkpoint = ade
    recipe = find_recipe(SEG)
    single, multi = (reproduce(recipe, multi_scale, str(root), str(checkpoint), str(tmp_path), SMALL_SEG)[0]
                     for multi_scale in (False, True))
    assert (multi.metric, multi.published, multi.ours) == ('mIoU(ms+flip)', 46.7, 100.0)
    assert (single.metric, single.published) == ('mIoU', 46.0)
    assert single.ours < 99  # another protocol, so other pixels
    for name, result in (('reproduce', single), ('reproduce_multi-scale', multi)):
        assert json.loads((tmp_path / f'{name}.json').read_text()) == [asdict(result)]


@pytest.mark.slow
def test_weights_that_do_not_fit_completely_are_refused(coco, tmp_path):
    root, checkpoint = coco
    short = torch.load(checkpoint, weights_only=True)
    del short['state_dict']['roi_head.mask_head.conv_logits.bias']
    torch.save(short, tmp_path / 'short.pth')
    with pytest.raises(UserError, match='conv_logits'):
        reproduce(find_recipe(DET), data_root=str(root), checkpoint=str(tmp_path / 'short.pth'),
                  work_dir=str(tmp_path), cfg_options=SMALL_DET)


@pytest.mark.slow
def test_real_ade_pairs_against_brute_force(ade, real_data, tmp_path):
    _, checkpoint = ade
    root = real_data / 'ade/ADEChallengeData2016'
    result = reproduce(find_recipe(SEG), data_root=str(root), checkpoint=str(checkpoint), work_dir=str(tmp_path),
                       cfg_options=SMALL_SEG)[0]
    inter, union = np.zeros(150), np.zeros(150)
    for sample in predictions(SEG, SMALL_SEG, root, checkpoint):
        found = sample.pred_sem_seg.data[0].cpu().numpy()
        label = cv2.imread(sample.seg_map_path, cv2.IMREAD_UNCHANGED).astype(int) - 1
        for c in range(150):
            hit, there = (found == c) & (label >= 0), label == c
            inter[c] += (hit & there).sum()
            union[c] += (hit | there).sum()
    assert result.ours == pytest.approx(100 * np.nanmean(inter / np.where(union, union, np.nan)), abs=0.011)
    assert (result.images, result.verdict) == (9, 'no verdict')


@pytest.mark.slow
def test_real_coco_subset_runs(coco, real_data, tmp_path):
    _, checkpoint = coco
    few = ['test_dataloader.dataset.indices=12', 'model.test_cfg.rcnn.max_per_img=9']
    results = reproduce(find_recipe(DET), data_root=str(real_data / 'coco'), checkpoint=str(checkpoint),
                        work_dir=str(tmp_path), cfg_options=[*SMALL_DET, *few])
    assert [(r.metric, r.images, r.verdict) for r in results] == [
        ('box AP', 12, 'no verdict'), ('mask AP', 12, 'no verdict')]  # what was tested counts, not what is there
    assert all(0 <= r.ours < 5 for r in results)  # random weights


def test_all_keeps_the_results_of_every_entry_and_protocol(monkeypatch, tmp_path, capsys):
    """``--all`` with what measures replaced: nineteen results, each in a file of its own, each printed at once."""
    cli = importlib.import_module('convnext_dense.cli.reproduce')
    printed = []

    def measure(recipe, multi_scale, data_root, checkpoint, work_dir, cfg_options):
        printed.append(capsys.readouterr().out)
        metric = 'mIoU(ms+flip)' if multi_scale else next(iter(recipe.metrics))
        results = [judge(recipe, metric, recipe.metrics[metric], 3)]
        write_results(work_dir, results, multi_scale)
        return results

    monkeypatch.setattr(importlib.import_module('convnext_dense.engine.reproduce'), 'reproduce', measure)
    cli.main(['--all', '--work-dir', str(tmp_path), '--device', 'cpu'])
    found = {(entry['recipe'], entry['metric']) for file in tmp_path.rglob('reproduce*.json')
             for entry in json.loads(file.read_text())}
    assert len(found) == 7 + 2 * 6 and len({name for name, _ in found}) == 13
    assert printed[0] == '' and all('published' in line for line in printed[1:])


def test_verdict():
    recipe = find_recipe(SEG)
    assert [judge(recipe, 'mIoU', ours, 2000).verdict for ours in (45.79, 45.8, 46.0, 46.2, 46.21)] == [
        'differs', 'reproduced', 'reproduced', 'reproduced', 'differs']
    partial = judge(recipe, 'mIoU(ms+flip)', 46.7, 9)
    assert partial.verdict == 'no verdict' and format_result(partial).endswith('no verdict (9 images)')
    assert replace(partial, verdict='differs').published == 46.7


@pytest.mark.parametrize('name, missing, words', [
    (DET, 'annotations', ('annotations/instances_val2017.json', 'val2017.zip')),
    (DET, 'val2017/000000000002.jpg', ('1 of 3 files in val2017/', '000000000002.jpg')),
    (SEG, 'images/validation', ('images/validation', 'ADEChallengeData2016.zip')),
    (SEG, 'annotations/validation/000000000001.png', ('1 of 2 files', '000000000001.png')),
])
def test_missing_data_says_what_to_fetch(name, missing, words, tmp_path):
    if name == DET:
        names = write_images(tmp_path / 'val2017', 3)
        (tmp_path / 'annotations').mkdir()
        (tmp_path / 'annotations/instances_val2017.json').write_text(
            json.dumps(dict(images=[dict(file_name=name) for name in names])))
    else:
        (tmp_path / 'annotations/validation').mkdir(parents=True)
        for image in write_images(tmp_path / 'images/validation', 2):
            (tmp_path / 'annotations/validation' / image.replace('.jpg', '.png')).touch()
    recipe = find_recipe(name)
    cfg = load_config(recipe.config, data_root=str(tmp_path))
    assert check_layout(cfg, recipe.task) == (3 if name == DET else 2)
    gone = tmp_path / missing
    gone.rename(tmp_path / 'elsewhere')
    with pytest.raises(UserError) as error:
        check_layout(cfg, recipe.task)
    assert all(word in str(error.value) for word in (*words, 'fetch', '--data-root')), error.value


def test_real_subsets_are_counted_and_give_no_verdict(real_data):
    for name, folder, images in ((DET, 'coco', 206), (SEG, 'ade/ADEChallengeData2016', 9)):
        recipe = find_recipe(name)
        cfg = load_config(recipe.config, data_root=str(real_data / folder))
        assert check_layout(cfg, recipe.task) == images
        assert judge(recipe, next(iter(recipe.metrics)), 46.0, images).verdict == 'no verdict'


def test_multi_scale_is_for_ade20k():
    with pytest.raises(UserError, match='no multi-scale metric'):
        reproduce(find_recipe(DET), multi_scale=True)
