"""A training of a saliency network, from mask stores to an ONNX file."""

import os
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from dali_bgaug import __version__
from dali_bgaug.errors import UserError, some
from dali_bgaug.files import atomic, sha256, write_json, write_text
from dali_bgaug.views.options import NormaliseOptions
from train import checkpoint, distributed
from train.device import choose_torch_device
from train.export import load_weights, read_backbone
from train.networks import build_backbone
from train.records import SALIENCY_VERSION, SaliencyCard
from train.saliency.config import SaliencyConfig
from train.saliency.network import SaliencyNetwork, export_onnx, require_onnx
from train.saliency.photos import PhotoSet, prepare
from train.saliency.stages import Trunk
from train.saliency.trainer import SaliencyTrainer

LISTED = 10
PATIENCE_S = 3600.0
"""How long a rank waits for another, which may be decoding all photos."""


def train(config: SaliencyConfig, out: Path) -> None:
    """Train, or go on from the last epoch, and export; a finished training is exported again.

    Writes under `out`: `data/`, `checkpoints/`, `log.jsonl`, `config.json`, `refined/VOTER/…png` (the maps of
    phase 1's last round), `saliency.pt`, `saliency.onnx` and their card `saliency.json`. Call it in every
    process of a `torchrun` on one machine.

    Raises:
        UserError: stores or photos that are missing, another training in `out`, weights of another trunk, a
            loss that is no number, no package onnx.
    """
    _one_machine()
    require_onnx(out / "saliency.onnx")
    if any((out / "checkpoints").glob("*.pt")) and not (out / "data").exists():
        raise UserError(f"--out={out}: holds a run of another kind; choose another --out")
    device = choose_torch_device(config.device, "device")
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    workers = config.workers or max(1, len(os.sched_getaffinity(0)) // ranks - 1)
    with distributed.process_group(device), distributed.hold(out / "lock", f"--out={out}"):
        distributed.limit_waiting(PATIENCE_S)
        trunk = load_trunk(config)
        data = _prepare(config, out / "data", workers)
        with SaliencyTrainer(config, data, trunk, device, out, workers) as trainer:
            if trainer.rank == 0:
                write_text(out / "config.json", config.model_dump_json(indent=1) + "\n")
            network = trainer.run()
        if distributed.rank() == 0:
            _write_maps(config, data, out / "refined")
            export(config, network, trunk, len(data.keys), out)


def _one_machine() -> None:
    here, all_ranks = (os.environ.get(name, "1") for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    if here != all_ranks:
        raise UserError(
            f"WORLD_SIZE={all_ranks}: ranks share maps in files that they map into memory; start all of them "
            "on one machine (torchrun --standalone --nproc-per-node=N)"
        )


def load_trunk(config: SaliencyConfig) -> Trunk:
    """The trunk's weights, and the normalisation of its input; every rank must call this."""
    if config.init is None:
        normalise = NormaliseOptions()
        return Trunk(None, list(normalise.mean), list(normalise.std), "random")
    stored = read_backbone(config.init)
    if stored.config["backbone"] != config.trunk:
        raise UserError(
            f"init={config.init}: weights of backbone={stored.config['backbone']}; take "
            f"trunk={stored.config['backbone']}, or other weights"
        )
    load_weights(build_backbone(config.trunk), stored.weights, f"init={config.init}")
    values = stored.config["data"]["normalise"]
    return Trunk(stored.weights, list(values["mean"]), list(values["std"]), stored.sha256)


def _prepare(config: SaliencyConfig, folder: Path, workers: int) -> PhotoSet:
    """The photos; rank 0 decodes them, and every rank must call this."""
    arguments = config.photos, config.maps, config.side, config.photo_list, folder, workers
    found: PhotoSet | str = ""
    if distributed.rank() == 0:
        try:
            found = prepare(*arguments)
            if found.left_out:
                lines = [f"{key}: {reason}" for key, reason in found.left_out.items()]
                print(f"{len(lines)} photos are left out: {some(lines, LISTED)} ({folder / 'photos.json'})")
        except UserError as error:
            found = str(error)
    found = distributed.broadcast(found)
    if isinstance(found, str):
        raise UserError(found)
    return found


def _write_maps(config: SaliencyConfig, data: PhotoSet, folder: Path) -> None:
    """The voters' refined maps as PNGs, [side, side] in 0..255."""
    rounds = len(config.refine.lr)
    for voter in config.maps:
        maps = np.load(data.maps(voter, rounds), mmap_mode="r")
        for key, one in zip(data.keys, tqdm(maps, desc=f"refined/{voter}", unit="photo"), strict=True):
            path = (folder / voter / key).with_suffix(".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(one)).save(path)


def export(config: SaliencyConfig, network: SaliencyNetwork, trunk: Trunk, photos: int, out: Path) -> None:
    """Write `saliency.pt` (a state_dict), `saliency.onnx`, and their card `saliency.json`."""
    weights, whole = out / "saliency.pt", out / "saliency.onnx"
    checkpoint.save(weights, {name: value.cpu() for name, value in network.state_dict().items()})
    with atomic(whole) as temporary:
        export_onnx(network, trunk.mean, trunk.std, config.side, temporary)
    normalise = {"mean": trunk.mean, "std": trunk.std}
    card = SaliencyCard(
        format="dali_bgaug saliency network",
        version=SALIENCY_VERSION,
        trunk=config.trunk,
        side=config.side,
        input={"normalise": normalise, "range": [0, 255], "channels": "RGB"},
        photos=photos,
        voters=list(config.maps),
        sha256={path.name: sha256(path) for path in (weights, whole)},
        package_version=__version__,
        config=config.model_dump(mode="json"),
    )
    write_json(out / "saliency.json", card.model_dump())
    print(f"{whole}: python -m tools.masks --detector deepusps --weights {whole}")
