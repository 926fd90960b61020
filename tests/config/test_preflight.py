"""Checks before training: each planted fault is named, sound data passes."""
import json

import pytest
from mmengine.config import Config

from convnext_dense.config import DATALOADERS
from convnext_dense.config.preflight import check_config, check_numbers
from convnext_dense.engine.runner import DenseRunner
from convnext_dense.errors import UserError

pytest.importorskip('mmdet')
CLASSES = ('circle', 'square')


@pytest.fixture()
def cfg(tmp_path) -> Config:
    """A sound detection config over two one-image data sets."""
    for split in ('train', 'val'):
        (tmp_path / split).mkdir()
        (tmp_path / split / '1.jpg').write_bytes(b'jpg')
    (tmp_path / 'ann.json').write_text(json.dumps(dict(
        images=[dict(id=1, file_name='1.jpg', width=64, height=64)],
        annotations=[dict(id=1, image_id=1, category_id=1, bbox=[4, 4, 40, 40], area=1600, iscrowd=0,
                          segmentation=[[4, 4, 44, 4, 44, 44]])],
        categories=[dict(id=1, name='circle'), dict(id=2, name='square')])))

    def loader(split):
        return dict(batch_size=1, dataset=dict(
            type='CocoDataset', data_root=str(tmp_path), ann_file='ann.json', data_prefix=dict(img=split),
            metainfo=dict(classes=CLASSES), pipeline=[]))
    return Config(dict(
        default_scope='mmdet', model=dict(rpn_head=dict(num_classes=1), roi_head=dict(
            bbox_head=[dict(num_classes=2), dict(num_classes=2)], mask_head=dict(num_classes=2))),
        train_dataloader=loader('train'), val_dataloader=loader('val'),
        val_evaluator=dict(type='CocoMetric', ann_file=str(tmp_path / 'ann.json'))))


def test_sound_data_passes(cfg):
    check_config(cfg, DATALOADERS)


@pytest.mark.parametrize('change, message', [
    ({'train_dataloader.dataset.data_root': 'nowhere'}, 'train_dataloader: data folder nowhere does not exist'),
    ({'val_dataloader.dataset.ann_file': 'typo.json'}, 'val_dataloader: ann_file .*typo.json does not exist'),
    ({'train_dataloader.dataset.data_prefix.img': 'typo'}, 'train_dataloader: folder .*typo .* does not exist'),
    ({'val_evaluator.ann_file': 'typo.json'}, 'val_evaluator.ann_file typo.json does not exist'),
    ({'model.roi_head.mask_head.num_classes': 80},
     'model.roi_head.mask_head.num_classes is 80, but the data set of train_dataloader has 2 classes'),
    ({'model.roi_head.bbox_head.1.num_classes': 3}, r'model.roi_head.bbox_head\[1\].num_classes is 3'),
    ({'train_dataloader.dataset.metainfo.classes': 'circle'}, 'has 1 classes')])
def test_each_fault_is_named(cfg, change, message):
    cfg.merge_from_dict(change)
    with pytest.raises(UserError, match=message):
        check_config(cfg, DATALOADERS)


@pytest.mark.parametrize('change, message', [
    ({'panoptic_head.num_stuff_classes': 1}, r'model.panoptic_head.num_things_classes \+ num_stuff_classes is 3, but'),
    ({'panoptic_fusion_head.num_things_classes': 80}, r'panoptic_fusion_head.num_things_classes .* is 80, but'),
    ({'panoptic_head.loss_cls.class_weight': [1.0] * 81},
     'model.panoptic_head.loss_cls.class_weight has 81 weights, .* has 2 classes: give it 3, the last for queries')])
def test_heads_with_queries(cfg, change, message):
    cfg.model = dict(
        panoptic_head=dict(num_things_classes=2, num_stuff_classes=0, num_queries=5,
                           loss_cls=dict(class_weight=[1.0, 1.0, 0.1])),
        panoptic_fusion_head=dict(num_things_classes=2, num_stuff_classes=0))
    check_config(cfg, DATALOADERS)
    cfg.merge_from_dict({f'model.{key}': value for key, value in change.items()})
    with pytest.raises(UserError, match=message):
        check_config(cfg, DATALOADERS)


@pytest.mark.parametrize('change, message', [
    ({'optim_wrapper.optimizer.lr': float('nan')}, 'optim_wrapper.optimizer.lr is nan: expected a finite number, 0 or'),
    ({'optim_wrapper.optimizer.lr': 'nan'}, "optim_wrapper.optimizer.lr is 'nan': expected a finite number"),
    ({'optim_wrapper.optimizer.lr': float('inf')}, 'optim_wrapper.optimizer.lr is inf'),
    ({'optim_wrapper.optimizer.weight_decay': -0.1}, 'optim_wrapper.optimizer.weight_decay is -0.1'),
    ({'optim_wrapper.accumulative_counts': 0}, 'accumulative_counts is 0: expected an integer, 1 or more'),
    ({'train_dataloader.batch_size': 0}, 'train_dataloader.batch_size is 0: expected an integer, 1 or more'),
    ({'val_dataloader.batch_size': 1.5}, 'val_dataloader.batch_size is 1.5'),
    ({'train_dataloader.num_workers': -1}, 'train_dataloader.num_workers is -1: expected an integer, 0 or more'),
    ({'train_cfg.max_epochs': True}, 'train_cfg.max_epochs is True'),
    ({'train_cfg.val_interval': 0}, 'train_cfg.val_interval is 0')])
def test_settings_that_cannot_be_trained_with(cfg, change, message):
    cfg.merge_from_dict({'optim_wrapper.optimizer': dict(type='AdamW', lr=1e-3, weight_decay=0),
                         'train_cfg.max_epochs': 1, 'train_dataloader.num_workers': 0})
    check_numbers(cfg)
    cfg.merge_from_dict(change)
    with pytest.raises(UserError, match=message):
        check_numbers(cfg)


def test_an_empty_image_folder(cfg, tmp_path):
    (tmp_path / 'val/1.jpg').unlink()
    with pytest.raises(UserError, match='val_dataloader: folder .*val .* is empty'):
        check_config(cfg, DATALOADERS)


class TestBuiltDataset:
    @staticmethod
    def build(cfg, **changes):
        return DenseRunner.build_dataloader(dict(batch_size=1, num_workers=0, persistent_workers=True,
                                            sampler=dict(type='DefaultSampler', shuffle=False),
                                            dataset={**cfg.train_dataloader.dataset, '_scope_': 'mmdet', **changes}))

    def test_sound_data_passes(self, cfg):
        assert len(self.build(cfg)) == 1

    @pytest.mark.parametrize('classes, message', [
        (('circle', 'Square'), r'1 of the 2 classes .* \(Square missing; the file has circle, square\)'),
        (('a', 'b'), r'2 of the 2 classes .* \(a, b missing; the file has circle, square\)')])
    @pytest.mark.parametrize('filter_cfg', [None, dict(filter_empty_gt=True)])
    def test_class_names_that_the_file_lacks(self, cfg, classes, message, filter_cfg):
        with pytest.raises(UserError, match=message):
            self.build(cfg, metainfo=dict(classes=classes), filter_cfg=filter_cfg)

    def test_two_categories_of_one_name(self, cfg, tmp_path):
        content = json.loads((tmp_path / 'ann.json').read_text())
        content['categories'].append(dict(id=3, name='circle'))
        (tmp_path / 'ann.json').write_text(json.dumps(content))
        with pytest.raises(UserError, match=r'ann.json has several categories of the same name \(circle\)'):
            self.build(cfg)

    def test_a_class_that_is_named_twice(self, cfg):
        with pytest.raises(UserError, match=r'metainfo.classes .* has several categories of the same name \(square\)'):
            self.build(cfg, metainfo=dict(classes=('circle', 'square', 'square')))

    def test_nothing_left_after_filtering(self, cfg):
        with pytest.raises(UserError, match='CocoDataset of .*ann.json is empty after filtering'):
            self.build(cfg, filter_cfg=dict(filter_empty_gt=True, min_size=1000))
