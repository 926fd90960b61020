"""tools/predict.py: every kind of input, what it leaves behind, and what happens to files that cannot be read."""
import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from tool_runs import run_tool

from convnext_dense.config import load_config
from convnext_dense.inference import files, outputs
from convnext_dense.inference.inputs import Input, find_inputs, read_frames
from convnext_dense.inference.outputs import Output
from convnext_dense.inference.predictor import Predictor
from convnext_dense.inference.results import Segmentation


def write_video(path, pictures, suffix_codec='mp4v') -> None:
    height, width = pictures[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*suffix_codec), 8, (width, height))
    for picture in pictures:
        writer.write(picture)
    writer.release()


def results(folder) -> dict:
    return json.loads((folder / 'predictions.json').read_text())


@pytest.fixture
def clip(images, tmp_path):
    """A video of five frames, 64x64 pixels."""
    write_video(tmp_path / 'clip.mp4', [cv2.imread(str(images[0]))] * 5)
    return tmp_path / 'clip.mp4'


def test_detections_are_written_as_coco(tiny, checkpoints, images, tmp_path):
    finished = run_tool('predict', tiny['det'], checkpoints['det'], images[0].parent, '--out', tmp_path / 'out',
                      '--score-thr', 0, '--batch-size', 3)
    assert finished.code == 0
    expected = Predictor(tiny['det'], checkpoints['det'], score_thr=0)(images)
    written = COCO(str(tmp_path / 'out/predictions.json'))
    assert [category['name'] for category in written.loadCats(written.getCatIds())] == ['circle', 'square', 'triangle']
    for image_id, (file, found) in enumerate(zip(images, expected, strict=True), 1):
        entry = written.imgs[image_id]
        assert (entry['file_name'], (entry['height'], entry['width'])) == (str(file), found.size)
        annotations = written.imgToAnns[image_id]
        assert len(annotations) == len(found.labels) == 5
        scores = [annotation['score'] for annotation in annotations]
        np.testing.assert_allclose(scores, sorted(found.scores, reverse=True), atol=1e-5)
        for annotation in annotations:
            index = np.abs(found.scores - annotation['score']).argmin()
            x, y, width, height = annotation['bbox']
            np.testing.assert_allclose((x, y, x + width, y + height), found.boxes[index], atol=0.011)
            assert annotation['category_id'] == found.labels[index] + 1
            np.testing.assert_array_equal(coco_mask.decode(annotation['segmentation']), found.masks[index])
            assert annotation['area'] == found.masks[index].sum()
    pictures = sorted(path.name for path in (tmp_path / 'out/pictures').iterdir())
    assert pictures == ['0.jpg', '1.jpg', '2.jpg', '3.jpg']


def test_score_threshold_and_no_pictures(tiny, checkpoints, images, tmp_path):
    scores = np.sort(Predictor(tiny['det'], checkpoints['det'], score_thr=0)(images[0]).scores)
    threshold = float(scores[2:4].mean())
    assert scores[2] < threshold < scores[3]
    run_tool('predict', tiny['det'], checkpoints['det'], images[0], '--out', tmp_path / 'out', '--no-pictures',
              '--score-thr', threshold)
    assert len(results(tmp_path / 'out')['annotations']) == 2
    assert len(Predictor(tiny['det'], checkpoints['det'], score_thr=threshold)(images[0])) == 2
    assert not (tmp_path / 'out/pictures').exists()


def test_label_maps_have_the_palette(tiny, checkpoints, images, tmp_path):
    run_tool('predict', tiny['seg'], checkpoints['seg'], *images, '--out', tmp_path)
    predictor = Predictor(tiny['seg'], checkpoints['seg'])
    for entry, found in zip(results(tmp_path)['images'], predictor(images), strict=True):
        written = Image.open(tmp_path / entry['labels'])
        np.testing.assert_array_equal(np.array(written), found.labels)
        np.testing.assert_array_equal(np.array(written.convert('RGB')), np.array(predictor.palette)[found.labels])
    assert [category['color'] for category in results(tmp_path)['categories']] == [list(c) for c in predictor.palette]


def test_more_classes_than_a_byte_has_values(tmp_path):
    labels = np.array([[0, 299], [255, 256]], np.uint16)
    Segmentation(labels, ['x'] * 300).save_labels(tmp_path / 'labels.png')
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / 'labels.png'), cv2.IMREAD_UNCHANGED), labels)


@pytest.mark.parametrize('task', ['det', 'seg'])
def test_a_video_gives_a_video_and_results_of_every_frame(task, tiny, checkpoints, clip, tmp_path):
    finished = run_tool('predict', tiny[task], checkpoints[task], clip, '--out', tmp_path / 'out', '--batch-size', 2)
    assert finished.code == 0
    images = results(tmp_path / 'out')['images']
    assert [entry['frame'] for entry in images] == [0, 1, 2, 3, 4]
    drawn = list(read_frames(tmp_path / 'out/pictures/clip.mp4'))
    assert len(drawn) == 5 and drawn[0].shape[0] > drawn[0].shape[1] == 512  # enlarged, with room for a legend
    assert not list(tmp_path.rglob('*.part*'))
    if task == 'seg':
        expected = Predictor(tiny['seg'], checkpoints['seg'])(list(read_frames(clip)))
        for entry, found in zip(images, expected, strict=True):
            np.testing.assert_array_equal(np.array(Image.open(tmp_path / 'out' / entry['labels'])), found.labels)


def test_files_that_cannot_be_predicted_are_skipped_and_reported(tiny, checkpoints, images, tmp_path):
    folder = tmp_path / 'in'
    shutil.copytree(images[0].parent, folder)
    (folder / 'broken.jpg').write_bytes(b'no image')
    (folder / 'empty.png').touch()
    (folder / 'film.mp4').write_bytes(b'no video')
    Image.new('1', (40000, 30000)).save(folder / 'huge.png')  # beyond the limits of PIL and of OpenCV
    Image.new('L', (1, 5000)).save(folder / 'narrow.png')  # at the scale of the config, its width is 0
    (folder / 'notes.txt').write_text('not asked for')
    finished = run_tool('predict', tiny['det'], checkpoints['det'], folder, '--out', tmp_path / 'out')
    assert finished.code == 1
    lines = finished.err.splitlines()
    for name, reason in (('broken.jpg', 'cannot read'), ('empty.png', 'cannot read'), ('film.mp4', 'cannot read'),
                         ('huge.png', '.*has 1,200,000,000 pixels, more than the limit'),
                         ('narrow.png', '.*has 1x5000 pixels, and the test pipeline of the config fails on it')):
        assert sum(bool(re.match(f'skipped {folder / name}: {reason}', line)) for line in lines) == 1, name
    assert lines[-1] == '5 of 9 files skipped'
    assert len(results(tmp_path / 'out')['images']) == 4


def test_an_image_that_the_network_refuses_does_not_end_the_others(tiny, checkpoints, images, tmp_path):
    """2000x10 pixels, in a batch with images that work: at the detector's scale it has no row, a segmentor needs 32."""
    Image.new('RGB', (2000, 10), 'red').save(tmp_path / 'long.png')
    inputs = [images[0], tmp_path / 'long.png', images[2]]
    for task, sentence in (('det', 'has 2000x10 pixels, and the test pipeline of the config fails on it'),
                           ('seg', 'the network does not take an image of 2000x10 pixels (ConvNeXt needs')):
        finished = run_tool('predict', tiny[task], checkpoints[task], *inputs, '--out', tmp_path / task,
                            '--batch-size', 3)
        assert finished.code == 1 and len(results(tmp_path / task)['images']) == 2
        assert sentence in finished.err and finished.err.count('skipped ') == 1


@pytest.mark.parametrize('names, expected', [
    (['film.mp4'], 'cannot read .*film.mp4 as a video'), (['broken.jpg'], 'cannot read .*broken.jpg as an image'),
    (['empty'], 'empty has no image and no video'), (['*.bmp'], r'no file matches .*\*.bmp'),
    (['typo.jpg'], 'typo.jpg does not exist'), ([], 'nothing to predict')])
def test_nothing_to_predict_is_one_sentence(names, expected, tiny, checkpoints, tmp_path):
    (tmp_path / 'film.mp4').write_bytes(b'no video')
    (tmp_path / 'broken.jpg').write_bytes(b'no image')
    (tmp_path / 'empty').mkdir()
    finished = run_tool('predict', tiny['seg'], checkpoints['seg'], *(tmp_path / name for name in names),
                      '--out', tmp_path / 'out')
    assert finished.code == 2 and re.match('error: .*' + expected, finished.err.splitlines()[-1])


def test_an_interrupt_leaves_what_was_done(tiny, checkpoints, images, tmp_path, monkeypatch):
    read, done = files.read_image, []

    def read_two(*args):
        done.append(args)
        if len(done) > 2:
            raise KeyboardInterrupt
        return read(*args)
    monkeypatch.setattr(files, 'read_image', read_two)
    finished = run_tool('predict', tiny['det'], checkpoints['det'], *images, '--out', tmp_path)
    assert finished.code == 130
    assert [entry['file_name'] for entry in results(tmp_path)['images']] == [str(file) for file in images[:2]]
    assert '2 images or frames predicted' in finished.out


def test_results_are_saved_while_predicting(tmp_path, monkeypatch):
    """A process that is killed leaves a complete predictions.json of what was done up to the last saving."""
    source = Input(Path(__file__), 'test_predict_tool')
    result = Segmentation(np.zeros((4, 6), np.uint8), ('a',))
    output = Output(tmp_path, ('a',), [(0, 0, 0)])
    output.add(source, None, None, result)
    assert not (tmp_path / 'predictions.json').exists()  # 30 seconds have not passed
    monkeypatch.setattr(outputs, 'SAVE_SECONDS', 0)
    output.next_saving = 0
    for _ in range(2):
        output.add(source, None, None, result)
    saved = results(tmp_path)
    assert [entry['id'] for entry in saved['images']][:2] == [1, 2] and saved['categories'][0]['name'] == 'a'


def test_a_subset_of_the_classes_has_its_own_colours(tiny, checkpoints, images, tmp_path):
    """mmdet's CocoDataset keeps its palette of 80 colours whatever its classes are."""
    classes = "test_dataloader.dataset.metainfo={'classes':('circle','square','triangle')}"
    finished = run_tool('predict', tiny['det'], checkpoints['det'], *images[:2], '--out', tmp_path, '--cfg-options',
                        'test_dataloader.dataset.type=CocoDataset', classes)
    assert finished.code == 0
    written = results(tmp_path)
    assert [category['name'] for category in written['categories']] == ['circle', 'square', 'triangle']
    assert len({tuple(category['color']) for category in written['categories']}) == 3 and len(written['images']) == 2


def test_files_of_one_name_get_results_of_their_own(images, tmp_path):
    for folder in ('a', 'b'):
        (tmp_path / folder / 'deep').mkdir(parents=True)
        shutil.copy(images[0], tmp_path / folder / 'cat.png')
        shutil.copy(images[0], tmp_path / folder / 'deep/cat.jpg')
    found = find_inputs([str(tmp_path / 'a'), str(tmp_path / 'b'), str(tmp_path / 'b/cat.png')])
    assert [source.name for source in found] == ['cat', 'deep/cat', 'cat_2', 'deep/cat_2']
    assert len({source.path for source in found}) == 4
    found = find_inputs([str(tmp_path / '**/cat.png')])
    assert [source.name for source in found] == ['a/cat', 'b/cat']
    found = find_inputs([str(tmp_path)], exclude=tmp_path / 'b')
    assert [source.name for source in found] == ['a/cat', 'a/deep/cat']


def test_results_of_two_runs_do_not_mix(tmp_path):
    source = Input(Path(__file__), 'test_predict_tool')
    for value in (1, 2):
        with Output(tmp_path, ('a', 'b', 'c'), [(0, 0, 0)] * 3) as output:
            output.add(source, None, None, Segmentation(np.full((4, 6), value, np.uint8), ('a', 'b', 'c')))
    assert (np.array(Image.open(tmp_path / 'labels/test_predict_tool.png')) == 2).all()
    assert [(entry['id'], entry['width'], entry['height']) for entry in results(tmp_path)['images']] == [(1, 6, 4)]


def test_command_and_predictor_agree_on_the_threshold_and_on_a_run(tiny, checkpoints, images, tmp_path):
    """Without options, both leave out what is below 0.3, and both take a run's config and best checkpoint."""
    run = tmp_path / 'people/run'
    run.mkdir(parents=True)
    cfg = load_config(str(tiny['det']))
    cfg.model.test_cfg.rcnn.max_per_img = 100
    cfg.dump(run / 'tiny_det.py')  # as training writes it, without bases
    shutil.copy(checkpoints['seg'], run / 'epoch_9.pth')  # does not fit: taking it would be an error
    shutil.copy(checkpoints['det'], run / 'best_coco_bbox_mAP_epoch_3.pth')
    assert run_tool('predict', run, images[0], '--out', tmp_path / 'out', '--no-pictures').code == 0
    found, every = Predictor(run)(images[0]), Predictor(run, score_thr=0)(images[0])
    expected = Predictor(cfg, checkpoints['det'], score_thr=0)(images[0])
    np.testing.assert_array_equal(every.boxes, expected.boxes)
    assert 0 < len(found) < len(every) and (found.scores >= 0.3).all()
    assert [entry['score'] for entry in results(tmp_path / 'out')['annotations']] == \
        [round(float(score), 5) for score in found.scores]
    line = run_tool('predict', run.parent, images[0]).error
    assert f'{run.parent} holds no config' in line
    (run / 'best_coco_bbox_mAP_epoch_3.pth').unlink()
    (run / 'epoch_9.pth').unlink()
    assert 'has no checkpoint (best_*.pth' in run_tool('predict', run, images[0]).error


def test_hidden_parts_and_colours(tiny, checkpoints, images, tmp_path):
    """Hiding all parts leaves the image and its legend."""
    common = ('predict', tiny['det'], checkpoints['det'], images[0], '--score-thr', 0)
    for name, options in (('all', ()), ('none', ('--hide', 'boxes', 'masks', 'labels', 'scores')),
                          ('each', ('--colour-by', 'instance'))):
        assert run_tool(*common, '--out', tmp_path / name, *options).code == 0
    pictures = {name: cv2.imread(str(tmp_path / name / 'pictures/0.jpg'))[:512].astype(int)
                for name in ('all', 'none', 'each')}
    image = cv2.imread(str(images[0])).repeat(8, axis=0).repeat(8, axis=1)
    assert np.abs(pictures['none'] - image).mean() < 2 < np.abs(pictures['all'] - image).mean()
    assert np.abs(pictures['each'] - pictures['all']).mean() > 2
