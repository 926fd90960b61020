"""RunLengthMasks does what mmdet's BitmapMasks does, on random masks and random sequences of operations."""
import copy
import pickle

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures.mask import BitmapMasks

from convnext_dense.datasets.transforms.masks import RunLengthMasks
from convnext_dense.datasets.transforms.run_lengths import nearest_indices


def random_masks(rng: np.random.Generator) -> tuple[BitmapMasks, RunLengthMasks]:
    """Up to four masks of rectangles, thinned out or whole, some of them empty or full, in both classes."""
    height, width = (int(side) for side in rng.integers(1, 40, 2))
    masks = []
    for _ in range(rng.integers(0, 5)):
        mask = np.zeros((height, width), np.uint8)
        for _ in range(rng.integers(0, 4)):
            top, left = rng.integers(0, height), rng.integers(0, width)
            mask[top:top + rng.integers(1, 45), left:left + rng.integers(1, 45)] = 1
        masks.append(mask & (rng.random(mask.shape) < rng.choice([0.3, 0.9, 1])))
    return BitmapMasks(masks, height, width), RunLengthMasks.from_counts(list(map(runs_of, masks)), height, width)


def runs_of(mask: np.ndarray) -> np.ndarray:
    """COCO's run lengths by counting: down the columns, zeros first."""
    flat = np.concatenate([[0], mask.ravel(order='F'), [1 - mask[-1, -1]]])
    changes = np.flatnonzero(np.diff(flat))
    return np.diff(changes, prepend=0)


def random_operation(rng: np.random.Generator, height: int, width: int, number: int):
    """(name, function) of something that can be done to masks of this size."""
    kind = rng.choice(['resize', 'rescale', 'flip', 'crop', 'pad', 'index', 'keep'])
    if kind == 'resize':
        shape = tuple(int(side) for side in rng.integers(1, 60, 2))
        return f'resize {shape}', lambda masks: masks.resize(shape)
    if kind == 'rescale':
        factor = float(rng.uniform(1 / min(height, width), 3))
        return f'rescale {factor}', lambda masks: masks.rescale(factor)
    if kind == 'flip':
        direction = str(rng.choice(['horizontal', 'vertical', 'diagonal']))
        return f'flip {direction}', lambda masks: masks.flip(direction)
    if kind == 'crop':
        left, top = rng.integers(0, width), rng.integers(0, height)
        box = np.array([left, top, left + rng.integers(1, 40), top + rng.integers(1, 40)])
        return f'crop {box}', lambda masks: masks.crop(box)
    if kind == 'pad':
        shape = (height + int(rng.integers(0, 9)), width + int(rng.integers(0, 9)))
        return f'pad {shape}', lambda masks: masks.pad(shape)
    if kind == 'index':
        chosen = rng.permutation(number)[:rng.integers(0, number + 1)]
        return f'index {chosen}', lambda masks: masks[chosen]
    keep = rng.random(number) < 0.8
    return f'keep {keep}', lambda masks: masks[keep]


@pytest.mark.parametrize('seed', range(5))
def test_any_sequence_of_operations_equals_bitmap_masks(seed):
    rng = np.random.default_rng(seed)
    for _ in range(150):
        expected, masks = random_masks(rng)
        done = []
        for _ in range(rng.integers(0, 7)):
            if rng.random() < 0.2:
                torch.testing.assert_close(masks.get_bboxes('hbox').tensor, expected.get_bboxes('hbox').tensor,
                                           rtol=0, atol=0, msg=str(done))
            if rng.random() < 0.2:
                masks = pickle.loads(pickle.dumps(masks))
            name, operation = random_operation(rng, expected.height, expected.width, len(expected))
            done.append(name)
            expected, masks = operation(expected), operation(masks)
            assert isinstance(masks, RunLengthMasks) and masks._pixels is None  # nothing is decoded before it is read
            assert (len(masks), masks.height, masks.width) == (len(expected), expected.height, expected.width), done
        if rng.random() < 0.2:
            masks = copy.deepcopy(masks)
        assert masks.masks.dtype == np.uint8
        np.testing.assert_array_equal(masks.masks, expected.masks, err_msg=str(done))
        name, operation = random_operation(rng, expected.height, expected.width, len(expected))
        np.testing.assert_array_equal(operation(masks).masks, operation(expected).masks, err_msg=str([*done, name]))


OTHERS = {
    'areas': lambda masks: masks.areas,
    'crop_and_resize': lambda masks: masks.crop_and_resize(
        torch.tensor([[1.0, 2, 9, 12], [0, 0, 20, 20.5]]), (7, 7), torch.tensor([1, 0])).masks,
    'expand': lambda masks: masks.expand(40, 50, 3, 4).masks,
    'translate': lambda masks: masks.translate((30, 20), 3).masks,
    'shear': lambda masks: masks.shear((30, 20), 0.3).masks,
    'rotate': lambda masks: masks.rotate((30, 20), 30).masks,
    'bilinear': lambda masks: masks.resize((17, 23), interpolation='bilinear').masks,
    'bilinear rescale': lambda masks: masks.rescale(1.3, interpolation='bilinear').masks,
    'pad with ones': lambda masks: masks.pad((33, 21), pad_val=1).masks,
    'to_tensor': lambda masks: masks.to_tensor(torch.float32, 'cpu').numpy(),
    'cat': lambda masks: type(masks).cat([masks, masks]).masks,
    'iteration': lambda masks: np.stack(list(masks)),
    'slice': lambda masks: masks[1:].masks,
    'one': lambda masks: masks[-1].masks,
    'horizontal flip, then areas': lambda masks: masks.flip().areas,
}


@pytest.mark.parametrize('name', OTHERS)
def test_everything_else_reads_the_pixels(name):
    pixels = (np.random.default_rng(0).random((3, 30, 20)) < 0.5).astype(np.uint8)
    expected, masks = BitmapMasks(pixels, 30, 20), RunLengthMasks.from_counts(list(map(runs_of, pixels)), 30, 20)
    np.testing.assert_array_equal(OTHERS[name](masks), OTHERS[name](expected))


def test_pixels_that_were_changed_stay_changed():
    """As for BitmapMasks: transforms such as CopyPaste write into `masks`."""
    masks = RunLengthMasks.from_counts([np.array([0, 12])], 3, 4)
    masks.masks[:, 0] = 0
    assert masks.flip('vertical').masks.tolist() == [[[1] * 4, [1] * 4, [0] * 4]]
    masks.masks = np.zeros((2, 3, 4), np.uint8)
    assert len(masks) == 2 and not masks.masks.any()


@pytest.mark.parametrize('flip', ['horizontal', 'vertical', 'diagonal'])
def test_what_a_worker_decoded_is_not_decoded_again(flip, monkeypatch):
    """A detector's preprocessor pads the masks of a batch, in the process that trains."""
    pixels = (np.random.default_rng(0).random((3, 30, 20)) < 0.5).astype(np.uint8)
    masks = RunLengthMasks.from_counts(list(map(runs_of, pixels)), 30, 20).flip(flip)
    arrived = pickle.loads(pickle.dumps(masks))
    monkeypatch.setattr('convnext_dense.datasets.transforms.masks.decode', None)
    expected = BitmapMasks(pixels, 30, 20).flip(flip).pad((32, 64))[1:].flip('horizontal').masks
    np.testing.assert_array_equal(arrived.pad((32, 64))[1:].flip('horizontal').masks, expected)


def test_a_pickle_is_as_large_as_the_objects_not_the_images():
    mask = np.zeros((1000, 1000), np.uint8)
    mask[100:140, 200:250] = 1
    masks = RunLengthMasks.from_counts([runs_of(mask)] * 20, 1000, 1000).rescale(2.0)
    assert 20 * 80 * 100 < len(pickle.dumps(masks)) < 20 * 80 * 100 + 100_000
    assert masks.masks.nbytes == 80_000_000


def test_nearest_indices_are_opencvs():
    """A whole image resized at once takes rows and columns independently, and the same ones as a line does."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        (height, width), (new_height, new_width) = rng.integers(1, 700, 2), rng.integers(1, 1400, 2)
        image = rng.integers(0, 256, (height, width), np.uint8)
        chosen = image[nearest_indices(height, new_height)[:, None], nearest_indices(width, new_width)]
        resized = cv2.resize(image, (int(new_width), int(new_height)), interpolation=cv2.INTER_NEAREST)
        np.testing.assert_array_equal(chosen, resized)
