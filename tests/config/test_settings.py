"""A wrong name or setting in a config is a sentence, with what was probably meant."""
import re
import sys

import pytest
from mmengine.registry import LOOPS, MODELS, OPTIMIZERS, init_default_scope
from mmengine.runner import Runner
from torch.nn import Linear

from convnext_dense.cli import running
from convnext_dense.config.settings import explain_settings


class Passes:
    def __init__(self):
        Linear(1, 1, biass=True)


class Lacks:
    def __init__(self):
        Linear(1)


MODELS.register_module(module=Passes)
MODELS.register_module(module=Lacks)
WRONG = {
    'setting': (lambda: MODELS.build(dict(type='ConvNeXt', arch='atto', drop_path_rat=0.1)),
                r"ConvNeXt has no setting 'drop_path_rat' \(the config has drop_path_rat=0.1\); did you mean "
                r'drop_path_rate\?'),
    'setting of a base class': (
        lambda: MODELS.build(dict(type='mmseg.FCNHead', in_channels=4, chanels=4, num_classes=2)),
        r"FCNHead has no setting 'chanels' .*; did you mean channels\?"),
    'setting unlike any': (lambda: MODELS.build(dict(type='Passes', colour=1)),
                           r"Passes has no setting 'colour' \(the config has colour=1\); it has "),
    'setting of the data loader': (
        lambda: Runner.build_dataloader(dict(dataset=[1], sampler=dict(type='DefaultSampler', shuffle=False),
                                             batchsize=2)),
        r"DataLoader has no setting 'batchsize' .*; did you mean batch_size\?"),
    'setting that lacks': (lambda: OPTIMIZERS.build(dict(type='SGD', lr=1)),
                           "SGD needs 'params', which the config does"),
    'loop': (lambda: LOOPS.build(dict(type='IterBasedTrainLoop', runner=None, dataloader=None, max_epochs=1)),
             r"IterBasedTrainLoop has no setting 'max_epochs' .*; did you mean max_iters\?"),
    'class': (lambda: MODELS.build(dict(type='ConvNext')),
              r"type='ConvNext' of the config is not in the model registry; did you mean ConvNeXt\?"),
    'class of another package': (lambda: MODELS.build(dict(type='mmdet.RetinaHed')),
                                 r"type='mmdet.RetinaHed' of the config is not in the model registry; did you mean "
                                 r'RetinaHead\?'),
    'class unlike any': (lambda: MODELS.build(dict(type='Qqqqqq')),
                         'name the module that registers it in custom_imports'),
}


@pytest.mark.parametrize('build, sentence', WRONG.values(), ids=WRONG)
def test_what_a_config_gets_wrong(build, sentence, monkeypatch, capsys):
    init_default_scope('mmdet')
    with pytest.raises((TypeError, KeyError)) as raised:
        build()
    monkeypatch.setattr(sys, 'argv', ['tools/train.py'])
    with pytest.raises(SystemExit) as stopped:
        running.fail_at_setting(raised.value)
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and said.count('\n') == 1
    assert re.search(sentence, said), said


@pytest.mark.parametrize('build', [
    lambda: MODELS.build(dict(type='Passes')), lambda: MODELS.build(dict(type='Lacks')),
    lambda: Linear(1, 1, biass=True), lambda: {}['Foo is not in the list']],
    ids=['passed on by a class', 'left out by a class', 'outside of a config', 'a key'])
def test_other_errors_keep_their_traceback(build):
    with pytest.raises((TypeError, KeyError)) as raised:
        build()
    assert explain_settings(raised.value) is None
    running.fail_at_setting(raised.value)  # returns
