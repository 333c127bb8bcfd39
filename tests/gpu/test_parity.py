"""The GPU graph gives what the CPU graph gives; the decoders and resamplers of the two backends round
differently."""

from pathlib import Path

import pytest
import torch

from pipelines import LoaderConfig, build_loader


def _batches(shards: Path, device: str, kind: str, count: int = 2) -> list[dict[str, torch.Tensor]]:
    config = LoaderConfig(
        shards=shards,
        batch_size=16,
        device=device,
        hw_decoder_load=0.0,  # the hardware decoder's pixels differ a little more
        crop={"size": 96, "fg_min": 0.1},
        background={"kind": kind, "p_pos": 0.5, "p_neg": 0.5},
    )
    with build_loader(config) as loader:
        batches = iter(loader)
        return [{name: tensor.cpu() for name, tensor in next(batches).items()} for _ in range(count)]


@pytest.mark.parametrize("kind", ["none", "rm", "random", "swaps"])
def test_gpu_equals_cpu(textured: Path, kind: str) -> None:
    for cpu, gpu in zip(_batches(textured, "cpu", kind), _batches(textured, "gpu", kind), strict=True):
        assert cpu.keys() == gpu.keys()
        assert torch.equal(cpu["label"], gpu["label"])
        assert torch.equal(cpu["replaced"], gpu["replaced"])
        for name in ("query", "key", "negative"):
            if name in cpu:
                levels = (cpu[name] - gpu[name]).abs() * 0.226 * 255  # grey levels, by the mean channel's std
                assert levels.mean() < 1.0, name
                assert levels.flatten().kthvalue(int(0.99 * levels.numel())).values < 8, name


def test_gpu_views_are_channels_last_on_the_device(textured: Path) -> None:
    config = LoaderConfig(shards=textured, batch_size=8, device="gpu", background={"kind": "swaps"})
    with build_loader(config) as loader:
        batch = next(iter(loader))
    for name in ("query", "key", "negative"):
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
