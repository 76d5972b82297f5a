"""Update rules and schedules."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from conformance.build import wave
from conformance.tolerance import assert_close
from unrolled.optim import OPTIMIZERS, ScheduleConfig, build_optimizer, learning_rate_factor
from unrolled.train.step import _clip


def factor(fraction: float, **config: Any) -> float:
    return learning_rate_factor(ScheduleConfig.parse(config), fraction)


def test_warm_up() -> None:
    assert factor(0.0, warmup=0.2) == pytest.approx(1e-3), "the first step moves"
    assert factor(0.1, warmup=0.2) == pytest.approx(0.5)
    assert factor(0.2, warmup=0.2) == 1
    assert factor(0.0, warmup=0.0) == 1


@pytest.mark.parametrize(
    ("config", "values"),
    [
        ({"name": "constant", "warmup": 0.1}, {0.1: 1, 0.5: 1, 1.0: 1}),
        ({"name": "linear", "warmup": 0.0}, {0.0: 1, 0.25: 0.75, 0.5: 0.5, 1.0: 0}),
        ({"name": "linear", "warmup": 0.0, "final": 0.2}, {0.0: 1, 0.5: 0.6, 1.0: 0.2}),
        ({"name": "linear", "warmup": 0.1, "hold": 0.4}, {0.5: 1, 0.75: 0.5, 1.0: 0}),
        ({"name": "cosine", "warmup": 0.0}, {0.0: 1, 1 / 3: 0.75, 0.5: 0.5, 2 / 3: 0.25, 1.0: 0}),
        ({"name": "cosine", "warmup": 0.5, "hold": 0.5}, {0.5: 1, 0.9: 1, 1.0: 1}),
    ],
    ids=str,
)
def test_schedules(config: dict[str, Any], values: dict[float, float]) -> None:
    for fraction, value in values.items():
        assert factor(fraction, **config) == pytest.approx(value, abs=1e-12), fraction
    for outside, inside in ((-1.0, 0.0), (2.0, 1.0)):
        assert factor(outside, **config) == factor(inside, **config)


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(wave(3, 4)), nn.Parameter(wave(4, phase=1.0))]


def step(made: list[nn.Parameter], config: dict[str, Any], steps: int = 3) -> None:
    """Some steps with gradients made from the parameters themselves."""
    optimizer = build_optimizer(OPTIMIZERS.parse(config), made)
    for k in range(steps):
        for parameter in made:
            parameter.grad = (parameter.detach() + 0.1 * k).clone()
        optimizer.step()


def by_hand(value: torch.Tensor, config: dict[str, Any], decay: float, steps: int = 3) -> torch.Tensor:
    name, lr = config["name"], config["lr"]
    first, second = torch.zeros_like(value), torch.zeros_like(value)
    for k in range(steps):
        grad = value + 0.1 * k
        if name == "adamw":
            value = value * (1 - lr * decay)
        else:
            grad = grad + decay * value
        if name == "sgd":
            first = grad if k == 0 else config["momentum"] * first + grad
            value = value - lr * first
            continue
        one, two = config["betas"]
        first, second = one * first + (1 - one) * grad, two * second + (1 - two) * grad * grad
        m, v = first / (1 - one ** (k + 1)), second / (1 - two ** (k + 1))
        value = value - lr * m / (v.sqrt() + 1e-8)
    return value


RULES: list[dict[str, Any]] = [
    {"name": "adam", "lr": 0.05, "betas": (0.8, 0.9)},
    {"name": "adam", "lr": 0.05, "betas": (0.0, 0.999)},
    {"name": "adamw", "lr": 0.05, "betas": (0.8, 0.9)},
    {"name": "sgd", "lr": 0.05, "momentum": 0.0},
    {"name": "sgd", "lr": 0.05, "momentum": 0.9},
]


@pytest.mark.parametrize("decay", ["all", "matrices"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("config", RULES, ids=str)
def test_updates_by_hand(config: dict[str, Any], weight_decay: float, decay: str) -> None:
    made, start = parameters(), parameters()
    step(made, {**config, "weight_decay": weight_decay, "decay": decay})
    for parameter, value in zip(made, start, strict=True):
        shrink = weight_decay if decay == "all" or value.dim() > 1 else 0.0
        assert_close(parameter.detach(), by_hand(value.detach(), config, shrink), f"{tuple(value.shape)}")
    assert not torch.equal(made[0], start[0])


def test_every_optimiser_of_the_table_has_a_default_and_moves() -> None:
    for name in OPTIMIZERS:
        made = parameters()
        step(made, {"name": name})
        assert not torch.equal(made[0], parameters()[0]), name


def test_frozen_parameters_are_left_out() -> None:
    made = parameters()
    made[0].requires_grad_(False)
    groups = build_optimizer(OPTIMIZERS.parse("adam"), made).param_groups
    assert [len(group["params"]) for group in groups] == [1]


@pytest.mark.parametrize("limit", [None, 0.5, 100.0])
def test_clip(limit: float | None) -> None:
    made = parameters()
    for parameter in made:
        parameter.grad = parameter.detach().clone()
    norm = math.sqrt(sum(float(p.detach().square().sum()) for p in made))
    assert _clip(made, limit) == pytest.approx(norm)
    after = math.sqrt(sum(float(p.grad.square().sum()) for p in made if p.grad is not None))
    assert after == pytest.approx(norm if limit is None else min(norm, limit), rel=1e-5)
    if limit == 0.5:
        assert made[0].grad is not None
        assert_close(made[0].grad / made[0].grad.norm(), made[0].detach() / made[0].detach().norm(), "direction")


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_clip_leaves_what_is_not_finite_alone(value: float) -> None:
    made = parameters()
    for parameter in made:
        parameter.grad = torch.full_like(parameter, value)
    assert not math.isfinite(_clip(made, 1.0))
    assert made[0].grad is not None
    assert not made[0].grad.isfinite().any()
