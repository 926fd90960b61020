"""Pictures: colours land on the pixels they belong to, and nowhere else."""
import cv2
import numpy as np
import pytest

from convnext_dense.errors import UserError
from convnext_dense.utils.run_lengths import EncodedMasks, encode_masks
from convnext_dense.visualization.draw import (
    Instances,
    distinct_colours,
    draw_instances,
    draw_legend,
    draw_segmentation,
    enlarge,
    palette_of,
    read_image,
    side_by_side,
)

RED, GREEN = (255, 0, 0), (0, 255, 0)


def grey(height=60, width=80, value=100):
    return np.full((height, width, 3), value, np.uint8)


def disc(height=60, width=80, centre=(40, 30), radius=15):
    y, x = np.mgrid[:height, :width]
    return (x - centre[0])**2 + (y - centre[1])**2 < radius**2


def test_mask_is_painted_inside_and_only_inside():
    mask = disc()
    picture = draw_instances(grey(), Instances(np.array([1]), None, mask[None]), ['a', 'b'], [RED, GREEN], min_side=60)
    changed = (picture != 100).any(axis=2)
    np.testing.assert_array_equal(changed, mask)
    assert picture[30, 40].tolist() == [50, 178, 50]  # half grey 100, half green 255


def test_small_images_are_enlarged_by_a_whole_factor_and_stay_aligned():
    mask = disc(20, 30, (12, 9), 6)
    picture = draw_instances(grey(20, 30), Instances(np.array([0]), None, mask[None]), ['a'], [RED], min_side=90)
    assert picture.shape == (100, 150, 3)
    np.testing.assert_array_equal((picture != 100).any(axis=2), enlarge(mask, 5))


def test_box_lines_lie_on_the_box():
    box = np.array([[10.0, 20.0, 50.0, 55.0]])
    picture = draw_instances(grey(), Instances(np.array([0]), box), [''], [RED], min_side=1)
    red = (picture == RED).all(axis=2)
    rows, columns = np.nonzero(red[20:])  # below the tag
    assert (columns.min(), columns.max()) == pytest.approx((10, 49), abs=1)
    assert rows.max() + 20 == pytest.approx(54, abs=1)
    assert red[22:54, 10].all() and red[22:54, 49].all() and red[54, 11:49].all()
    assert (picture[24:51, 14:46] == 100).all()


def test_labels_name_class_and_score_in_the_class_colour():
    box = np.array([[5.0, 50.0, 60.0, 90.0]])
    instances = Instances(np.array([0]), box, None, np.array([0.87]))
    named = draw_instances(grey(100, 200), instances, ['cat'], [RED], min_side=1)
    other = draw_instances(grey(100, 200), instances, ['dog'], [RED], min_side=1)
    differs = (named != other).any(axis=2)
    rows, columns = np.nonzero(differs)
    assert rows.max() < 50 and rows.min() >= 30 and columns.max() < 80  # only the tag above the box changed
    assert (named[45:49, 5:7] == RED).all()


def test_tags_stay_inside_the_picture():
    boxes = np.array([[0.0, 0.0, 20.0, 20.0], [70.0, 40.0, 80.0, 60.0]])
    classes, palette = ['triangle', 'circle'], [RED, GREEN]
    picture = draw_instances(grey(), Instances(np.array([0, 0]), boxes), classes, palette, min_side=1)
    assert picture.shape == (60, 80, 3)
    assert (picture[:, -1] == RED).all(axis=1).sum() > 14  # the right one's tag was moved left, its end is visible


def test_low_scores_are_left_out_and_high_ones_drawn_on_top():
    masks = np.stack([disc(), disc(), disc(60, 80, (10, 10), 5)])
    instances = Instances(np.array([0, 1, 1]), None, masks, np.array([0.9, 0.6, 0.1]))
    picture = draw_instances(grey(), instances, ['a', 'b'], [RED, GREEN], min_score=0.5, min_side=1)
    assert (picture[10, 10] == 100).all()
    assert picture[30, 40, 0] > picture[30, 40, 1]


def test_predictions_that_are_not_finite_are_left_out():
    boxes = np.array([[5.0, 5, 20, 20], [np.nan, 5, 20, 20], [5, 5, np.inf, 20], [5, 5, 20, 20]])
    found = Instances(np.array([0, 1, 1, 1]), boxes, None, np.array([0.9, 0.95, 0.95, np.nan]))
    assert found.above(0.3).labels.tolist() == [0]
    expected = draw_instances(grey(), Instances(found.labels[:1], boxes[:1], None, found.scores[:1]), ['a', 'b'])
    np.testing.assert_array_equal(draw_instances(grey(), found, ['a', 'b']), expected)


def test_a_palette_of_other_classes_is_not_used():
    assert palette_of(dict(palette=[RED, GREEN]), ['a', 'b']) == [RED, GREEN]
    for palette in ([RED], [RED] * 80, 'coco', None):
        assert palette_of(dict(palette=palette), ['a', 'b']) == distinct_colours(2)
    assert palette_of({}, ['a']) == distinct_colours(1)


def test_nothing_found_draws_nothing():
    empty = Instances(np.zeros(0, int), np.zeros((0, 4)), np.zeros((0, 60, 80), bool), np.zeros(0))
    np.testing.assert_array_equal(draw_instances(grey(), empty, ['a'], min_side=1), grey())


def test_segmentation_blends_every_class_and_skips_ignored_pixels():
    labels = np.zeros((60, 80), np.uint8)
    labels[:, 40:] = 1
    labels[:10] = 255
    picture = draw_segmentation(grey(), labels, [RED, GREEN], opacity=0.6, min_side=1)
    assert (picture[:10] == 100).all()
    assert (picture[10:, :40] == [193, 40, 40]).all()  # 0.4 * 100 + 0.6 * (255, 0, 0)
    assert (picture[10:, 40:] == [40, 193, 40]).all()


def test_segmentation_shows_the_image_in_grey_so_that_colour_means_class():
    image = np.zeros((10, 10, 3), np.uint8)
    image[:, 5:] = (250, 0, 0)
    labels = np.zeros((10, 10), np.uint8)
    labels[0] = 255
    picture = draw_segmentation(image, labels, [GREEN], opacity=0.6, min_side=1).astype(int)
    assert (picture[0] == image[0]).all()
    assert (picture[1:, :, 0] == picture[1:, :, 2]).all()  # the red of the image is gone
    assert (picture[1:, 5:, 0] > 20).all() and (picture[1:, :5, 0] == 0).all()  # its brightness is not


def test_segmentation_refuses_labels_of_another_size():
    with pytest.raises(ValueError, match='does not fit'):
        draw_segmentation(grey(), np.zeros((80, 60), np.uint8), [RED])


def test_legend_has_a_swatch_for_each_shown_class_and_wraps():
    names = [f'class number {i}' for i in range(8)]
    colours = distinct_colours(8)
    strip = draw_legend(names, colours, 400, shown=[0, 3, 7])
    found = {tuple(c) for c in strip.reshape(-1, 3).tolist()}
    assert {colours[0], colours[3], colours[7]} <= found
    assert not {colours[i] for i in (1, 2, 4, 5, 6)} & found
    assert strip.shape[1] == 400
    assert draw_legend(names, colours, 400).shape[0] > strip.shape[0]


def test_side_by_side_keeps_the_panels_pixels_in_order():
    left, right = grey(50, 40, 10), grey(50, 40, 200)
    picture = side_by_side([('ground truth', left), ('prediction', right)])
    row = picture[picture.shape[0] // 2 + 10, :, 0]
    assert (row == 10).sum() == 40 and (row == 200).sum() == 40
    assert np.nonzero(row == 10)[0].max() < np.nonzero(row == 200)[0].min()
    assert (picture[:20] < 128).any()  # titles


def test_colours_are_distinct():
    colours = np.array(distinct_colours(20), float)
    gaps = np.linalg.norm(colours[:, None] - colours, axis=2) + 1e3 * np.eye(20)
    assert gaps.min() > 20
    assert np.linalg.norm(np.diff(colours, axis=0), axis=1).min() > 150


def test_read_image_is_rgb_and_names_a_bad_file(tmp_path):
    cv2.imwrite(str(tmp_path / 'red.png'), np.full((4, 4, 3), (0, 0, 255), np.uint8))
    assert (read_image(tmp_path / 'red.png') == RED).all()
    (tmp_path / 'broken.jpg').write_bytes(b'no image')
    with pytest.raises(UserError, match='broken.jpg'):
        read_image(tmp_path / 'broken.jpg')


def tag_pixels(boxes, classes=('a', 'b'), **options) -> np.ndarray:
    """Where names and scores stand on a grey picture of 400x400 pixels, bool (H, W)."""
    objects = Instances(np.zeros(len(boxes), int), np.array(boxes, float), None, np.full(len(boxes), 0.9))
    with_tags = draw_instances(grey(400, 400), objects, classes, [RED, GREEN], min_side=1, **options)
    without = draw_instances(grey(400, 400), objects, classes, [RED, GREEN], min_side=1, hide=['labels', 'scores'])
    return (with_tags != without).any(axis=2)


def test_tags_of_crowded_small_objects_are_left_out():
    crowd = [(x, y, x + 16, y + 16) for x in range(0, 400, 20) for y in range(0, 400, 20)]
    assert not tag_pixels(crowd).any()
    assert tag_pixels([(50, 50, 66, 66)]).any()  # a single one has room
    spread = [(x, y, x + 16, y + 16) for x in range(20, 400, 90) for y in range(20, 400, 70)]
    assert len(spread) > 20 and not tag_pixels(spread).any()  # thirty have room, too, but their tags hide the picture
    assert tag_pixels([*spread[1:], (200, 30, 260, 90)]).any()  # a large one among them keeps its own


def test_a_tag_moves_away_from_other_objects():
    """Above the lower box there is a small one; its tag goes elsewhere."""
    lower, small = (100, 200, 300, 350), (105, 180, 125, 198)
    alone, both = tag_pixels([lower]), tag_pixels([lower, small])
    assert alone[184:198, 105:125].any()
    assert not both[180:198, 105:125].any() and both.sum() > alone.sum()


def test_the_only_class_is_named_once_or_not_at_all():
    boxes = [(20, 100, 120, 200), (220, 100, 320, 200)]
    one_class, scores = tag_pixels(boxes, ('a',)), tag_pixels(boxes, hide=['labels'])
    np.testing.assert_array_equal(one_class, scores)
    assert tag_pixels(boxes).sum() > one_class.sum() > 0
    assert tag_pixels(boxes[:1], ('a',)).sum() > scores[:, :200].sum()


def test_parts_are_hidden_and_colours_tell_objects_apart():
    masks = np.stack([disc(60, 80, (15, 15), 10), disc(60, 80, (40, 60), 15)])
    objects = Instances(np.array([0, 0]), np.array([[5.0, 5, 25, 25], [45, 25, 75, 55]]), masks, np.array([0.9, 0.8]))
    everything = ['boxes', 'masks', 'labels', 'scores']
    def drawn(hide, **options):
        return draw_instances(grey(), objects, ['a', 'b'], [RED, GREEN], min_side=1, hide=hide, **options)
    np.testing.assert_array_equal(drawn(everything), grey())
    assert (drawn(['boxes', 'labels', 'scores'])[~masks.any(axis=0)] == 100).all()
    corner = drawn(['masks', 'labels', 'scores'])
    assert (corner[5, 5] == RED).all() and (corner[15, 15] == 100).all()
    by_instance = drawn(['masks', 'labels', 'scores'], colour_by='instance')
    assert len({tuple(by_instance[5, 5]), tuple(by_instance[25, 45]), RED}) == 3


def test_large_images_are_reduced_by_a_whole_factor_and_stay_aligned():
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (1000, 1500, 3), np.uint8)
    mask, boxes = disc(1000, 1500, (700, 400), 200), np.array([[500, 200, 900, 600]])
    small, few = cv2.resize(image, (300, 200), interpolation=cv2.INTER_AREA), mask[::5, ::5]
    expected = draw_instances(small, Instances(np.array([0]), boxes / 5, few[None]), ['a'], [RED], min_side=1)
    for masks in (mask[None], EncodedMasks(encode_masks(mask[None], 0, 0, mask.shape), mask.shape)):
        picture = draw_instances(image[:, ::-1][:, ::-1], Instances(np.array([0]), boxes, masks), ['a'], [RED],
                                 min_side=1, max_side=300)
        np.testing.assert_array_equal(picture, expected)
    labels = random.integers(0, 2, mask.shape).astype(np.uint8)
    np.testing.assert_array_equal(draw_segmentation(image, labels, [RED, GREEN], min_side=1, max_side=300),
                                  draw_segmentation(small, labels[::5, ::5], [RED, GREEN], min_side=1))


def test_run_length_masks_are_drawn_as_pixels_are():
    masks = np.stack([disc(), disc(centre=(10, 5), radius=20), np.zeros((60, 80), bool)])
    instances = Instances(np.array([0, 1, 0]), None, masks)
    encoded = Instances(instances.labels, None, EncodedMasks(encode_masks(masks, 0, 0, (60, 80)), (60, 80)))
    np.testing.assert_array_equal(*(draw_instances(grey(), one, ['a', 'b'], [RED, GREEN], min_side=120)
                                    for one in (instances, encoded)))
