"""Every operator that models of mmdet and mmseg reach is there, and docs/operators.md says so."""
import re

import pytest

from convnext_dense.mm import environment, operators

for package in ('mmcv', 'mmdet', 'mmseg'):
    pytest.importorskip(package)
if environment.versions().get('mmdet') != '3.3.0' or environment.versions().get('mmsegmentation') != '1.2.2':
    pytest.skip('the scan is of mmdet 3.3.0 and mmsegmentation 1.2.2', allow_module_level=True)
import operator_scan  # noqa: E402  (beside this file)

# Ours that no model reaches, because they belong to a function that one does reach.
BESIDES = {'carafe_naive_forward', 'carafe_naive_backward', 'softmax_focal_loss_forward', 'softmax_focal_loss_backward'}


@pytest.fixture(scope='module')
def reached():
    return operator_scan.reached()


def test_every_operator_that_a_model_reaches_is_ours(reached):
    assert set(operators.OPERATORS) - set(reached) == BESIDES
    assert set(reached) - set(operators.OPERATORS) == set()
    # a few that are known, so that a scan which finds nothing fails
    assert 'mmdet/models/necks/dyhead.py' in reached['modulated_deform_conv_forward']['ModulatedDeformConv2d']
    assert 'mmdet/models/dense_heads/guided_anchor_head.py' in reached['masked_im2col_forward']['MaskedConv2d']
    assert 'mmseg/models/decode_heads/psa_head.py' in reached['psamask_forward']['PSAMask']
    assert any('syncbn-all' in file for file in reached['sync_bn_forward_mean']['SyncBatchNorm'])
    assert set(reached['softnms']) == {'soft_nms'} and set(reached['nms_match']) == {'nms_match'}


def test_the_docs_list_the_scan(reached, repo_root):
    rows = dict(re.findall(r'^\| (`.+?`) \| (.+?) \|', (repo_root / 'docs/operators.md').read_text(), re.MULTILINE))
    documented = {name: set(re.findall(r'`(\w+)`', users)) for names, users in rows.items()
                  for name in re.findall(r'`(\w+)`', names)}
    assert set(documented) == set(operators.OPERATORS)
    for name, users in reached.items():
        assert documented[name] == set(users), name
