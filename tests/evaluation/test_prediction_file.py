"""predictions.npz: what is read equals what was written, and damaged or hostile files are one sentence."""
import json
import zipfile

import numpy as np
import pytest
import torch
from mmengine.registry import METRICS
from pycocotools import mask as coco_mask

from convnext_dense.errors import UserError
from convnext_dense.evaluation.prediction_file import plain_prediction, read_predictions, write_predictions
from convnext_dense.visualization.predictions import check_run_lengths


def sample(task: str, index: int, found: int = 3) -> dict:
    """A data sample as mmdet or mmseg hands it to a metric; images differ in size."""
    random = np.random.default_rng(index)
    height, width = 20 + index, 30
    image = dict(img_id=index + 7, img_path=f'images/{index}.jpg', ori_shape=(height, width), scale_factor=(1.0, 1.0))
    if task == 'seg':
        labels = random.integers(0, 300 if index else 5, (1, height, width))
        return {**image, 'pred_sem_seg': {'data': torch.tensor(labels)}, 'seg_logits': {'data': torch.zeros(9)}}
    masks = random.random((found, height, width)) < 0.5
    return {**image, 'pred_instances': dict(bboxes=torch.rand(found, 4), scores=torch.rand(found),
                                            labels=torch.arange(found), masks=torch.tensor(masks))}


@pytest.fixture(params=['det', 'seg'])
def written(request, tmp_path):
    """(samples, file): three images, the second one without detections."""
    samples = [sample(request.param, index, found) for index, found in enumerate((3, 0, 2))]
    metric = METRICS.build(dict(type='DumpPredictions', out_file=str(tmp_path / 'new/predictions.npz')))
    for one in samples:
        metric.process({}, [one])
    assert metric.evaluate(3) == {}
    return samples, tmp_path / 'new/predictions.npz'


def test_what_is_read_equals_what_was_written(written):
    samples, file = written
    predictions = read_predictions(file)
    assert len(predictions) == 3
    for one, found in zip(samples, predictions, strict=True):
        assert (found['img_path'], found['ori_shape']) == (one['img_path'], one['ori_shape'])
        if 'pred_sem_seg' in one:
            np.testing.assert_array_equal(found['labels'], one['pred_sem_seg']['data'][0])
            continue
        expected = one['pred_instances']
        assert found['img_id'] == one['img_id']
        for name in ('bboxes', 'scores', 'labels'):
            np.testing.assert_array_equal(found[name], expected[name])
        assert len(found['masks']) == len(expected['masks'])
        for mask, wanted in zip(found['masks'], expected['masks'], strict=True):
            np.testing.assert_array_equal(coco_mask.decode(mask), wanted)
    with np.load(file) as arrays:  # anyone can read it
        assert json.loads(arrays['images.json'])['version'] == 1
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]


def test_masks_may_be_encoded_already():
    one = sample('det', 0)
    expected = plain_prediction(one)
    one['pred_instances']['masks'] = expected['masks']
    assert plain_prediction(one)['masks'] == expected['masks']
    one['ori_shape'] = (99, 99)
    with pytest.raises(UserError, match=r'images/0.jpg: a predicted mask is \(20, 30\).*the image \(99, 99\)'):
        plain_prediction(one)


def test_a_cut_off_file_at_any_length_is_one_sentence(written):
    _, file = written
    content = file.read_bytes()
    for length in range(0, len(content), max(1, len(content) // 40)):
        file.write_bytes(content[:length])
        with pytest.raises(UserError, match='cannot be read as predictions'):
            list(read_predictions(file))


def test_any_damaged_byte_is_one_sentence_or_harmless(written):
    _, file = written
    content, random = file.read_bytes(), np.random.default_rng(0)
    for place in random.integers(0, len(content), 150):
        file.write_bytes(content[:place] + bytes([content[place] ^ int(random.integers(1, 256))]) + content[place + 1:])
        try:
            list(read_predictions(file))
        except UserError as error:
            assert 'cannot be read as predictions' in str(error)


def rewrite(file, change) -> None:
    """Apply `change` to the members, {name: bytes or array}, of a file; compression stays as it is."""
    with np.load(file) as arrays:
        members = {name: arrays[name] for name in arrays.files}
    members['images.json'] = json.loads(members['images.json'])
    change(members)
    with zipfile.ZipFile(file, 'w') as archive:
        for name, content in members.items():
            if name == 'images.json':
                archive.writestr(name, json.dumps(content))
            else:
                info = zipfile.ZipInfo(f'{name}.npy')
                info.compress_type = zipfile.ZIP_DEFLATED if name.startswith('labels_') else zipfile.ZIP_STORED
                with archive.open(info, 'w') as member:
                    np.lib.format.write_array(member, np.asarray(content))


DAMAGES = {
    'version': lambda m: m['images.json'].update(version=9),
    'no images': lambda m: m['images.json'].pop('images'),
    'nested': lambda m: m.update({'images.json': ['x']}),
    'size': lambda m: m['images.json']['images'][0].update(ori_shape=[-1, 3]),
    'huge': lambda m: m['images.json']['images'][0].update(ori_shape=[10 ** 6, 10 ** 6]),
    'counts': lambda m: m['images.json']['images'][0].update(detections=4),
    'negative count': lambda m: [m['images.json']['images'][0].update(detections=-1),
                                 m['images.json']['images'][1].update(detections=4)],
    'NaN': lambda m: m['scores'].__setitem__(0, np.nan),
    'infinite': lambda m: m['boxes'].__setitem__((0, 0), np.inf),
    'float labels': lambda m: m.update(labels=m['labels'].astype(float)),
    'mask lengths': lambda m: m['mask_lengths'].__setitem__(0, 10 ** 9),
    'mask bytes': lambda m: m['mask_counts'].__setitem__(0, 200),
    'masks of other images': lambda m: m['images.json']['images'][0].update(ori_shape=[21, 30]),
    'endless mask': lambda m: m['mask_counts'].__setitem__(m['mask_lengths'][0] - 1, 48 + 63),
}


@pytest.mark.parametrize('damage', DAMAGES.values(), ids=DAMAGES)
def test_content_that_does_not_fit_is_one_sentence(damage, tmp_path):
    write_predictions(tmp_path / 'predictions.npz', [plain_prediction(sample('det', index)) for index in range(3)])
    rewrite(tmp_path / 'predictions.npz', damage)
    with pytest.raises(UserError, match='predictions.npz cannot be read as predictions'):
        read_predictions(tmp_path / 'predictions.npz')


@pytest.mark.parametrize('name', ['images.json', 'scores.npy'])
def test_a_small_file_cannot_take_any_amount_of_memory(name, tmp_path):
    """A deflated member can be a thousand times as large as the file."""
    write_predictions(tmp_path / 'good.npz', [plain_prediction(sample('det', 0))])
    with zipfile.ZipFile(tmp_path / 'good.npz') as good, zipfile.ZipFile(tmp_path / 'bomb.npz', 'w') as bomb:
        for member in good.namelist():
            bomb.writestr(member, good.read(member), zipfile.ZIP_DEFLATED if member == name else zipfile.ZIP_STORED)
    with pytest.raises(UserError, match=f'{name} is not compressed as expected'):
        read_predictions(tmp_path / 'bomb.npz')


def test_a_label_map_cannot_take_more_memory_than_its_image(tmp_path):
    file = tmp_path / 'predictions.npz'
    write_predictions(file, [plain_prediction(sample('seg', 0))])
    rewrite(file, lambda members: members.update(labels_0=np.zeros((20, 30000), np.uint8)))
    with pytest.raises(UserError, match='labels_0 is larger than its image'):
        read_predictions(file)[0]
    rewrite(file, lambda members: members.update(labels_0=np.zeros((30, 20), np.uint8)))
    with pytest.raises(UserError, match='labels_0 is no label map of 20x30 pixels'):
        read_predictions(file)[0]


def test_run_lengths_that_fit_are_those_that_pycocotools_can_decode_in_full():
    random, accepted = np.random.default_rng(0), 0
    texts = [bytes(random.integers(48, highest, random.integers(1, 7)).astype(np.uint8))
             for highest in (56, 112) for _ in range(10000)]
    for height, width in ((31, 17), (1, 1), (300, 200)):
        for share in (0, 0.01, 0.5, 1):
            mask = random.random((height, width)) < share
            text = coco_mask.encode(np.asfortranarray(mask, np.uint8))['counts']
            check_run_lengths(np.frombuffer(text, np.uint8), np.array([len(text)]), np.array([mask.size]))
    for text in texts:
        try:
            check_run_lengths(np.frombuffer(text, np.uint8), np.array([len(text)]), np.array([16]))
        except ValueError:
            continue
        mask = dict(size=[4, 4], counts=text)
        everything = dict(size=[4, 4], counts=coco_mask.encode(np.ones((4, 4), np.uint8, order='F'))['counts'])
        area = coco_mask.decode(mask).sum()
        assert coco_mask.area(mask) == area and coco_mask.iou([mask], [everything], [0]) == area / 16
        accepted += 1
    assert accepted > 100
