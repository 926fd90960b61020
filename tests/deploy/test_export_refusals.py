"""What cannot be exported, or not so: one sentence each, and nothing is written."""
import re

import cv2
import numpy as np
import pytest
import torch
from tiny_detectors import tiny_detector, tiny_detector_config
from tool_runs import CONFIGS, run_tool

from convnext_dense.deploy.formats import check_name
from convnext_dense.deploy.losses import Loss, check_losses
from convnext_dense.errors import UserError
from convnext_dense.runtime import Predictor


@pytest.fixture(scope='module')
def image(tmp_path_factory):
    """An image file."""
    file = tmp_path_factory.mktemp('image') / 'a.png'
    cv2.imwrite(str(file), np.zeros((64, 64, 3), np.uint8))
    return file


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """A checkpoint of the tiny detector of three classes."""
    file = tmp_path_factory.mktemp('weights') / 'a.pth'
    model = tiny_detector(tiny_detector_config('mask')).model
    torch.save({'state_dict': model.state_dict(), 'meta': {'dataset_meta': {'classes': ('a', 'b', 'c')}}}, file)
    return file


@pytest.mark.parametrize(('flags', 'message'), [
    (['--opset', 9], '--opset 9: expected 18 to 21'),
    (['--out', 'model.pt2'], '--out model.pt2: expected a name that ends in .onnx with --to onnx'),
    (['--out', '/proc/model.onnx'], '/proc/model.onnx cannot be written'),
    (['--size', 16, 64], r'--size \(16, 64\).*at least 32 pixels'),
    (['--batch', 0], '--batch 0: .*at least one image'),
    (['--precision', 'int8'], '--precision int8 needs --calibrate'),
    (['--precision', 'int8', '--calibrate', 'nowhere/'], 'nowhere'),
    (['--precision', 'int8', '--to', 'torch', '--out', 'a.pt2'], 'int8 goes with --to onnx and --to openvino'),
    (['--calibrate', 'x.jpg'], '--calibrate is for --precision int8'),
    (['--images', 'nowhere/'], 'nowhere'),
    (['--cfg-options', 'model.test_cfg.rcnn.nms.type=soft_nms'], 'MaskRCNN with soft-NMS cannot be exported'),
    (['--cfg-options', 'test_dataloader.dataset.pipeline.1.type=RandomFlip'], 'has RandomFlip'),
    (['--cfg-options', 'model.roi_head.bbox_head.num_classes=4', 'model.roi_head.mask_head.num_classes=4'],
     'a.pth')])
def test_refusals_of_export(flags, message, image, weights, tmp_path):
    flags = [*flags, *(['--out', 'model.onnx'] if '--out' not in flags else []),
             *(['--images', image] if '--images' not in flags else [])]
    assert re.search(message, run_tool('export', CONFIGS['det'], weights, *flags, cwd=tmp_path).error)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_no_file_to_write(tmp_path):
    out = tmp_path / 'model.onnx'
    out.mkdir()
    with pytest.raises(UserError, match='model.onnx is a folder: expected the name of a file'):
        check_name(out, 'onnx')


def test_int8_that_loses_too_much_is_refused():
    losses = [Loss('coco/bbox_mAP', 80.0, 79.2), Loss('coco/segm_mAP', 70.0, 68.5)]
    check_losses(losses, 1.5, 'm.onnx')
    with pytest.raises(UserError, match=r'm.onnx is not written: int8 loses more than --max-loss 1 points '
                                        r'\(coco/segm_mAP 68.50, 70.00 before \(-1.50\)\)'):
        check_losses(losses, 1, 'm.onnx')
    with pytest.raises(UserError, match='loses more'):
        check_losses([Loss('mIoU', 80.0, float('nan'))], 1, 'm.onnx')
    with pytest.raises(UserError, match='neither AP nor mIoU'):
        check_losses([], 1, 'm.onnx')


@pytest.mark.parametrize(('tiles', 'message'), [
    (dict(tile=16), "at least the network's stride of 32"), (dict(tile=64, overlap=0.95), 'from 0 to 0.9')])
def test_tiles_that_cannot_work_are_refused(tiles, message):
    with pytest.raises(UserError, match=message):
        Predictor('model.onnx', **tiles)
