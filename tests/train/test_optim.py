"""LARS, LARC and the schedules against numbers recorded from the originals, and what the originals leave
open."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dali_bgaug.config import validate
from dali_bgaug.errors import UserError
from train.optim import LARC, LARS, OptimOptions, build_optimizer
from train.schedules import cosine_momentum, scaled_lr, warmup_cosine, warmup_multistep

DATA = Path(__file__).parents[1] / "data"
NAMES = ("linear/w", "linear/b", "batch_norm/scale", "batch_norm/offset")


def _toy() -> tuple[dict[str, torch.Tensor], dict[str, nn.Parameter]]:
    toy = {
        name: torch.from_numpy(np.asarray(value)) for name, value in np.load(DATA / "lars_toy.npz").items()
    }
    return toy, {name: nn.Parameter(toy[f"init/{name}"].clone()) for name in NAMES}


def _compare(
    kind: str, optimizer: torch.optim.Optimizer, toy: dict[str, torch.Tensor], params: dict[str, nn.Parameter]
) -> None:
    for step, lr in enumerate(toy["lrs"].tolist()):
        for group in optimizer.param_groups:
            group["lr"] = lr
        for name, parameter in params.items():
            parameter.grad = toy[f"grad{step}/{name}"].clone()
        optimizer.step()
        for name, parameter in params.items():
            expected = toy[f"{kind}_wd1.5e-06/step{step + 1}/{name}"]
            torch.testing.assert_close(parameter.data, expected, atol=1e-5, rtol=1e-5, msg=f"{step} {name}")
            assert torch.equal(parameter.grad, toy[f"grad{step}/{name}"])  # gradients stay as they were


def test_lars_takes_deepminds_steps() -> None:
    toy, params = _toy()
    groups = [
        {"params": [params["linear/w"]]},
        {"params": [params[name] for name in NAMES[1:]], "excluded": True},
    ]
    _compare("dm", LARS(groups, lr=0.1, weight_decay=1.5e-6), toy, params)


def test_larc_takes_swavs_steps() -> None:
    toy, params = _toy()
    _compare("larc", LARC(list(params.values()), lr=0.1, weight_decay=1.5e-6), toy, params)


def test_a_zero_parameter_or_gradient_is_not_scaled() -> None:
    """LARC does not even decay where the gradient is zero; for LARS the decay is part of the gradient."""
    for kind, expected in ((LARS, 0.0), (LARC, 1.0)):
        zero, still = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.ones(2))
        trust = {"eta": 1.0} if kind is LARS else {"trust_coefficient": 1.0}
        optimizer = kind([zero, still], lr=1.0, momentum=0.0, weight_decay=0.1, **trust)
        zero.grad, still.grad = torch.tensor([2.0, 0.0]), torch.zeros(2)
        optimizer.step()
        assert zero.tolist() == [-2, 0]
        assert still.tolist() == pytest.approx([expected, expected], abs=1e-6)


def test_parameters_without_gradient_stay_and_closures_are_called() -> None:
    moved, still = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimizer = LARC([moved, still], lr=0.1, weight_decay=0.5)
    moved.grad = torch.ones(3)
    assert optimizer.step(lambda: 7.0) == 7.0
    assert still.tolist() == [1, 1, 1]
    assert still not in optimizer.state
    assert moved.max() < 1


@pytest.mark.parametrize("kind", [LARS, LARC])
def test_state_goes_on_exactly(kind: type[torch.optim.Optimizer]) -> None:
    def four_steps(restart: bool, keep_state: bool = True) -> nn.Parameter:
        """Four steps; with `restart`, a new optimizer takes over after two."""
        parameter = nn.Parameter(torch.linspace(1, 2, 6))
        optimizer = kind([parameter], lr=0.3, weight_decay=0.01)
        for number in range(4):
            if restart and number == 2:
                state = optimizer.state_dict()
                optimizer = kind([parameter], lr=9.9)
                if keep_state:
                    optimizer.load_state_dict(state)
            parameter.grad = torch.linspace(-1, 1, 6) * (number + 1)
            optimizer.step()
        return parameter

    whole = four_steps(restart=False)
    assert torch.equal(whole, four_steps(restart=True))
    assert not torch.equal(whole, four_steps(restart=True, keep_state=False))


def test_a_negative_value_is_refused() -> None:
    with pytest.raises(ValueError, match="weight_decay=-1"):
        LARS([nn.Parameter(torch.ones(1))], lr=0.1, weight_decay=-1)


@pytest.mark.parametrize("setting", ["ep300", "ep100"])
def test_byols_schedules(setting: str) -> None:
    byol = np.load(DATA / "byol.npz")
    steps, warmup = int(byol[f"{setting}_max_steps"]), int(byol[f"{setting}_warmup_steps"])
    peak = {"ep300": 4.8, "ep100": 7.2}[setting]
    at = byol[f"{setting}_steps"].tolist()
    rates = [warmup_cosine(step, steps, warmup, peak) for step in at]
    assert rates == pytest.approx(byol[f"{setting}_lr"].tolist(), abs=1e-5)
    momenta = [cosine_momentum(step, steps, 0.99) for step in at]
    assert momenta == pytest.approx(byol[f"{setting}_tau_f64"].tolist(), abs=1e-12)
    assert momenta == pytest.approx(byol[f"{setting}_tau"].tolist(), abs=1e-6)


def test_schedules() -> None:
    rates = [warmup_cosine(step, 100, 10, 1.0, start=0.2, final=0.1) for step in range(101)]
    assert rates[:3] == pytest.approx([0.2, 0.28, 0.36])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.55)
    assert rates[100] == pytest.approx(0.1)
    assert warmup_cosine(0, 10, 0, 2.0) == 2.0
    steps = [warmup_multistep(step, 2, 1.0, [4, 6], 0.1) for step in range(8)]
    assert steps == pytest.approx([0, 0.5, 1, 1, 0.1, 0.1, 0.01, 0.01])
    assert scaled_lr(0.03, 1024) == pytest.approx(0.12)
    assert scaled_lr(4.8, 256, reference=4096) == pytest.approx(0.3)


def test_options_scale_every_rate_with_the_batch() -> None:
    swav = OptimOptions(lr=4.8, lr_batch=4096, warmup_lr=0.3, final_lr=0.0048, warmup_epochs=10)
    at = [swav.lr_at(step, 31200, 312, 4096) for step in (0, 1560, 3120, 31200)]
    assert at == pytest.approx([0.3, 2.55, 4.8, 0.0048])
    assert swav.lr_at(3120, 31200, 312, 1024) == pytest.approx(1.2)
    rotnet = OptimOptions(lr=0.01, lr_batch=192, schedule="steps", milestones=(10, 20))
    at = [rotnet.lr_at(step, 3000, 100, 192) for step in (0, 999, 1000, 2000)]
    assert at == pytest.approx([0.01, 0.01, 0.001, 0.0001])


def test_groups_of_each_optimizer() -> None:
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    lars = build_optimizer(network, OptimOptions(kind="lars", lr=1, exclude_bias_and_norm=True))
    assert isinstance(lars, LARS)
    assert [(g["excluded"], g["weight_decay"], len(g["params"])) for g in lars.param_groups] == [
        (False, 1e-4, 1),
        (True, 0.0, 3),
    ]
    sgd = build_optimizer(network, OptimOptions(lr=1, nesterov=True))
    assert [(g["nesterov"], g["weight_decay"], len(g["params"])) for g in sgd.param_groups] == [
        (True, 1e-4, 4)
    ]
    larc = build_optimizer(network, OptimOptions(kind="larc", lr=1, weight_decay=1e-6, trust=0.02))
    assert isinstance(larc, LARC)
    assert [(g["trust_coefficient"], g["weight_decay"]) for g in larc.param_groups] == [(0.02, 1e-6)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "lars", "nesterov": True}, "nesterov=true"),
        ({"kind": "larc", "exclude_bias_and_norm": True}, "larc excludes nothing"),
        ({"milestones": [3]}, "schedule=steps"),
        ({"schedule": "steps", "milestones": [6, 3]}, "increasing"),
        ({"clip_norm": 0}, "clip_norm"),
    ],
)
def test_what_does_not_go_together_is_refused(values: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        validate(OptimOptions, {"lr": 1.0, **values}, "recipe")
