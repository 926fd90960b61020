"""Our stand-in for panopticapi: ids as colours, and panoptic quality against its definition, through mmdet's metric."""
import sys

import cv2
import numpy as np
import pytest

from convnext_dense.mm.panoptic import PQStat, id2rgb, rgb2id

CATEGORIES = {1: dict(id=1, isthing=1), 2: dict(id=2, isthing=1), 7: dict(id=7, isthing=0), 9: dict(id=9, isthing=0)}


def test_ids_are_little_endian_in_the_channels():
    ids = np.array([[0, 255, 256], [65535, 65536, 256 ** 3 - 1]])
    colours = id2rgb(ids)
    assert colours.dtype == np.uint8
    for place in np.ndindex(ids.shape):
        r, g, b = (int(value) for value in colours[place])
        assert r + 256 * g + 65536 * b == ids[place] == rgb2id(colours[place])
        assert id2rgb(int(ids[place])) == [r, g, b]
    np.testing.assert_array_equal(rgb2id(colours), ids)


def segments(rng, size: int) -> tuple[np.ndarray, dict[int, int]]:
    """Ids (size, size) in blocks, 0 for void, and the category of each id."""
    ids = np.kron(rng.integers(0, 5, (4, 4)), np.ones((size // 4, size // 4), int))
    return ids, {int(each): int(rng.choice(list(CATEGORIES))) for each in np.unique(ids) if each}


def quality(pairs, keep) -> dict[str, float]:
    """Mean PQ, SQ and RQ of some categories from the definition: pairs of segments with an IoU above a half match."""
    found = []
    for category in keep:
        matched, fp, fn = [], 0, 0
        for (truth, truth_of), (guess, guess_of) in pairs:
            taken = set()
            for own in (each for each, of in truth_of.items() if of == category):
                overlaps = {each: np.sum((truth == own) & (guess == each))
                            / np.sum((truth == own) | (guess == each) & (truth != 0))
                            for each, of in guess_of.items() if of == category}
                best = max(overlaps, key=overlaps.get, default=None)
                if best is not None and overlaps[best] > 0.5:
                    matched.append(overlaps[best])
                    taken.add(best)
                else:
                    fn += 1
            for each, of in guess_of.items():
                if of == category and each not in taken and np.mean(truth[guess == each] == 0) <= 0.5:
                    fp += 1
        if matched or fp or fn:
            size = len(matched) + fp / 2 + fn / 2
            found.append((sum(matched) / size, np.mean(matched) if matched else 0.0, len(matched) / size))
    return dict(zip(('pq', 'sq', 'rq'), np.mean(found, axis=0), strict=True))


def test_panoptic_quality_is_its_definition(tmp_path):
    from mmdet.evaluation.functional import panoptic_utils
    assert sys.modules['panopticapi'] is not None and panoptic_utils.PQStat is PQStat
    rng, pairs, annotations = np.random.default_rng(0), [], []
    for folder in ('truth', 'guess'):
        (tmp_path / folder).mkdir()
    for image in range(6):
        truth, truth_of = segments(rng, 32)
        guess, guess_of = truth.copy(), dict(truth_of)
        guess[rng.random(guess.shape) < 0.2] = 0  # a hole in every segment
        rows = rng.integers(0, 32)
        guess[:rows] = np.roll(guess[:rows], 8, axis=1)
        guess_of = {each: of if rng.random() < 0.8 else 9 for each, of in guess_of.items() if (guess == each).any()}
        infos = []
        for folder, ids, of in (('truth', truth, truth_of), ('guess', guess, guess_of)):
            cv2.imwrite(str(tmp_path / folder / f'{image}.png'), id2rgb(ids)[..., ::-1])
            infos.append(dict(file_name=f'{image}.png', image_id=image, segments_info=[
                dict(id=each, category_id=category, iscrowd=0, area=int((ids == each).sum()))
                for each, category in of.items()]))
        annotations.append(infos)
        pairs.append(((truth, truth_of), (guess, guess_of)))
    stats = PQStat()
    for half in (annotations[:3], annotations[3:]):  # as from two processes
        stats += panoptic_utils.pq_compute_single_core(
            0, half, str(tmp_path / 'truth'), str(tmp_path / 'guess'), CATEGORIES)
    for isthing, keep in ((None, (1, 2, 7, 9)), (True, (1, 2)), (False, (7, 9))):
        mean, of_classes = stats.pq_average(CATEGORIES, isthing)
        expected = quality(pairs, keep)
        assert 0 < mean['pq'] < 1 and mean['n'] == len(of_classes) == len(keep)
        assert {key: mean[key] for key in expected} == pytest.approx(expected, abs=1e-12)
