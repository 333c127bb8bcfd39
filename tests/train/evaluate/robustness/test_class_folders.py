"""Sets in class folders: over which logits the answer is sought, and which class a folder is."""

from pathlib import Path

import pytest

from dali_bgaug.errors import UserError
from tests.helpers.robust_sets import PARTIAL, evaluate, network, open_one, touch
from train.evaluate.robustness.imagenet import IMAGENET_A, WNIDS
from train.evaluate.robustness.sets import open_set
from train.evaluate.robustness.source import SetOptions

FOUR = ["cat", "ant", "bee", "dog"]


def test_answers_are_sought_among_the_folders_classes(tmp_path: Path) -> None:
    touch(tmp_path, "ant/1.jpg", "bee/1.PNG", "dog/1.jpeg", "dog/notes.txt", "dog/._1.jpg")
    answers = {
        "ant/1.jpg": {"cat": 5, "ant": 3},  # there is no folder of cats
        "bee/1.PNG": {"ant": 2, "bee": 1},
        "dog/1.jpeg": {"dog": 1},
    }
    one = open_one("mine", tmp_path, network(FOUR), SetOptions())
    assert evaluate(one, answers, FOUR) == {
        "value": 0.6667,
        "metric": "top-1 accuracy over the logits of its own 3 classes",
        "photos": 3,
    }
    assert one.protocol == "folders"
    assert one.record == {
        "found": {"photos": 3, "classes": 3},
        "oddities": {
            ".txt files, not taken": {"count": 1, "example": "dog/notes.txt"},
            "hidden files or folders, not taken": {"count": 1, "example": "dog/._1.jpg"},
        },
    }
    touch(tmp_path, "cat/1.jpg")
    whole = open_one("mine", tmp_path, network(FOUR), SetOptions())
    result = evaluate(whole, {**answers, "cat/1.jpg": {"cat": 1}}, FOUR)
    assert result["value"] == 0.5
    assert result["metric"] == "top-1 accuracy over the logits of all classes"


def test_folders_that_are_no_classes_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "ant/1.jpg", "wasp/1.jpg")
    with pytest.raises(UserError, match=r"1 of its 2 folders are no classes of made: wasp"):
        open_set("mine", tmp_path, network(FOUR))


def test_one_class_is_no_choice(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ant is its only class"):
        open_set("mine", touch(tmp_path, "ant/1.jpg"), network(FOUR))


def test_photos_beside_the_folders_are_left_out_and_counted(tmp_path: Path) -> None:
    one = open_one("mine", touch(tmp_path, "ant/1.jpg", "bee/1.jpg", "2.jpg"), network(FOUR))
    assert one.files == ["ant/1.jpg", "bee/1.jpg"]
    assert one.record is not None
    assert one.record["oddities"]["photos beside the class folders, not taken"]["count"] == 1


def test_photos_that_could_not_be_read_do_not_count(tmp_path: Path) -> None:
    one = open_one("mine", touch(tmp_path, "ant/1.jpg", "ant/2.jpg", "bee/1.jpg"), network(FOUR))
    answers = {"ant/1.jpg": {"ant": 1}, "ant/2.jpg": {"ant": 1}, "bee/1.jpg": {"ant": 1}}
    result = evaluate(one, answers, FOUR, unread=("ant/2.jpg",))
    assert (result["value"], result["photos"]) == (0.5, 2)
    nothing = evaluate(one, answers, FOUR, unread=("ant/1.jpg", "ant/2.jpg", "bee/1.jpg"))
    assert (nothing["value"], nothing["photos"]) == (None, 0)


STINGRAY, GOLDFISH, JUNCO, TENCH = "n01498041", "n01443537", "n01534433", "n01440764"
"""Of ImageNet-A and -R; of R alone; of both; of neither."""


@pytest.mark.parametrize(("name", "right"), [("imagenet-a", 1.0), ("imagenet-r", 0.0)])
def test_each_set_has_its_own_200_classes(tmp_path: Path, name: str, right: float) -> None:
    one = open_one(name, touch(tmp_path, f"{STINGRAY}/1.jpg"))
    assert evaluate(one, {f"{STINGRAY}/1.jpg": {TENCH: 9, GOLDFISH: 5, STINGRAY: 3}})["value"] == right


@pytest.mark.parametrize("name", ["imagenet-a", "imagenet-r"])
def test_a_part_is_judged_over_all_200_classes(tmp_path: Path, name: str) -> None:
    one = open_one(name, touch(tmp_path, f"{STINGRAY}/1.jpg"))
    assert evaluate(one, {f"{STINGRAY}/1.jpg": {JUNCO: 5, STINGRAY: 3}})["value"] == 0
    assert one.record is not None
    assert one.record["complete"] is False


def test_a_part_is_refused_unless_wanted(tmp_path: Path) -> None:
    touch(tmp_path, f"{STINGRAY}/1.jpg", f"{STINGRAY}/2.jpg", f"{JUNCO}/1.jpg", "README.txt")
    with pytest.raises(UserError, match=r"has 3 photos of 7500, 2 classes of 200;") as error:
        open_set("imagenet-a", tmp_path, network())
    assert "--partial" in str(error.value)
    with pytest.raises(UserError, match=r"has 3 photos of 30000, 2 classes of 200;"):
        open_set("imagenet-r", tmp_path, network())


def test_the_whole_of_imagenet_a(tmp_path: Path) -> None:
    """Laid out as it is unpacked: 200 folders, and a file beside them."""
    files = [f"{wnid}/0.{n:06d}_{n}.jpg" for n, wnid in zip(range(7500), IMAGENET_A * 38)]
    one = open_one("imagenet-a", touch(tmp_path, "README.txt", *files), options=SetOptions())
    assert one.record == {
        "found": {"photos": 7500, "classes": 200},
        "expected": {"photos": 7500, "classes": 200},
        "complete": True,
        "oddities": {".txt files, not taken": {"count": 1, "example": "README.txt"}},
    }


def test_another_sets_folder_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, f"{STINGRAY}/1.jpg", f"{GOLDFISH}/1.jpg")
    with pytest.raises(UserError, match=rf"1 of its 2 folders are none of ImageNet-A's 200: {GOLDFISH}"):
        open_set("imagenet-a", tmp_path, network(), PARTIAL)


V2 = "imagenetv2-{}-format-val"


def test_folders_of_imagenet_v2_are_numbers(tmp_path: Path) -> None:
    """Sorted as text, folder 10 would be class 2, and 2 class 3."""
    folder = touch(tmp_path / V2.format("threshold0.7"), "0/a.jpeg", "1/a.jpeg", "10/a.jpeg", "2/a.jpeg")
    answers = {f"{number}/a.jpeg": {WNIDS[number]: 1.0} for number in (0, 1, 2, 10)}
    one = open_one("imagenet-v2", folder)
    assert evaluate(one, answers) == {"value": 1.0, "metric": "top-1 accuracy", "photos": 4}
    assert one.name == "imagenet-v2"
    assert one.record is not None
    assert one.record["part"] == "threshold0.7"
    as_text = {f"{name}/a.jpeg": {WNIDS[place]: 1.0} for place, name in enumerate(["0", "1", "10", "2"])}
    assert evaluate(one, as_text)["value"] == 0.5


def test_classes_are_found_by_wnid_in_any_order(tmp_path: Path) -> None:
    backwards = [*reversed(WNIDS)]
    one = open_one("imagenet-v2", touch(tmp_path, "3/a.jpeg", "7/a.jpeg"), network(backwards))
    answers = {"3/a.jpeg": {"n01491361": 1.0}, "7/a.jpeg": {"n01484850": 1.0}}  # classes 3 and 2
    assert evaluate(one, answers, backwards)["value"] == 0.5


def test_the_samples_of_imagenet_v2_are_sets_of_their_own(tmp_path: Path) -> None:
    for part in ("top-images", "matched-frequency"):
        touch(tmp_path, f"{V2.format(part)}/7/a.jpeg")
    sets = open_set("imagenet-v2", tmp_path, network(), PARTIAL)
    assert [one.name for one in sets] == ["imagenet-v2/matched-frequency", "imagenet-v2/top-images"]
    assert [one.folder.name for one in sets] == [V2.format("matched-frequency"), V2.format("top-images")]
    touch(tmp_path, "old-top-images/7/a.jpeg")
    with pytest.raises(UserError, match=r"top-images twice"):
        open_set("imagenet-v2", tmp_path, network(), PARTIAL)


def test_imagenet_v2_is_whole_or_said_to_be_a_part(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{number % 1000}/{number}.jpeg" for number in range(10_000)))
    one = open_one("imagenet-v2", tmp_path, options=SetOptions())
    assert one.record is not None
    assert one.record["complete"] is True
    (tmp_path / "999" / "999.jpeg").unlink()
    with pytest.raises(UserError, match=r"has 9999 photos of 10000, 1000 classes of 1000"):
        open_set("imagenet-v2", tmp_path, network())


def test_wnid_folders_are_not_imagenet_v2(tmp_path: Path) -> None:
    touch(tmp_path, f"{TENCH}/a.jpeg")
    with pytest.raises(UserError, match=r"has folders named by wnids, 1 of ImageNet's 1000"):
        open_set("imagenet-v2", tmp_path, network(), PARTIAL)


def test_photos_to_attack_have_the_labels_of_their_folders(tmp_path: Path) -> None:
    options = SetOptions(epsilon=4)
    one = open_one("fgsm", touch(tmp_path, "ant/1.jpg", "cat/1.jpg", "dog/1.jpg"), network(FOUR), options)
    assert one.score.labels.tolist() == [1, 0, 3]
    assert (one.score.epsilon, one.score.normalise) == (4, network(FOUR).normalise)
    assert one.record == {"found": {"photos": 3, "classes": 3}}
