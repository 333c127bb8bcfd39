"""An experiment whose programs train nothing: they only leave what they would."""

import os
import signal
import sys
from pathlib import Path

from dali_bgaug.files import write_json
from tools.offline.detectors.imported import ImportOptions
from tools.study import experiment
from tools.study.experiment_data import Prepared, Source
from tools.study.splits import Split

SPLITS = ("mixed_same", "mixed_rand", "mixed_next", "only_fg", "no_fg", "only_bg_t", "only_bg_b")
NO_SPLIT = Split(Path(), ImportOptions(folder=Path()))
DEMO = Source(NO_SPLIT, NO_SPLIT, {"settings": {"correlation": 0.6}})


class Packed(Prepared):
    """Sets of given sizes."""

    photos = property(lambda self: {"train": 3000, "few": 20, "test": 876})


def prepare(source: Source, size: int, out: Path, workers: int) -> Prepared:
    """Sets without photos; corrupted copies, if there is a folder of them."""
    corrupted = out / "corrupted"
    return Packed(out / "data", out / "few", out, corrupted if corrupted.exists() else None)


def start(module: str, *words: str, **_: object) -> None:
    """A run of 552 steps, or gaps of .6 without and .3 with backgrounds, .4 with few labels, and so on."""
    options = dict(word.removeprefix("--").partition("=")[::2] for word in words)
    if module == "train":
        folder = Path(options["out"])
        assert (folder / "recipe.yaml").is_file()
        write_json(folder / "backbone.json", {"step": 552, "metrics": {"loss": 3.5}})
        return
    plain = "-none-" in options["json"]
    splits = {name: {"accuracy": 0.5, "photos": 9} for name in ("original", *SPLITS)}
    sets = {"fgsm": {"value": 0.1}, "imagenet-c": {"value": 0.2}}
    found = {
        "background-gap": {"bg_gap": 0.6 if plain else 0.3, "splits": splits},
        "linear": {"top1": 0.4},
        "robustness": {"sets": {name: sets[name] for name in sets if f"--set={name}=" in str(words)}},
    }
    write_json(Path(options["json"]), found[words[0]])


def main(programs: int) -> None:
    """`python -m tests.helpers.experiment N WORDS`: an experiment that is killed in its N-th program."""
    begun = []

    def killed(module: str, *words: str, **_: object) -> None:
        begun.append(module)
        if len(begun) == programs:
            os.kill(os.getpid(), signal.SIGKILL)
        start(module, *words)

    experiment.start, experiment.prepare, experiment.demo_set = killed, prepare, lambda *_: DEMO
    experiment.main()


if __name__ == "__main__":
    main(int(sys.argv.pop(1)))
