"""The attack against foolbox's, and what it must not do."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dali_bgaug.views.options import NormaliseOptions
from tests.helpers.judging import (
    COLOURS,
    CPU,
    RUNTIME,
    MeanColour,
    colour_network,
    colour_photos,
    colour_set,
    small_classifier,
)
from train.evaluate.robustness.fgsm import FgsmScore, attack
from train.evaluate.robustness.run import evaluate_set, set_config

NORMALISE = NormaliseOptions(std=(0.228, 0.224, 0.225))
LABELS = torch.tensor([0, 1, 2, 3])
NAMES = ("conv", "smooth", "deep")


def _normalised(pixels: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(row)[:, None, None] for row in (NORMALISE.mean, NORMALISE.std))
    return (pixels - mean) / std


def _pixels(images: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(row)[:, None, None] for row in (NORMALISE.mean, NORMALISE.std))
    return images * std + mean


def _photos() -> torch.Tensor:
    generator = torch.Generator().manual_seed(11)
    return torch.randint(0, 256, (4, 3, 8, 8), generator=generator).float() / 255


@pytest.fixture(scope="module")
def foolbox() -> dict[str, np.ndarray]:
    """What foolbox makes of the same photos."""
    with np.load(Path(__file__).parents[3] / "data" / "fgsm.npz") as file:
        return dict(file)


@pytest.mark.parametrize("name", NAMES)
def test_the_attack_is_foolboxs(name: str, foolbox: dict[str, np.ndarray]) -> None:
    network = small_classifier(name)
    found = _pixels(attack(network, _normalised(_photos()), LABELS, NORMALISE, 8.0).images)
    np.testing.assert_allclose(found.numpy(), foolbox[name], atol=1e-6)
    outcomes = FgsmScore(LABELS.numpy(), NORMALISE).judge(network, _normalised(_photos()), torch.arange(4))
    assert outcomes[:, 1].tolist() == (~foolbox[f"{name}_success"]).tolist()


@pytest.mark.parametrize("epsilon", [1.0, 8.0, 64.0])
def test_pixels_change_by_so_many_grey_levels_and_stay_pixels(epsilon: float) -> None:
    """Whatever the standard deviations are."""
    found = _pixels(
        attack(small_classifier("smooth"), _normalised(_photos()), LABELS, NORMALISE, epsilon).images
    )
    assert found.min() > -1e-6
    assert found.max() < 1 + 1e-6
    change = 255 * (found - _photos()).abs()
    assert change.max() <= epsilon + 1e-3
    inside = (found > 1e-4) & (found < 1 - 1e-4)
    assert inside.float().mean() > 0.4
    torch.testing.assert_close(change[inside], torch.full_like(change[inside], epsilon), atol=1e-3, rtol=0)


def test_parameters_get_no_gradients_and_the_mode_of_batch_norm_stays() -> None:
    network = small_classifier("deep")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        attack(network, _normalised(_photos()), LABELS, NORMALISE, 8.0)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_the_attack_is_in_float32_under_autocast_too(name: str) -> None:
    """Gradients of half precision have other signs, and some have none."""
    network, photos = small_classifier(name), _normalised(_photos())
    plain = attack(network, photos, LABELS, NORMALISE, 8.0).images
    with torch.autocast("cpu", torch.bfloat16):
        found = attack(network, photos, LABELS, NORMALISE, 8.0).images
    assert found.dtype == torch.float32
    assert torch.equal(found, plain)
    half = attack(network, photos.half(), LABELS, NORMALISE, 8.0).images
    assert torch.equal(half, attack(network, photos.half().float(), LABELS, NORMALISE, 8.0).images)


def test_a_set_under_attack(tmp_path: Path) -> None:
    """Colours that differ by 5 levels change their class, those that differ by 170 do not; a photo that was
    wrong before counts as wrong."""
    from PIL import Image

    files = colour_photos(tmp_path, 4)
    Image.new("RGB", (48, 40), (100, 105, 100)).save(tmp_path / "near.png")
    network = colour_network()
    assert max(COLOURS[0]) - min(COLOURS[0]) == 170
    labels = np.array([0, 1, 0, 0, 1])  # the third is blue
    photos = colour_set(
        tmp_path, [*files, "near.png"], score=FgsmScore(labels, network.normalise), protocol="fgsm"
    )
    found = evaluate_set(network, photos, set_config(network, photos, RUNTIME, "ignore"), CPU)
    assert found["clean"] == 0.8
    assert found["value"] == 0.6
    assert found["epsilon"] == 8
    assert found["photos"] == 5
    assert isinstance(network.network, MeanColour)
    assert all(parameter.grad is None for parameter in network.network.parameters())
