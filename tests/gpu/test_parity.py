"""A loader on the GPU gives what one on the CPU gives, but for its JPEG decoder, which rounds differently."""

from pathlib import Path

import pytest
import torch

from pipelines import LoaderConfig, build_loader
from tests.helpers.parity import BOUNDS, check_pixels
from tests.helpers.shards import samples_of
from tools.bench import parity_steps

VIEWS = {
    "moco_v2": {},
    "byol": {},
    "swav": {"global": {"crop": {"size": 96}}, "local": {"crop": {"size": 48}}},
    "rotnet": {},
    "supervised": {},
    "evaluation": {},
}


def _batches(
    shards: Path, device: str, method: str, kind: str, count: int = 2
) -> list[dict[str, torch.Tensor]]:
    options = {} if method in ("swav", "evaluation") else {"size": 96}
    config = LoaderConfig(
        pipeline=method,
        shards=shards,
        batch_size=16,
        device=device,
        hw_decoder_load=0.0,  # the hardware decoder's pixels differ a little more
        crop=options if method == "evaluation" else options | {"fg_min": 0.1},
        views=VIEWS[method],
        background={"kind": kind, "p_pos": 0.5, "p_neg": 0.5},
    )
    with build_loader(config) as loader:
        batches = iter(loader)
        return [{name: tensor.cpu() for name, tensor in next(batches).items()} for _ in range(count)]


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        *(("moco_v2", kind) for kind in ("none", "rm", "random", "swaps")),
        *((method, kind) for method in ("byol", "swav", "rotnet", "supervised") for kind in ("rm", "random")),
        ("evaluation", "none"),
    ],
)
def test_gpu_equals_cpu(textured: Path, method: str, kind: str) -> None:
    batches = [_batches(textured, device, method, kind) for device in ("cpu", "gpu")]
    for cpu, gpu in zip(*batches, strict=True):
        assert cpu.keys() == gpu.keys()
        for name, expected in cpu.items():
            if expected.is_floating_point():
                levels = (expected - gpu[name]).abs() * 0.226 * 255  # grey levels, by the mean channel's std
                assert levels.mean() < 1.0, name
                assert levels.flatten().kthvalue(int(0.99 * levels.numel())).values < 8, name
            else:
                assert torch.equal(expected, gpu[name]), name


def test_every_step_on_the_gpu_is_the_references(textured: Path) -> None:
    # The GPU's JPEG decoder upsamples colour differently: what begins with decoding is further off.
    bounds = BOUNDS | {"decode": (2, 20), "crop": (0.8, 8), "view": (2.5, 30)}
    check_pixels(parity_steps.compare_pixels(samples_of(textured), "gpu"), bounds)


def test_gpu_views_are_channels_last_on_the_device(textured: Path) -> None:
    config = LoaderConfig(shards=textured, batch_size=8, device="gpu", background={"kind": "swaps"})
    with build_loader(config) as loader:
        batch = next(iter(loader))
    for name in ("query", "key", "negative_0"):
        assert batch[name].device.type == "cuda"
        assert batch[name].shape == (8, 3, 224, 224)
        assert batch[name].is_contiguous(memory_format=torch.channels_last)


def test_gpu_resumes_exactly(textured: Path) -> None:
    config = LoaderConfig(shards=textured, batch_size=8, device="gpu", background={"kind": "swaps"})
    with build_loader(config) as loader:
        batches = iter(loader)
        next(batches)
        state = loader.state_dict()
        expected = {name: tensor.clone() for name, tensor in next(batches).items()}
    with build_loader(config) as loader:
        loader.load_state_dict(state)
        found = next(iter(loader))
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name
