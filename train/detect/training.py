"""A detection training, from a set's files to a result."""

from pathlib import Path
from typing import Any

import torch

from dali_bgaug import __version__
from dali_bgaug.files import write_json, write_text
from train import checkpoint, distributed
from train.detect.coco import CocoDetections, evaluate_coco, require_pycocotools
from train.detect.coco_layout import read_coco
from train.detect.config import DetectConfig
from train.detect.objects import DetectionSet
from train.detect.trainer import DetectTrainer
from train.detect.trunk import load_trunk
from train.detect.voc import evaluate
from train.detect.voc_layout import read_voc, voc_detections, voc_objects
from train.device import choose_torch_device
from train.signals import StopRequest

PATIENCE_S = 3600.0
"""How long a rank waits for another, which may have slower photos to test on."""


def train(config: DetectConfig, out: Path) -> None:
    """Train, or go on from the newest checkpoint, and test; a finished training is tested again.

    Writes under `out`: `checkpoints/`, `log.jsonl`, `config.json`, `detector.pt` (a state_dict, with the
    statistics of batch norm that it was tested with), and the result, `detect.json`. Call it in every process
    of a `torchrun`.

    Raises:
        UserError: files that are missing or wrong, another training in `out`, weights of another backbone, a
            loss that is no number, no pycocotools for COCO.
    """
    if config.layout == "coco":
        require_pycocotools()
    device = choose_torch_device(config.device, "device")
    torch.backends.cudnn.benchmark = False  # photos are of many sizes
    stop = StopRequest()
    with distributed.process_group(device), distributed.hold(out / "lock", f"--out={out}"), stop.listening():
        stop.connect()
        distributed.limit_waiting(PATIENCE_S)
        data, test = _read_sets(config)
        trunk = load_trunk(config.backbone, config.init)
        with DetectTrainer(config, data, trunk, device, out, stop) as trainer:
            if trainer.rank == 0:
                write_text(out / "config.json", config.model_dump_json(indent=1) + "\n")
            if not trainer.run():
                return
            trainer.measure_statistics()
            trainer.say(f"testing on {len(test.photos)} photos")
            found = trainer.detect(test.photos)
            if trainer.rank == 0:
                state = {name: value.cpu() for name, value in trainer.network.state_dict().items()}
                checkpoint.save(out / "detector.pt", state)
                scores = score(config, test, found)
                result = {
                    "protocol": f"detect-{config.layout}",
                    **scores,
                    "steps": trainer.steps_done,
                    "photos": {"train": trainer.photos, "test": len(test.photos)},
                    "trunk_sha256": trunk.sha256,
                    "package_version": __version__,
                    "config": config.model_dump(mode="json"),
                }
                write_json(out / "detect.json", result)
                trainer.say(f"{describe(scores)}\n{out / 'detect.json'}")


def _read_sets(config: DetectConfig) -> tuple[DetectionSet, DetectionSet]:
    """The photos to train on, and those to test on."""
    if config.layout == "voc":
        data = read_voc(config.data, config.train)
        return data, read_voc(config.data, config.test, data.classes)
    [train_split], [test_split] = config.train, config.test
    data = read_coco(config.data, train_split, masks=config.masks)
    # Its metric reads the file itself.
    return data, read_coco(config.data, test_split, masks=False, classes=data.classes)


def score(config: DetectConfig, test: DetectionSet, found: dict[str, CocoDetections]) -> dict[str, Any]:
    """The set's own metric of detections, in percent: `boxes` and, of Mask R-CNN, `masks`."""
    if config.layout == "coco":
        truth = config.data / "annotations" / f"instances_{config.test[0]}.json"
        return evaluate_coco(truth, found, test.category_ids)
    objects = {photo.key: voc_objects(photo) for photo in test.photos}
    detections = {key: voc_detections(one.boxes, one.labels, one.scores) for key, one in found.items()}
    result = evaluate(objects, detections, test.classes)
    return {"boxes": {"ap": result.ap, "ap50": result.ap50, "ap75": result.ap75, "classes": result.classes}}


def describe(scores: dict[str, Any]) -> str:
    """A line for people."""
    return "; ".join(
        f"{kind}: AP {one['ap']:.1f}, AP50 {one['ap50']:.1f}, AP75 {one['ap75']:.1f}"
        for kind, one in scores.items()
    )
