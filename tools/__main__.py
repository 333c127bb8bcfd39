"""The list of commands: `python -m tools`, and `python -m tools NAME …` as `python -m tools.NAME …`."""

import runpy
import sys

COMMANDS: dict[str, dict[str, str]] = {
    "offline": {
        "masks": "photos -> mask store, by a detector or from masks made elsewhere",
        "tiles": "mask store -> tiled backgrounds",
        "shards": "photos, masks and tiles -> the training stream",
        "labelled": "labelled photos without masks, for linear probes: CIFAR, lists, class folders",
        "subsets": "lists of 1 % and 10 % of the photos of every class",
        "inspect": "statistics, checks and a contact sheet of stores and shards",
    },
    "synthetic": {
        "demo_data": "photo-like photos with exact masks",
        "detection_data": "photos with objects, in VOC's or COCO's layout",
        "background_challenge": "folders of photos with other backgrounds, for the background gap",
        "corruptions": "corrupted copies of photos, laid out like ImageNet-C",
        "only_foreground": "copies of photos without their background",
    },
    "bench": {
        "bench": "images/s of every stage of a loader, beside other loaders",
        "bench.page": "a page and figures of a benchmark's result",
        "offline_bench": "rates of the offline tools",
        "saliency_eval": "F-measure, MAE and IoU of masks against true ones",
        "parity": "views of a loader against torchvision's",
        "plan": "what a cluster needs for a training",
        "gpu_check": "what needs a GPU: tests, benchmark, a training",
    },
    "study": {
        "demo": "photos -> masks -> tiles -> shards -> a short training, with figures",
        "views": "contact sheet of the views of a recipe",
        "plot": "loss curves of runs, and their ranks",
        "learning": "what each method learns on the demo set",
        "saliency_train": "a saliency network trained without labels, a detector of masks",
        "ablation": "a table of the paper: its rows trained, evaluated, beside the paper's numbers",
        "experiment": "what background augmentations change, over seeds",
    },
}
"""Commands by room, with a line each."""
MODULES = {
    name: f"tools.{name}" if name.startswith("bench") else f"tools.{room}.{name}"
    for room, commands in COMMANDS.items()
    for name in commands
}


def main() -> int:
    """List the commands, or run one; returns the exit status."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in MODULES:
        sys.argv[:2] = [f"tools.{name}"]
        runpy.run_module(MODULES[name], run_name="__main__", alter_sys=True)
        return 0
    print("usage: python -m tools.NAME … (--help lists its options)")
    for room, commands in COMMANDS.items():
        print(f"\n{room}:")
        for command, line in commands.items():
            print(f"  {command:<21} {line}")
    if name in ("-h", "--help"):
        return 0
    print(f"error: there is no tool '{name}'", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
