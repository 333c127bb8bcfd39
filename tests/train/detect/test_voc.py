"""VOC's metric, against values computed by hand."""

import numpy as np
import pytest

from dali_bgaug.errors import UserError
from train.detect.voc import Detections, Objects, eleven_points, evaluate, overlaps

NONE = np.zeros((0, 4))


def _objects(*rows: tuple[float, float, float, float, int, bool]) -> Objects:
    boxes = np.array([row[:4] for row in rows], float).reshape(-1, 4)
    return Objects(boxes, np.array([row[4] for row in rows], int), np.array([row[5] for row in rows], bool))


def _found(*rows: tuple[float, float, float, float, int, float]) -> Detections:
    boxes = np.array([row[:4] for row in rows], float).reshape(-1, 4)
    return Detections(boxes, np.array([row[4] for row in rows], int), np.array([row[5] for row in rows]))


def test_overlaps_count_the_last_pixel() -> None:
    """Ten by ten pixels; five of its columns, the same shifted out, one pixel shared of 100 + 100 - 1."""
    others = np.array([[1, 1, 10, 10], [6, 1, 10, 10], [11, 1, 20, 10], [10, 10, 19, 19]], float)
    assert overlaps(np.array([1.0, 1, 10, 10]), others).tolist() == [1.0, 0.5, 0.0, 1 / 199]


@pytest.mark.parametrize(
    ("right", "objects", "expected"),
    [
        ([True], 1, 1.0),
        ([True], 2, 6 / 11),  # recalls 0 to .5
        ([False, True], 1, 0.5),
        ([True, False, True], 2, (6 * 1 + 5 * 2 / 3) / 11),
        ([False, False], 3, 0.0),
        ([], 3, 0.0),
        ([True] * 3 + [False] * 7, 10, 4 / 11),  # a recall of .3 is reached by 3 of 10
        ([True] * 7, 10, 8 / 11),
        ([False, True, True], 2, 2 / 3),  # the best precision at this recall or any higher one
    ],
)
def test_eleven_points(right: list[bool], objects: int, expected: float) -> None:
    assert eleven_points(np.array(right, bool), objects) == pytest.approx(expected)


def test_thresholds() -> None:
    """An overlap of .76: right at .5 to .75, which are six of the ten thresholds."""
    truth = {"a": _objects((1, 1, 100, 1, 0, False))}
    score = evaluate(truth, {"a": _found((1, 1, 76, 1, 0, 0.9))}, ["cat"])
    assert (score.ap50, score.ap75, score.ap) == pytest.approx((100, 100, 60))
    assert score.classes == {"cat": 100}


@pytest.mark.parametrize(("last", "expected"), [(50, 0), (51, 100)])
def test_an_overlap_must_exceed_its_threshold(last: int, expected: float) -> None:
    truth = {"a": _objects((1, 1, 100, 1, 0, False))}
    assert evaluate(truth, {"a": _found((1, 1, last, 1, 0, 0.9))}, ["cat"]).ap50 == expected


def test_a_second_detection_of_an_object_is_wrong() -> None:
    """Surest first: right, wrong, right: precision 1 up to a recall of .5, then 2/3."""
    truth = {"a": _objects((1, 1, 10, 10, 0, False), (21, 1, 30, 10, 0, False))}
    found = {"a": _found((21, 1, 30, 10, 0, 0.2), (1, 1, 10, 9, 0, 0.5), (1, 1, 10, 10, 0, 0.9))}
    assert evaluate(truth, found, ["cat"]).ap50 == pytest.approx(100 * (6 + 5 * 2 / 3) / 11)


def test_a_detection_is_judged_by_the_object_it_covers_best() -> None:
    """The second covers both objects by more than half, but best the one that is taken."""
    truth = {"a": _objects((1, 1, 10, 10, 0, False), (1, 1, 10, 14, 0, False))}
    found = {"a": _found((1, 1, 10, 10, 0, 0.9), (1, 1, 10, 11, 0, 0.8))}
    assert evaluate(truth, found, ["cat"]).ap50 == pytest.approx(100 * 6 / 11)


def test_difficult_objects_are_neither_right_nor_wrong() -> None:
    """However often they are found; and nobody need find them."""
    truth = {"a": _objects((1, 1, 10, 10, 0, False), (21, 1, 30, 10, 0, True))}
    hard = (21, 1, 30, 10, 0, 0.9)
    found = {"a": _found(hard, hard, (1, 1, 10, 10, 0, 0.5))}
    assert evaluate(truth, found, ["cat"]).ap50 == 100
    assert evaluate(truth, {"a": _found((1, 1, 10, 10, 0, 0.5))}, ["cat"]).ap50 == 100
    missed = {"a": _found((24, 1, 50, 10, 0, 0.9), (1, 1, 10, 10, 0, 0.5))}  # a quarter of it: wrong
    assert evaluate(truth, missed, ["cat"]).ap50 == 50


def test_ties_are_in_order_of_photos() -> None:
    """Of a wrong one and a right one of equal score the first counts first, whatever `found` begins with."""
    truth = {"a": _objects((1, 1, 10, 10, 0, False)), "b": _objects()}
    right, wrong = _found((1, 1, 10, 10, 0, 0.5)), _found((1, 1, 10, 10, 0, 0.5))
    assert evaluate(truth, {"b": wrong, "a": right}, ["cat"]).ap50 == 100
    turned = {"b": truth["b"], "a": truth["a"]}
    assert evaluate(turned, {"b": wrong, "a": right}, ["cat"]).ap50 == 50
    both = _found((31, 1, 40, 10, 0, 0.5), (1, 1, 10, 10, 0, 0.5))
    assert evaluate(truth, {"a": both}, ["cat"]).ap50 == 50


def test_labels_count() -> None:
    """The right place by the wrong name, and a class that has no objects or only a difficult one."""
    truth = {"a": _objects((1, 1, 10, 10, 0, False), (21, 1, 30, 10, 2, True))}
    found = {"a": _found((1, 1, 10, 10, 1, 0.9), (21, 1, 30, 10, 2, 0.9))}
    score = evaluate(truth, found, ["cat", "dog", "cow"])
    assert (score.ap50, score.ap, score.classes) == (0, 0, {"cat": 0})


def test_no_detections() -> None:
    truth = {"a": _objects((1, 1, 10, 10, 0, False)), "b": _objects((1, 1, 10, 10, 1, False))}
    assert evaluate(truth, {}, ["cat", "dog"]).classes == {"cat": 0, "dog": 0}
    right = {"b": _found((1, 1, 10, 10, 1, 0.1)), "a": Detections(NONE, NONE[:, 0], NONE[:, 0])}
    score = evaluate(truth, right, ["cat", "dog"])
    assert (score.ap50, score.ap75, score.ap) == (50, 50, 50)


def test_nothing_to_find() -> None:
    with pytest.raises(UserError, match="1 photos: none has an object"):
        evaluate({"a": _objects((1, 1, 10, 10, 0, True))}, {}, ["cat"])
    with pytest.raises(UserError, match="b: detections of a photo that is not in the test set"):
        evaluate({"a": _objects((1, 1, 10, 10, 0, False))}, {"b": _found()}, ["cat"])
