"""A LightningModule fed by the loader: BYOL's two views and loss (`pip install lightning`).

    python examples/lightning_module.py out/demo/shards --epochs 10 --out out/lightning [--resume CHECKPOINT]

The module keeps the loader's state in Lightning's checkpoints, so that a resumed run gets the batches that
come next; by itself Lightning restores it in mid-epoch only. One process: of several it would keep the first
one's state, which the others refuse.
"""

import argparse
from pathlib import Path

import torch
from torchvision.models import resnet18
from torchvision.ops import MLP

from dali_bgaug.errors import run_program
from dali_bgaug.loader import Loader
from pipelines import LoaderConfig, build_loader

try:
    import lightning
except ImportError:
    raise SystemExit("error: Lightning is not installed: pip install lightning") from None


class Byol(lightning.LightningModule):
    """Online network and predictor; a target network that follows the online one."""

    def __init__(self, loader: Loader, dim: int = 64, momentum: float = 0.99) -> None:
        super().__init__()
        self.loader, self.momentum = loader, momentum
        self.online = resnet18(num_classes=dim)
        self.target = resnet18(num_classes=dim).requires_grad_(False)
        self.target.load_state_dict(self.online.state_dict())
        self.predictor = MLP(dim, [dim, dim], norm_layer=torch.nn.BatchNorm1d)

    def training_step(self, batch: dict[str, torch.Tensor], _: int) -> torch.Tensor:
        """The loss, in [0, 8], of a batch of `view_1` and `view_2`, each float [N, 3, H, W]."""
        views = [batch["view_1"], batch["view_2"]]
        with torch.no_grad():
            for own, new in zip(self.target.parameters(), self.online.parameters()):
                own.lerp_(new, 1 - self.momentum)
            targets = [self.target(view) for view in reversed(views)]
        predictions = [self.predictor(self.online(view)) for view in views]
        loss = 4 - 2 * sum(cosine.mean() for cosine in map(torch.cosine_similarity, predictions, targets))
        print(f"epoch {self.current_epoch} step {self.global_step + 1} loss {loss.item():.6f}")
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD; the target has no gradients."""
        return torch.optim.SGD(self.parameters(), lr=0.03, momentum=0.9, weight_decay=1e-4)

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Keep the loader's state."""
        checkpoint["loader"] = self.loader.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Go on with the batches that come next."""
        self.loader.load_state_dict(checkpoint["loader"])


def main(shards: Path, epochs: int, out: Path, resume: Path | None, batch_size: int) -> None:
    """Train for so many epochs in all; checkpoints lie in `out/checkpoints`."""
    lightning.seed_everything(0, verbose=False)
    options = {"shards": shards, "batch_size": batch_size, "crop": {"size": 64}}
    config = LoaderConfig(pipeline="byol", background={"kind": "random", "p_pos": 0.2}, **options)
    with build_loader(config) as loader:
        trainer = lightning.Trainer(max_epochs=epochs, devices=1, default_root_dir=out, logger=False)
        trainer.fit(Byol(loader), loader, ckpt_path=resume)
    print(f"{trainer.global_step * batch_size} photos seen")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("shards", type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("out/lightning"))
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--batch-size", type=int, default=64)
    args = parser.parse_args()
    run_program(lambda: main(**vars(args)), "--resume=CHECKPOINT goes on")
