"""How good are the features of a backbone? By the classes of a photo's nearest neighbours.

    python -m train.evaluate knn --checkpoint RUN-OR-FILE --train SHARDS --test SHARDS [--untrained]

No training, no parameters to choose: it judges features as they are. The checkpoint is a run's folder, a
checkpoint, or an exported backbone with its card. Photos go through the loader's `evaluation` pipeline, each
once.
"""

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from dali_bgaug.config import override, validate
from dali_bgaug.errors import UserError, run_program
from dali_bgaug.files import write_text
from dali_bgaug.graph.plan import expand
from dali_bgaug.loader import Loader
from dali_bgaug.shards import read_manifest
from pipelines import LoaderConfig, build_loader
from train import checkpoint
from train.config import RunConfig
from train.export import backbone_weights, find_checkpoint
from train.method import Setting
from train.networks import build_backbone


def load_backbone(path: Path, untrained: bool = False) -> tuple[nn.Module, dict[str, Any]]:
    """A backbone in evaluation mode, and the config of the run it comes from.

    Args:
        path: a run's folder, a checkpoint, or exported weights with their card beside them.
        untrained: the weights the run started from, drawn again.

    Raises:
        UserError: no such file, or its weights are not exactly those of its architecture.
    """
    card = path.with_suffix(".json")
    if path.is_file() and card.is_file():
        config, weights = json.loads(card.read_text(encoding="utf-8"))["config"], checkpoint.read(path)
    else:
        path = find_checkpoint(path)
        state = checkpoint.load(path)
        config, weights = json.loads(state["config"]), backbone_weights(state)
    if untrained:
        return initial_backbone(validate(RunConfig, config, f"{path}: config")).eval(), config
    backbone = build_backbone(config["backbone"])
    own = set(backbone.state_dict())
    if set(weights) != own:
        raise UserError(
            f"{path}: not the weights of {config['backbone']}: missing {sorted(own - set(weights))}, "
            f"unknown {sorted(set(weights) - own)}"
        )
    backbone.load_state_dict(weights)
    return backbone.eval(), config


def initial_backbone(config: RunConfig) -> nn.Module:
    """The backbone a run of this config starts with (weights are drawn from its seed)."""
    torch.manual_seed(config.seed)
    views = tuple(expand(config.data.views))
    # Neither batch-norm groups nor the classifier, which comes after it, change what is drawn for the
    # backbone.
    setting = Setting(config.backbone, photos=config.method.bn_group or 2, views=views, classes=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return config.method.build(setting).backbone


@torch.no_grad()
def extract_features(backbone: nn.Module, loader: Loader) -> tuple[torch.Tensor, torch.Tensor]:
    """Features float32 [N, D] and labels int64 [N] of every photo of an evaluation loader, on the backbone's
    device."""
    device = next(backbone.parameters()).device
    features, labels = [], []
    for batch in tqdm(loader, total=len(loader), desc="features", unit="batch", dynamic_ncols=True):
        valid = batch["valid"]
        features.append(backbone(batch["image"].to(device)).float()[valid.to(device)])
        labels.append(batch["label"][valid].to(device))
    return torch.cat(features), torch.cat(labels)


def nearest_classes(
    features: torch.Tensor,
    bank: torch.Tensor,
    bank_labels: torch.Tensor,
    neighbours: int = 20,
    temperature: float = 0.07,
) -> torch.Tensor:
    """The class of each row by its nearest neighbours in a bank, weighted by exp(cosine / temperature).

    Source: Wu et al. 2018 (instance discrimination), section 3.4.

    Args:
        features: [N, D]. bank: [M, D], with labels int64 [M].
        neighbours: at most M are used.
        temperature: of the weights.

    Returns:
        int64 [N].
    """
    bank = F.normalize(bank, dim=1)
    classes = int(bank_labels.max()) + 1
    answers = []
    for rows in F.normalize(features, dim=1).split(1024):
        similarity, index = (rows @ bank.T).topk(min(neighbours, len(bank)), dim=1)
        weights = (similarity / temperature).exp()
        votes = torch.zeros(len(rows), classes, device=rows.device, dtype=rows.dtype)
        answers.append(votes.scatter_add_(1, bank_labels[index], weights).argmax(dim=1))
    return torch.cat(answers)


def knn(
    backbone: nn.Module, config: dict[str, Any], train: Path, test: Path, words: list[str]
) -> dict[str, Any]:
    """Accuracy of weighted k-NN (k 20, temperature .07): photos of `test` by those of `train`.

    config: the run's; photos are resized and normalised as its views were. words: values of the loaders'
    config to override.
    """
    size = next(iter(config["data"]["views"].values()))["crop"]["size"]
    values = {
        **{"pipeline": "evaluation", "batch_size": 64, "crop": {"size": size}, "resize": round(size * 8 / 7)},
        "normalise": config["data"]["normalise"],
    }
    classes = [
        read_manifest(shards, option).classes for shards, option in ((train, "--train"), (test, "--test"))
    ]
    if classes[0] != classes[1]:
        different = sorted(set(classes[0]) ^ set(classes[1]))
        raise UserError(
            f"--test={test}: its classes are not those of --train={train} (only in one of them: "
            f"{', '.join(different[:8])}); labels would not mean the same"
        )
    sets, numbers = {}, {}
    for name, shards in {"train": train, "test": test}.items():
        data = validate(
            LoaderConfig, override({**values, "shards": str(shards)}, words), f"--{name}={shards}"
        )
        with build_loader(data) as loader:
            sets[name] = extract_features(backbone, loader)
        numbers[name] = {"shards": str(shards), "photos": len(sets[name][1])}
    (bank, bank_labels), (features, labels) = sets["train"], sets["test"]
    correct = nearest_classes(features, bank, bank_labels) == labels
    return {"accuracy": round(correct.float().mean().item(), 4), "k": 20, "temperature": 0.07, **numbers}


def main() -> None:
    """Evaluate from the command line."""
    parser = argparse.ArgumentParser(prog="train.evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("probe", choices=["knn"], help="weighted k-nearest neighbours")
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="a run, a checkpoint, or exported weights"
    )
    parser.add_argument(
        "--train", type=Path, required=True, help="shards of the photos that neighbours are among"
    )
    parser.add_argument("--test", type=Path, required=True, help="shards of the photos to classify")
    parser.add_argument(
        "--untrained", action="store_true", help="the weights the run started from: the yardstick"
    )
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="loader config, e.g. batch_size=256"
    )
    args = parser.parse_intermixed_args()
    backbone, config = load_backbone(args.checkpoint, args.untrained)
    if torch.cuda.is_available():
        backbone = backbone.to("cuda", memory_format=torch.channels_last)
    result = {
        "checkpoint": str(args.checkpoint),
        "untrained": args.untrained,
        **knn(backbone, config, args.train, args.test, args.overrides),
    }
    if args.json:
        write_text(args.json, json.dumps(result, indent=1) + "\n")
    print(f"k-NN accuracy {result['accuracy']:.1%} of {result['test']['photos']} photos")


if __name__ == "__main__":
    run_program(main, "nothing was written")
