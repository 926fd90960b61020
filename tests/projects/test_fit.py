"""How a project's anchors, proposals and input size follow from the objects."""
import numpy as np
import pytest

pytest.importorskip('mmdet')

import torch  # noqa: E402
from mmdet.models.task_modules.prior_generators import AnchorGenerator  # noqa: E402
from mmdet.structures.bbox import bbox_overlaps  # noqa: E402

from convnext_dense.projects.anchors import RECIPE, STRIDES, Anchors, covered, fit_anchors, ious_of  # noqa: E402
from convnext_dense.projects.choose import fit_detector, input_side  # noqa: E402
from convnext_dense.projects.objects import Objects, read_objects  # noqa: E402
from convnext_dense.projects.plan import PUBLISHED, SMALL  # noqa: E402


def make_objects(seed, sides, images=4, each=30, ratio=1.0, size=(160, 128)) -> Objects:
    """Random boxes with sides in a range and a height of ``ratio`` times the width; some cross the image's border."""
    rng = np.random.default_rng(seed)
    count = images * each
    width = rng.uniform(*sides, count) / ratio ** 0.5
    wh = np.stack([width, width * ratio], 1)
    centre = rng.uniform(0, size, (count, 2))
    return Objects(np.concatenate([centre - wh / 2, centre + wh / 2], 1), np.repeat(np.arange(images), each),
                   np.tile(np.array(size, float), (images, 1)))


def overlaps_of_every_anchor(objects: Objects, anchors: Anchors) -> np.ndarray:
    """The same by mmdet: all anchors of all feature maps against all boxes."""
    generator = AnchorGenerator(scales=list(anchors.scales), ratios=list(anchors.ratios), strides=list(STRIDES))
    best = []
    for image, (width, height) in enumerate(objects.sizes.astype(int)):
        maps = [(-(-height // stride), -(-width // stride)) for stride in STRIDES]
        grid = torch.cat(generator.grid_priors(maps, device='cpu'))
        boxes = torch.tensor(objects.boxes[objects.images == image], dtype=torch.float32)
        best.append(bbox_overlaps(boxes, grid).max(dim=1).values.numpy())
    return np.concatenate(best)


@pytest.mark.parametrize('anchors', [RECIPE, Anchors((2.0, 2.52, 3.17), (1.0,)), Anchors((1.41, 5.64), (0.4, 3.1))])
def test_overlaps_are_those_of_the_whole_grid(anchors):
    objects = make_objects(0, (4, 100), ratio=1.7, size=(170, 122))
    expected = overlaps_of_every_anchor(objects, anchors)
    assert expected.std() > 0.05 and expected.max() > 0.55
    np.testing.assert_allclose(ious_of(objects, anchors), expected, atol=1e-5)


@pytest.mark.parametrize('sides, ratio', [((7, 15), 1.0), ((5, 60), 0.3), ((6, 120), 1.0), ((9, 20), 4.0)])
def test_fitted_anchors_cover_what_the_recipe_misses(sides, ratio):
    objects = make_objects(1, sides, ratio=ratio)
    found = fit_anchors(objects)
    share = (overlaps_of_every_anchor(objects, found) >= 0.5).mean()
    before = (overlaps_of_every_anchor(objects, RECIPE) >= 0.5).mean()
    print(f'sides {sides}, ratio {ratio}: {before:.0%} with the recipe, {share:.0%} with {found}')
    assert before < 0.9 <= share == covered(objects, found)
    assert found.count <= 9 and fit_anchors(objects, 3).count == 3


def test_the_recipes_anchors_stay_where_they_cover():
    objects = make_objects(2, (40, 300), size=(600, 500))
    assert covered(objects, RECIPE) >= 0.9 and fit_anchors(objects) == RECIPE


def test_numbers_follow_the_crowd():
    few = make_objects(3, (40, 90), each=8, size=(600, 500))
    assert fit_detector(few, SMALL) == SMALL and fit_detector(few, PUBLISHED) == PUBLISHED
    many = fit_detector(make_objects(4, (8, 16), each=101), SMALL)
    assert many.proposals >= 1000 and many.detections >= 150 and many.rpn_samples >= 404
    most = fit_detector(make_objects(5, (8, 16), each=1000), PUBLISHED)
    assert most.proposals == 2000 and most.detections == 1000  # limits


def test_the_input_grows_for_small_objects():
    large, small = make_objects(6, (60, 90)), make_objects(7, (9, 11))
    assert input_side(430, large, 'det', 'cpu') == 256  # for speed, and enough
    assert input_side(128, large, 'det', 'cpu') == 128  # never enlarged without a reason
    assert input_side(200, make_objects(8, (5, 7)), 'det', 'cpu') == 352  # as much as the objects need: 10 pixels
    assert input_side(2000, make_objects(8, (4, 6)), 'det', 'cpu') == 512
    assert input_side(600, small, 'det', 'cuda') == 800
    assert input_side(600, make_objects(8, (5, 7)), 'det', 'cuda') == 1024
    assert input_side(360, None, 'seg', 'cpu') == 256


def test_reading_leaves_out_what_is_no_object(tmp_path):
    file = tmp_path / 'a.json'
    file.write_text('{"annotations": [{"image_id": 7, "bbox": [1, 2, 3, 4]}, {"image_id": 7, "bbox": [1, 2, 3, 0]},'
                    '{"image_id": 7, "bbox": [0, 0, 9, 9], "iscrowd": 1}, {"image_id": 1, "bbox": [0, 0, 9, 9]},'
                    '{"image_id": 7, "bbox": "x"}, 3], "images": [{"id": 5, "width": 10, "height": 20},'
                    '{"id": 7, "width": 40, "height": 20}, {"id": 1, "width": null, "height": 20}]}')
    objects = read_objects(file)
    assert objects.boxes.tolist() == [[1, 2, 4, 6]] and objects.images.tolist() == [1]
    assert objects.sizes.tolist() == [[10, 20], [40, 20]] and objects.per_image.tolist() == [1]
    resized = objects.resized((30, 10))
    assert resized.boxes.tolist() == [[0.5, 1, 2, 3]] and resized.sizes.tolist() == [[10, 20], [20, 10]]
