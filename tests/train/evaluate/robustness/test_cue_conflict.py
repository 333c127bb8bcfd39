"""Shape bias: the categories of a classifier's answers, and how they are counted."""

from pathlib import Path

import pytest

from dali_bgaug.errors import UserError
from tests.helpers.robust_sets import PARTIAL, evaluate, network, open_one, touch
from train.evaluate.robustness.cue_conflict import read_cues, shape_bias
from train.evaluate.robustness.imagenet import CATEGORIES, WNIDS
from train.evaluate.robustness.sets import open_set
from train.evaluate.robustness.source import SetOptions

KNIFE = WNIDS[499]
DOGS = [WNIDS[number] for number in CATEGORIES["dog"]]
BOATS = [WNIDS[number] for number in (472, 554, 625, 814, 914)]
BOTTLES = [WNIDS[number] for number in (440, 720, 737, 898, 899, 901, 907)]


def test_the_16_categories_have_207_classes() -> None:
    assert {category: len(classes) for category, classes in CATEGORIES.items()} == {
        **{"airplane": 1, "bear": 4, "bicycle": 2, "bird": 49, "boat": 5, "bottle": 7, "car": 3, "cat": 6},
        **{
            "chair": 4,
            "clock": 3,
            "dog": 109,
            "elephant": 2,
            "keyboard": 2,
            "knife": 1,
            "oven": 1,
            "truck": 8,
        },
    }
    assert CATEGORIES["chair"] == [423, 559, 765, 857]
    assert CATEGORIES["truck"] == [555, 569, 656, 675, 717, 734, 864, 867]


def test_recorded_decisions() -> None:
    """Rows as experiments record them: two of six are for the shape, three for the texture."""
    rows = [
        ("bicycle", "0001_s5n_dnn_0_airplane_00_airplane1-bicycle2.png"),
        ("chair", "0002_s5n_dnn_0_airplane_00_airplane1-chair2.png"),
        ("airplane", "0003_s5n_dnn_0_airplane_00_airplane10-clock1.png"),
        ("dog", "0004_s5n_dnn_0_bear_00_bear5-bottle1.png"),
        ("bear", "0005_s5n_dnn_0_bear_00_bear5-knife3.png"),
        ("oven", "0006_s5n_dnn_0_bear_00_bear7-oven3.png"),
    ]
    cues = [found for _, name in rows if (found := read_cues(name))]
    assert cues[0] == ("airplane", "bicycle")
    assert cues[3] == ("bear", "bottle")
    assert shape_bias(cues, [decision for decision, _ in rows]) == {
        "value": 0.4,
        **{"shape": 2, "texture": 3, "other": 1},
        "by_category": {
            "airplane": {"shape_bias": 0.3333, "shape": 1, "texture": 2, "other": 0},
            "bear": {"shape_bias": 0.5, "shape": 1, "texture": 1, "other": 1},
        },
    }


@pytest.mark.parametrize(
    "name", ["bear5.png", "bear-bottle.png", "bear5-sofa1.png", "bear5-bottle1", "5-1.png"]
)
def test_other_names_say_nothing(name: str) -> None:
    assert read_cues(name) is None


def test_categories_are_chosen_by_the_mean_probability(tmp_path: Path) -> None:
    """One dog of 109 that is likelier than the knife, as dogs in sum are, is less than the knife in the mean.
    Of boats one is certain: bottles have the higher mean of logits, not of probabilities."""
    files = ("dog/dog1-knife1.png", "bottle/bottle1-boat1.png", "dog/dog2-boat1.png", "dog/dog1-dog2.png")
    one = open_one("cue-conflict", touch(tmp_path, *files))
    assert one.files == ["bottle/bottle1-boat1.png", "dog/dog1-knife1.png", "dog/dog2-boat1.png"]
    answers = {
        "dog/dog1-knife1.png": {DOGS[0]: 12.0, KNIFE: 10.0},
        "bottle/bottle1-boat1.png": {BOATS[0]: 10.0, **dict.fromkeys(BOTTLES, 3.0)},
        "dog/dog2-boat1.png": dict.fromkeys(DOGS, 5.0),
    }
    assert evaluate(one, answers) == {
        "value": 0.3333,
        "metric": "shape bias: decisions for the shape, of those for shape or texture",
        "photos": 3,
        **{"shape": 1, "texture": 2, "other": 0},
        "by_category": {
            "bottle": {"shape_bias": 0.0, "shape": 0, "texture": 1, "other": 0},
            "dog": {"shape_bias": 0.5, "shape": 1, "texture": 1, "other": 0},
        },
    }
    assert one.record is not None
    assert one.record["without_conflict"] == 1
    backwards = [*reversed(WNIDS)]
    other = open_one("cue-conflict", tmp_path, network(backwards))
    assert evaluate(other, answers, backwards)["texture"] == 2


def test_photos_that_could_not_be_read_do_not_count(tmp_path: Path) -> None:
    one = open_one("cue-conflict", touch(tmp_path, "dog/dog1-knife1.png", "oven/oven1-knife1.png"))
    answers = {file: {KNIFE: 9.0} for file in one.files}
    assert evaluate(one, answers, unread=("dog/dog1-knife1.png",))["texture"] == 1
    nothing = evaluate(one, answers, unread=tuple(one.files))
    assert (nothing["value"], nothing["photos"], nothing["by_category"]) == (None, 0, {})


def test_the_whole_set(tmp_path: Path) -> None:
    """80 photos of a category: five of every other texture, five of its own."""
    names = [
        f"{shape}/{shape}{n}-{other}1.png" for shape in CATEGORIES for other in CATEGORIES for n in range(5)
    ]
    one = open_one("cue-conflict", touch(tmp_path, *names), options=SetOptions())
    assert len(one.files) == 1200
    assert one.record == {
        "found": {"photos": 1280, "classes": 16},
        "expected": {"photos": 1280, "classes": 16},
        "complete": True,
        "without_conflict": 80,
    }


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        (["dog/dog1-knife1.png"], r"has 1 photos of 1280, 1 classes of 16"),
        (["dog/cat1-knife1.png"], r"its folder says dog, its name cat"),
        (["dog/dog1-knife1.png", "dog/rex.png"], r"1 of its 2 photos are not named like .*: dog/rex.png"),
        (["dog/rex.png"], r"has folders of categories \(dog\), as the cue-conflict stimuli"),
        (["1/a.jpeg", "10/a.jpeg"], r"has 2 numbered folders \(1, 10\), as ImageNet-v2"),
    ],
)
def test_what_is_not_the_set_is_refused(tmp_path: Path, files: list[str], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        open_set("cue-conflict", touch(tmp_path, *files), network(), SetOptions())


def test_prefixed_names_in_one_folder(tmp_path: Path) -> None:
    one = open_one(
        "cue-conflict", touch(tmp_path, "session-1/0001_cu_dnn_0_dog_00_dog1-knife1.png"), options=PARTIAL
    )
    assert evaluate(one, {one.files[0]: {KNIFE: 9.0}})["texture"] == 1
