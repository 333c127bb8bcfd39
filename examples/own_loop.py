"""A training loop of your own: MoCo-v2's loss with BG_Swaps' matched negatives, in plain PyTorch.

    python examples/own_loop.py out/demo/shards --steps 200 --state out/own_loop.pt

`make demo` makes the shards. A state is saved after every epoch and at the end; the same command goes on from
it, in mid-epoch too, with the batches that an uninterrupted run would have got. This is one process: with
several give `build_loader` each one's rank and their number, and keep a loader state for each. Keys are
encoded without shuffled batch norm, which `train/methods/moco.py` has.
"""

import argparse
import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from torchvision.models import resnet18

from dali_bgaug.errors import run_program
from pipelines import LoaderConfig, build_loader

TEMPERATURE, MOMENTUM, QUEUE, DIM = 0.2, 0.99, 512, 64


class MoCo(torch.nn.Module):
    """Query encoder, key encoder that follows it, and a queue of past keys."""

    def __init__(self) -> None:
        super().__init__()
        self.query = resnet18(num_classes=DIM)
        self.key = copy.deepcopy(self.query).requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(QUEUE, DIM), dim=1))

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The mean loss: of `query` [N, 3, H, W] against its `key`, its `negative_0` and the queue."""
        query = F.normalize(self.query(batch["query"]), dim=1)
        with torch.no_grad():
            for own, new in zip(self.key.parameters(), self.query.parameters()):
                own.lerp_(new, 1 - MOMENTUM)
            names = ["key", *(name for name in batch if name.startswith("negative"))]
            key, *negatives = (F.normalize(self.key(batch[name]), dim=1) for name in names)
        own = [(query * other).sum(dim=1, keepdim=True) for other in (key, *negatives)]
        logits = torch.cat([*own, query @ self.queue.T], dim=1) / TEMPERATURE
        self.queue = torch.cat([key, self.queue])[:QUEUE]
        return F.cross_entropy(logits, torch.zeros(len(key), dtype=torch.long, device=key.device))


def main(shards: Path, steps: int, state: Path, batch_size: int) -> None:
    """Train for so many steps in all, from `state` on if it is there."""
    state.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    options = {"crop": {"size": 64, "fg_min": 0.1}, "background": {"kind": "swaps"}}
    config = LoaderConfig(shards=shards, batch_size=batch_size, **options)
    model = MoCo().to("cuda" if torch.cuda.is_available() else "cpu", memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(model.query.parameters(), lr=0.03, momentum=0.9, weight_decay=1e-4)
    step = 0
    with build_loader(config) as loader:
        parts = {"model": model, "optimiser": optimiser, "loader": loader}
        if state.exists():
            saved = torch.load(state, weights_only=True)
            step = saved.pop("step")
            for name, part in parts.items():
                part.load_state_dict(saved[name])
        while step < steps:
            for _, batch in zip(range(step, steps), loader):
                loss = model(batch)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                step += 1
                print(f"epoch {loader.epoch} step {step} loss {loss.item():.6f}")
            torch.save({name: part.state_dict() for name, part in parts.items()} | {"step": step}, state)
    print(f"{step * batch_size} photos seen")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("shards", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--state", type=Path, default=Path("out/own_loop.pt"))
    parser.add_argument("--batch-size", type=int, default=64)
    args = parser.parse_args()
    run_program(lambda: main(**vars(args)), "the same command goes on from --state, if it is there")
