"""Pipelines run side by side with the same random choices, and what they return compared bit by bit."""
import pickle

import numpy as np
import torch
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from mmengine.structures import BaseDataElement


class Pair:
    """Two pipelines of one scope, 'mmdet' or 'mmseg'."""

    def __init__(self, scope: str, stock: list, ours: list):
        self.scope = scope
        with DefaultScope.overwrite_default_scope(scope):
            self.pipelines = Compose(stock), Compose(ours)

    def check(self, info: dict, seed: int, where: str) -> dict | None:
        """Both samples of one image are equal, and so is what is left of the random numbers; returns it."""
        samples, after, content = [], [], pickle.dumps(info)  # transforms change what they are given
        with DefaultScope.overwrite_default_scope(self.scope):
            for pipeline in self.pipelines:
                np.random.seed(seed)
                samples.append(pipeline(pickle.loads(content)))
                after.append(np.random.random())
        assert after[0] == after[1], f'{where}: other random choices'
        assert_same(*samples, where)
        return samples[1]


def assert_same(expected, found, where: str) -> None:
    """The same values of the same types, all the way down; masks may be of a subclass."""
    if isinstance(expected, BaseDataElement):
        assert type(found) is type(expected), where
        assert set(found.metainfo_keys()) == set(expected.metainfo_keys()), where
        assert set(found.keys()) == set(expected.keys()), where
        for key in expected.all_keys():
            assert_same(expected.get(key), found.get(key), f'{where}, {key}')
    elif isinstance(expected, dict):
        assert list(found) == list(expected), where
        for key in expected:
            assert_same(expected[key], found[key], f'{where}, {key}')
    elif isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype and found.shape == expected.shape, where
        assert found.is_contiguous() == expected.is_contiguous() and torch.equal(found, expected), where
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype and np.array_equal(found, expected), where
    elif hasattr(expected, 'to_ndarray'):  # instance masks
        assert isinstance(found, type(expected)), where
        assert (found.height, found.width, len(found)) == (expected.height, expected.width, len(expected)), where
        if isinstance(expected.masks, np.ndarray):
            assert_same(expected.masks, found.masks, where)
        else:  # polygons
            assert_same(expected.to_ndarray(), found.to_ndarray(), where)
    elif hasattr(expected, 'tensor'):  # boxes
        assert type(found) is type(expected), where
        assert_same(expected.tensor, found.tensor, where)
    else:
        assert type(found) is type(expected) and found == expected, (where, expected, found)
