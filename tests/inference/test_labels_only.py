"""Who makes label maps without full-size scores."""
import numpy as np
from mmseg.models import EncoderDecoder

from convnext_dense.config import load_config
from convnext_dense.engine.runner import DenseRunner
from convnext_dense.inference.predictor import Predictor


def test_predictor_gives_the_labels_of_mmsegs_class(tiny, checkpoints, images):
    cfg = load_config(str(tiny['seg']))
    ours = Predictor(cfg, checkpoints['seg'])
    cfg.model.type = 'EncoderDecoder'
    stock = Predictor(cfg, checkpoints['seg'])
    assert type(stock.model) is EncoderDecoder and ours.model.labels_only
    for expected, found in zip(stock(images), ours(images), strict=True):
        assert len(np.unique(expected.labels)) > 1 and (expected.labels != found.labels).mean() < 1e-3


def test_runner_evaluates_labels_only_but_augmentation_keeps_scores(tiny):
    """Test-time augmentation averages the scores of its views."""
    runner, cfg = DenseRunner.__new__(DenseRunner), load_config(str(tiny['seg']))
    model = dict(cfg.model, type='FastEncoderDecoder', _scope_='mmseg')
    assert runner.build_model(model).labels_only
    assert not runner.build_model(dict(type='SegTTAModel', module=model, _scope_='mmseg')).module.labels_only
