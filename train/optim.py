"""Optimizers: SGD (torch's), and the two that scale each parameter's step by its norm, LARS and LARC.

    LARS   BYOL's    the gradient, decay included, is scaled to eta times the parameter's norm; biases and
                     batch norm are excluded
    LARC   SwAV's    the same idea with decay and a small number in the denominator; nothing is excluded

You, Gitman, Ginsburg 2017. Both are followed by SGD with momentum, and work on all parameters of a group at
once.
"""

from collections.abc import Callable, Iterable
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import nn

from dali_bgaug.config import Options
from train.schedules import scaled_lr, warmup_cosine, warmup_multistep

Tensors = list[torch.Tensor]


class OptimOptions(Options):
    """An optimizer and its learning rate."""

    kind: Literal["sgd", "lars", "larc"] = "sgd"
    lr: float = Field(gt=0)
    """Peak learning rate at `lr_batch` photos a step; scales linearly with the photos a step really has."""
    backbone_lr: float | None = Field(default=None, gt=0)
    """Peak learning rate of the backbone where it has its own (fine-tuning); follows the same schedule."""
    lr_batch: int = Field(default=256, ge=1)
    warmup_lr: float = Field(default=0.0, ge=0)
    """Learning rate at the start of the warm-up, also at `lr_batch`."""
    final_lr: float = Field(default=0.0, ge=0)
    """cosine: learning rate at the end, also at `lr_batch`."""
    warmup_epochs: float = Field(default=0, ge=0)
    schedule: Literal["cosine", "steps"] = "cosine"
    milestones: Annotated[tuple[int, ...], Field(strict=False)] = ()
    """steps: epochs from which on the rate is multiplied by `factor`."""
    factor: float = Field(default=0.1, gt=0, le=1)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False
    """sgd only."""
    weight_decay: float = Field(default=1e-4, ge=0)
    trust: float = Field(default=1e-3, gt=0)
    """lars, larc: length of a step over length of the parameter, at a learning rate of 1."""
    exclude_bias_and_norm: bool = False
    """Leave biases and normalisation without weight decay (and, with lars, without scaling)."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Longest gradient, over all parameters; longer ones are shortened to it. By default nothing is."""

    @model_validator(mode="after")
    def _check(self) -> "OptimOptions":
        if self.nesterov and self.kind != "sgd":
            raise ValueError(f"nesterov=true: {self.kind} has none; use kind=sgd")
        if self.exclude_bias_and_norm and self.kind == "larc":
            raise ValueError("exclude_bias_and_norm=true: larc excludes nothing; use kind=lars")
        if self.schedule == "cosine" and self.milestones:
            raise ValueError(f"milestones={list(self.milestones)}: of schedule=steps, this is a cosine")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones={list(self.milestones)}: must be increasing epochs")
        return self

    def lr_at(self, step: int, steps: int, steps_per_epoch: int, batch_size: int) -> float:
        """The learning rate of a step (from 0) out of `steps`, with `batch_size` photos a step."""
        peak, start, final = (
            scaled_lr(rate, batch_size, self.lr_batch) for rate in (self.lr, self.warmup_lr, self.final_lr)
        )
        warmup = round(self.warmup_epochs * steps_per_epoch)
        if self.schedule == "cosine":
            return warmup_cosine(step, steps, warmup, peak, start, final)
        milestones = [epoch * steps_per_epoch for epoch in self.milestones]
        return warmup_multistep(step, warmup, peak, milestones, self.factor, start)


def build_optimizer(module: nn.Module, options: OptimOptions) -> torch.optim.Optimizer:
    """The optimizer of all parameters of `module` that are trained.

    A group's `scale` is what the learning rate of a step is to be multiplied by; without one it is 1.
    module: with a `backbone`, where that has a learning rate of its own.
    """
    backbone = [] if options.backbone_lr is None else list(module.backbone.parameters())
    known = {id(parameter) for parameter in backbone}
    head = [parameter for parameter in module.parameters() if id(parameter) not in known]
    groups = _groups(head, options)
    if options.backbone_lr is not None:
        scale = options.backbone_lr / options.lr
        groups += [{**group, "scale": scale} for group in _groups(backbone, options)]
    if options.kind == "lars":
        return LARS(groups, options.lr, options.momentum, eta=options.trust)
    if options.kind == "larc":
        return LARC(groups, options.lr, options.momentum, trust_coefficient=options.trust)
    return torch.optim.SGD(groups, options.lr, options.momentum, nesterov=options.nesterov)


def _groups(parameters: list[nn.Parameter], options: OptimOptions) -> list[dict[str, Any]]:
    """Parameter groups: all that is trained, or apart from it biases and normalisation, if excluded."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    excluded = [p for p in trained if p.dim() <= 1] if options.exclude_bias_and_norm else []
    included = [p for p in trained if p.dim() > 1] if options.exclude_bias_and_norm else trained
    lars = options.kind == "lars"
    groups = [
        {"params": included, "weight_decay": options.weight_decay, **({"excluded": False} if lars else {})},
        {"params": excluded, "weight_decay": 0.0, **({"excluded": True} if lars else {})},
    ]
    return [group for group in groups if group["params"]]


class _ScaledSGD(torch.optim.Optimizer):
    """SGD with momentum on gradients that `_scaled` has changed; no dampening, no Nesterov."""

    DEFAULTS: ClassVar[dict[str, Any]]
    """Options of a parameter group beside learning rate and momentum."""

    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.9, **options: Any) -> None:
        """options: in place of DEFAULTS."""
        defaults = {"lr": lr, "momentum": momentum, **self.DEFAULTS, **options}
        if unknown := set(options) - set(self.DEFAULTS):
            raise TypeError(f"{min(unknown)}: no option of {type(self).__name__}")
        for name, value in defaults.items():
            if value < 0:
                raise ValueError(f"{name}={value}: must not be negative")
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; the gradients themselves are not changed."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            updates = self._scaled(params, [p.grad for p in params], group)
            for p in params:
                if "momentum_buffer" not in self.state[p]:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p)
            buffers = [self.state[p]["momentum_buffer"] for p in params]
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, updates)
            torch._foreach_add_(params, buffers, alpha=-group["lr"])
        return loss

    def _scaled(self, params: Tensors, grads: Tensors, group: dict[str, Any]) -> Tensors:
        raise NotImplementedError


def _norms(tensors: Tensors) -> torch.Tensor:
    """The length of each: [len(tensors)]; nothing waits for a GPU."""
    return torch.stack(torch._foreach_norm(tensors))


class LARS(_ScaledSGD):
    """LARS as in BYOL's reference implementation (`utils/optimizers.py`).

        g <- g + weight_decay p;   g <- g eta |p| / |g|   (times 1 if either norm is 0)
        m <- momentum m + g;       p <- p - lr m

    A parameter group with `excluded: True` gets neither weight decay nor the trust ratio.
    """

    DEFAULTS: ClassVar = {"weight_decay": 0.0, "eta": 1e-3, "excluded": False}

    def _scaled(self, params: Tensors, grads: Tensors, group: dict[str, Any]) -> Tensors:
        if group["excluded"]:
            return grads
        grads = list(torch._foreach_add(grads, params, alpha=group["weight_decay"]))
        lengths, steps = _norms(params), _norms(grads)
        ratio = torch.where((lengths > 0) & (steps > 0), group["eta"] * lengths / steps, 1.0)
        torch._foreach_mul_(grads, list(ratio.unbind()))
        return grads


class LARC(_ScaledSGD):
    """LARC as in SwAV's reference implementation: apex's, without clipping.

        g <- (g + weight_decay p) trust_coefficient |p| / (|g| + weight_decay |p| + eps)
        m <- momentum m + g;       p <- p - lr m

    A parameter or gradient that is all zero: its plain gradient, without weight decay.
    """

    DEFAULTS: ClassVar = {"weight_decay": 0.0, "trust_coefficient": 1e-3, "eps": 1e-8}

    def _scaled(self, params: Tensors, grads: Tensors, group: dict[str, Any]) -> Tensors:
        decay = group["weight_decay"]
        lengths, steps = _norms(params), _norms(grads)
        scaled = (lengths > 0) & (steps > 0)
        ratio = group["trust_coefficient"] * lengths / (steps + decay * lengths + group["eps"])
        ratio, decay = torch.where(scaled, ratio, 1.0), torch.where(scaled, decay, 0.0)
        decayed = torch._foreach_mul(params, list(decay.unbind()))
        torch._foreach_add_(decayed, grads)
        torch._foreach_mul_(decayed, list(ratio.unbind()))
        return list(decayed)
