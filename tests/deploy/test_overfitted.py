"""Exported models keep AP and mIoU of trained ones; the whole matrix is that of `overfitted.py`, run as a script."""
from dataclasses import replace

import pytest
from overfitted import learn, sizes_and_batches

from convnext_dense.deploy.formats import convert_openvino
from convnext_dense.deploy.proof import LIMITS, check
from convnext_dense.runtime import Predictor

pytestmark = [pytest.mark.slow, pytest.mark.long]


def test_metrics_are_those_of_the_trained_model(real_data, tmp_path):
    """To 0.1 points in float32; detections of float16 match; int8, calibrated on other images, loses what it says."""
    model = learn('Mask R-CNN', 'V1', real_data, tmp_path)
    trained, (file, _) = model.metrics(), model.export('onnx')
    exported = model.metrics(file)
    seen = sizes_and_batches(model, file)
    print(f'\n{trained} before, {exported} exported; {seen}')
    assert trained.keys() == exported.keys() and min(trained.values()) > 5
    for metric, value in trained.items():
        assert abs(exported[metric] - value) <= 0.1
    check(seen, LIMITS['float32'], file.name)
    file, _ = model.export('onnx', '--precision', 'float16')
    convert_openvino(file, Predictor(file, 'cpu').metadata, file.with_suffix('.xml'))
    for each in (file, file.with_suffix('.xml')):
        seen = sizes_and_batches(model, each)
        print(f'{each.name} in float16: {seen}')
        # at sizes that it has not learned the model has many scores near the config's threshold
        check(seen, replace(LIMITS['float16'], missing=0.1), each.name)
    file, said = model.export('onnx', '--precision', 'int8', '--calibrate', *model.others, '--max-loss', 5)
    lines = [line for line in said.splitlines() if line.startswith('int8 on the test set: ')]
    print('\n'.join(lines))
    for metric, value in model.metrics(file).items():
        assert any(line.startswith(f'int8 on the test set: {metric} {value:.2f}, {trained[metric]:.2f} before')
                   for line in lines)
