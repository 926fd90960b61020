"""Pages made from work dirs: the metrics on them, what is left out, and errors in one sentence."""
import json
import os
import pickle
import re
import shutil
import zipfile

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from pycocotools.cocoeval import COCOeval
from tool_runs import must_run, run_tool

from convnext_dense.config import load_config
from convnext_dense.errors import UserError
from convnext_dense.evaluation.prediction_file import read_predictions, write_predictions
from convnext_dense.report import write_report


def text_of(page) -> str:
    """The page's text without pictures, cells separated by |."""
    html = re.sub(r'<style>.*?</style>|data:[^"]*', '', page.read_text(), flags=re.S)
    return re.sub(r'\|+', '|', re.sub(r'<[^>]+>', '|', html))


def rewrite_predictions(folder, change) -> None:
    """Apply `change` to each prediction of a work dir."""
    predictions = list(read_predictions(folder / 'predictions.npz'))
    for prediction in predictions:
        change(prediction)
    write_predictions(folder / 'predictions.npz', predictions)


def test_detection_page_has_the_metrics_of_pycocotools(make_run, truth):
    folder = make_run('one', 'det')
    text = text_of(write_report([folder], folder / 'report.html'))
    categories, results = sorted(truth.cats), []
    for found in read_predictions(folder / 'predictions.npz'):
        for i, label in enumerate(found['labels']):
            x1, y1, x2, y2 = found['bboxes'][i].tolist()
            results.append({'image_id': found['img_id'], 'category_id': categories[label],
                            'bbox': [x1, y1, x2 - x1, y2 - y1], 'score': found['scores'][i]})
    evaluation = COCOeval(truth, truth.loadRes(results), 'bbox')
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    names = ('AP', 'AP50', 'AP75', 'AP small objects', 'AP medium objects', 'AP large objects')
    for name, value in zip(names, evaluation.stats, strict=False):
        assert f'|box {name}|{"–" if value == -1 else f"{100 * value:.2f}"}|' in text
    assert f'|box AR, 100 detections|{100 * evaluation.stats[8]:.2f}|' in text
    assert 'mask AP' in text and 'The best' in text and 'has no published metrics' in text and 'triangle' in text
    assert 'Cls: right place, wrong class' in text and 'train_dataloader' in text


def test_segmentation_page_has_the_metrics_of_a_loop(make_run, shapes):
    folder = make_run('one', 'seg')
    text = text_of(write_report([folder], folder / 'report.html'))
    truth, predicted = [], []
    for prediction in read_predictions(folder / 'predictions.npz'):
        name = prediction['img_path'].rpartition('/')[2].replace('.jpg', '.png')
        labels = cv2.imread(str(shapes / 'ade/annotations/validation' / name), cv2.IMREAD_UNCHANGED)
        truth.append(labels.ravel().astype(int) - 1)
        predicted.append(prediction['labels'].ravel())
    truth, predicted = np.concatenate(truth), np.concatenate(predicted)
    ious = [((truth == k) & (predicted == k)).sum() / ((truth >= 0) & ((truth == k) | (predicted == k))).sum()
            for k in range(4)]
    assert f'|mIoU|{100 * np.mean(ious):.2f}|' in text
    assert f'|aAcc|{100 * (truth == predicted)[truth >= 0].mean():.2f}|' in text
    for name, iou in zip(('background', 'circle'), ious, strict=False):
        assert f'|{name}|{100 * iou:.1f}|' in text


@pytest.mark.slow
def test_two_runs_show_their_differences(make_run):
    first, second = make_run('first', 'det'), make_run('second', 'det', seed=1)
    text = text_of(write_report([first, second], first / 'both.html'))
    values = re.search(r'\|box AP\|([\d.]+)\|([\d.]+)\|([+-][\d.]+)\|', text)
    assert float(values[2]) - float(values[1]) == pytest.approx(float(values[3]), abs=0.011) != 0
    assert 'Where the two differ most' in text and 'first F1' in text
    assert write_report([first, first], first / 'same.html').is_file()


def test_published_metrics_stand_beside_ours(make_run):
    folder = make_run('published', 'det', config='mask-rcnn_convnext-t-in1k_fpn_8xb2-amp-ms-crop-3x_coco')
    text = text_of(write_report([folder], folder / 'report.html', images=0))
    assert re.search(r'\|box AP\|[\d.]+\|46\.20\|', text) and re.search(r'\|mask AP\|[\d.]+\|41\.70\|', text)
    assert '5000 validation images; here there are 10' in text


def test_what_is_missing_is_left_out_with_a_sentence(make_run):
    folder = make_run('bare', 'det')
    (folder / '20260101_000000/vis_data/scalars.json').unlink()
    (folder / 'metrics.json').write_text(json.dumps({'coco/bbox_mAP': 0.999}))

    def without_masks(prediction):
        del prediction['masks']
    rewrite_predictions(folder, without_masks)
    text = text_of(write_report([folder], folder / 'report.html', images=1))
    assert 'no training log' in text and 'No checkpoint is left' in text and 'mask AP' not in text
    assert 'says 99.90 box AP' in text


def test_a_detector_that_finds_nothing(make_run):
    folder = make_run('nothing', 'det')

    def nothing(prediction):
        prediction.update({name: prediction[name][:0] for name in ('bboxes', 'labels', 'scores', 'masks')})
    rewrite_predictions(folder, nothing)
    text = text_of(write_report([folder], folder / 'report.html'))
    assert '|box AP|0.00|' in text and 'largest missed objects' in text and 'No class was confused with another' in text


@pytest.mark.slow
def test_without_predictions_the_checkpoint_is_evaluated(make_run):
    folder = make_run('trained', 'seg')
    (folder / 'predictions.npz').unlink()
    torch.save({}, folder / 'bad_batch_iter_9.pth')  # the newest .pth file, and no checkpoint
    cfg = load_config(str(folder / 'tiny_seg.py'))
    init_default_scope('mmseg')
    torch.save({'state_dict': MODELS.build(cfg.model).state_dict()}, folder / 'best_mIoU_iter_8.pth')
    text = text_of(write_report([folder], folder / 'report.html', images=1))
    measured = json.loads((folder / 'report/best_mIoU_iter_8/metrics.json').read_text())
    assert f'|mIoU|{measured["mIoU"]:.2f}|' in text and 'best_mIoU_iter_8.pth' in text
    assert re.search(r'\|images per second\|[\d.]+\|', text)
    made = folder / 'report/best_mIoU_iter_8/predictions.npz'
    before = made.stat().st_mtime_ns
    write_report([folder], folder / 'report.html', images=0)
    assert made.stat().st_mtime_ns == before, 'made once'
    os.utime(made, ns=(0, 0))  # older than the weights
    write_report([folder], folder / 'report.html', images=0)
    assert made.stat().st_mtime_ns > before
    (folder / 'iter_4.pth').write_bytes((folder / 'best_mIoU_iter_8.pth').read_bytes())
    before = made.stat().st_mtime_ns
    text = text_of(write_report([folder], folder / 'report.html', checkpoint=str(folder / 'iter_4.pth'), images=0))
    assert 'iter_4.pth' in text and made.stat().st_mtime_ns == before, 'other weights go elsewhere'
    os.utime(folder / 'best_mIoU_iter_8.pth', ns=(0, 0))
    # as tools/test.py leaves it
    (folder / 'tiny_seg.py').write_text((folder / 'report/iter_4/tiny_seg.py').read_text())
    text = text_of(write_report([folder], folder / 'report.html', images=0))
    assert 'iter_4.pth' in text and 'best_mIoU' not in text.partition('Config of')[0]


def empty(folder):
    for file in folder.glob('*.py'):
        file.unlink()


def damaged(folder):
    file = folder / 'predictions.npz'
    file.write_bytes(file.read_bytes()[:-100])


def fewer(folder):
    write_predictions(folder / 'predictions.npz', read_predictions(folder / 'predictions.npz')[:-1])


def other_images(folder):
    rewrite_predictions(folder, lambda prediction: prediction.update(img_path='/elsewhere/7.jpg'))


def unknown_id(folder):
    rewrite_predictions(folder, lambda prediction: prediction.update(img_id=4711))


def unknown_label(folder):
    def change(prediction):
        prediction['labels'] = prediction['labels'] + 7
    rewrite_predictions(folder, change)


@pytest.mark.parametrize(('mistake', 'sentence'), [
    (empty, 'holds no config'), (damaged, 'damaged or cut off'), (fewer, '9 predictions for the 10 images'),
    (other_images, 'prediction 0 is of 7.jpg'), (unknown_id, 'ids 4711'), (unknown_label, 'has 3 classes'),
    (lambda folder: (folder / 'predictions.npz').unlink(), 'neither a checkpoint')])
def test_mistakes_are_one_sentence(make_run, mistake, sentence):
    folder = make_run('wrong', 'det')
    mistake(folder)
    with pytest.raises(UserError, match=sentence):
        write_report([folder], folder / 'report.html')
    assert not (folder / 'report.html').exists()


def test_two_tasks_stand_one_below_the_other(make_run, tmp_path):
    det, seg = make_run('det', 'det'), make_run('seg', 'seg')
    text = text_of(write_report([det, seg], tmp_path / 'both.html', images=1))
    for folder in (det, seg):
        alone = text_of(write_report([folder], tmp_path / 'one.html', images=1))
        assert re.search(r'\|(box AP|mIoU)\|[\d.]+\|', alone)[0] in text
    assert '|Detection: metrics|' in text and text.index('|Detection: errors|') < text.index('|Segmentation: metrics|')


def test_runs_that_do_not_compare(tmp_path):
    with pytest.raises(UserError, match='no such folder'):
        write_report([tmp_path / 'dte'], tmp_path / 'report.html')


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, file):
        self.file = str(file)

    def __reduce__(self):
        return open, (self.file, 'w')


def hostile_pickle(folder, trace):
    (folder / 'predictions.npz').unlink()
    (folder / 'predictions.pkl').write_bytes(pickle.dumps([Hostile(trace)]))


def pickle_under_the_new_name(folder, trace):
    (folder / 'predictions.npz').write_bytes(pickle.dumps([Hostile(trace)]))


def hostile_array(folder, trace):
    np.savez(folder / 'predictions.npz', boxes=np.array([Hostile(trace)], object), allow_pickle=True)


def hostile_array_in_a_good_file(folder, trace):
    with zipfile.ZipFile(folder / 'predictions.npz') as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    np.save(folder / 'boxes.npy', np.array([Hostile(trace)], object), allow_pickle=True)
    members['boxes.npy'] = (folder / 'boxes.npy').read_bytes()
    with zipfile.ZipFile(folder / 'predictions.npz', 'w') as archive:
        for name, data in members.items():
            archive.writestr(name, data)


@pytest.mark.parametrize('plant', [hostile_pickle, pickle_under_the_new_name, hostile_array,
                                   hostile_array_in_a_good_file])
def test_a_hostile_predictions_file_runs_nothing(make_run, tmp_path, plant):
    folder = make_run('hostile', 'det')
    plant(folder, tmp_path / 'trace')
    with pytest.raises(UserError, match='--trust-pickle|cannot be read as predictions'):
        write_report([folder], folder / 'report.html')
    assert not (tmp_path / 'trace').exists()


@pytest.mark.parametrize('task', ['det', 'seg'])
def test_old_pickles_are_read_on_request(make_run, task):
    folder = make_run('old', task)
    expected = text_of(write_report([folder], folder / 'report.html', images=0))
    old = []
    for found in read_predictions(folder / 'predictions.npz'):
        image = {key: found[key] for key in ('img_id', 'img_path', 'ori_shape') if key in found}
        if task == 'det':
            arrays = {key: torch.tensor(found[key]) for key in ('bboxes', 'scores', 'labels')}
            old.append({**image, 'pred_instances': {**arrays, 'masks': found['masks']}})
        else:
            old.append({**image, 'pred_sem_seg': {'data': torch.tensor(found['labels'], dtype=torch.int16)[None]}})
    (folder / 'predictions.pkl').write_bytes(pickle.dumps(old))
    shutil.copystat(folder / 'predictions.npz', folder / 'predictions.pkl')  # the page names the minute
    (folder / 'predictions.npz').unlink()
    with pytest.raises(UserError, match='only read with --trust-pickle'):
        write_report([folder], folder / 'report.html', images=0)
    text = text_of(write_report([folder], folder / 'report.html', images=0, trust_pickle=True))
    assert text.replace('predictions.pkl', 'predictions.npz') == expected


def test_a_log_line_that_a_kill_cut_off(make_run):
    folder = make_run('killed', 'det')
    expected = text_of(write_report([folder], folder / 'report.html', images=0))
    with (folder / '20260101_000000/vis_data/scalars.json').open('a') as log:
        log.write('{"lr": 0.1, "loss": 1.')
    (folder / '20260101_000000/20260101_000000.json').write_text('{"time": 0.5}\n{"ti')
    (folder / 'metrics.json').write_text('{"coco/bbox_mAP": 0.')
    text = text_of(write_report([folder], folder / 'report.html', images=0))
    assert f'|{folder / "metrics.json"} cannot be read: it is damaged or cut off.|' in text
    text = text.replace(f'{folder / "metrics.json"} cannot be read: it is damaged or cut off.|', '')
    assert re.search(r'\|images per second\|[\d.]+\|', text)
    assert re.sub(r'images per second\|[^|]*', '', text) == re.sub(r'images per second\|[^|]*', '', expected)


def test_label_maps_of_a_multi_scale_test_are_read(make_run):
    """--ms-flip and --report: LoadAnnotations is inside of TestTimeAug then."""
    folder = make_run('multi_scale', 'seg')
    expected = text_of(write_report([folder], folder / 'report.html', images=0))
    config = folder / 'tiny_seg.py'
    cfg = load_config(str(config))
    first, *others = cfg.test_dataloader.dataset.pipeline
    cfg.test_dataloader.dataset.pipeline = [first, dict(type='TestTimeAug', transforms=[[step] for step in others])]
    cfg.dump(config)
    text = text_of(write_report([folder], folder / 'report.html', images=0))
    assert text.partition('Config of')[0] == expected.partition('Config of')[0]


def test_the_page_names_the_weights_that_were_tested(make_run):
    folder = make_run('tested', 'det')
    torch.save({}, folder / 'epoch_9.pth')
    os.utime(folder / 'epoch_9.pth', ns=(0, 0))

    def weights() -> str:
        text = text_of(write_report([folder], folder / 'report.html', images=0))
        return re.search(r'\|The weights are ([^|]*)\.\|', text)[1]
    assert weights() == str(folder / 'epoch_9.pth')
    config = folder / 'tiny_det.py'
    cfg = load_config(str(config))
    for key in ('train_dataloader', 'train_cfg', 'optim_wrapper'):
        cfg.pop(key)
    for tested in ('mask-rcnn_convnext-t-in1k', 'https://host.example/weights.pth'):  # of tools/test.py
        cfg.load_from = tested
        cfg.dump(config)
        assert weights() == tested


def test_the_tool(make_run):
    folder = make_run('one', 'seg')
    finished = must_run('report', 'one', '--images', 1, '--device', 'cpu', cwd=folder.parent)
    assert (folder / 'report.html').is_file() and 'one/report.html' in finished.out
    for wrong, sentence in ((['one', '--images', '-1'], '--images -1'), (['one', '--out', 'x.pdf'], 'ends in .html'),
                            (['one', '--checkpoint', 'no.pth'], 'no.pth: no such file')):
        assert sentence in run_tool('report', *wrong, '--device', 'cpu', cwd=folder.parent).error
