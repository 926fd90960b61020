"""Predictions as mmdet has them, as arrays."""
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from convnext_dense.evaluation.prediction_file import plain_prediction
from convnext_dense.visualization.predictions import instances_of


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_predictions_of_any_precision_are_arrays(dtype):
    """Heads of mmdet return the type that they compute in; numpy has no bfloat16."""
    boxes, scores = torch.tensor([[0.5, 1.25, 30, 47]]), torch.tensor([0.75])
    found = InstanceData(bboxes=boxes.to(dtype), scores=scores.to(dtype), labels=torch.tensor([3]))
    instances = instances_of(found)
    assert np.array_equal(instances.boxes, boxes) and np.array_equal(instances.scores, scores)
    sample = DetDataSample(metainfo=dict(img_path='a.png', ori_shape=(50, 60), img_id=1))
    sample.pred_instances = found
    plain = plain_prediction(sample.to_dict())
    assert np.array_equal(plain['bboxes'], boxes) and np.array_equal(plain['scores'], scores)
