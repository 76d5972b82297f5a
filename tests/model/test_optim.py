"""Update rules and schedules."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from conformance.material import wave
from conformance.tolerance import assert_close
from unrolled.core.errors import UsageError
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
        # 0.001 (108000 - step)/108000, at least 0.00007, of 180,000 steps
        ({"name": "linear", "warmup": 0.0, "end": 0.6, "final": 0.07}, {0.0: 1, 54 / 180: 0.5, 0.558: 0.07, 1.0: 0.07}),
        ({"name": "linear", "warmup": 0.1, "hold": 0.1, "end": 0.6}, {0.2: 1, 0.4: 0.5, 0.6: 0, 1.0: 0}),
        (
            {"name": "drops", "warmup": 0.0, "drops": [0.6, 0.8]},
            {0.0: 1, 0.59: 1, 0.6: 0.1, 0.79: 0.1, 0.8: 0.01, 1.0: 0.01},
        ),
        ({"name": "drops", "warmup": 0.0, "drops": [0.5], "factor": 0.5}, {0.4: 1, 0.5: 0.5}),
        ({"name": "exponential", "warmup": 0.0, "final": 0.01}, {0.0: 1, 0.5: 0.1, 1.0: 0.01}),
        # the rate of step 4,000 of 50,000 times sqrt(4,000 / step)
        ({"name": "inverse_sqrt", "warmup": 0.08}, {0.04: 0.5, 0.08: 1, 0.32: 0.5, 1.0: 0.08**0.5}),
        ({"name": "inverse_sqrt", "warmup": 0.05, "hold": 0.15}, {0.1: 1, 0.2: 1, 0.8: 0.5}),
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
            ahead = grad + config["momentum"] * first if config.get("nesterov") else first
            value = value - lr * ahead
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
    {"name": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True},
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


def test_nesterov_needs_a_momentum() -> None:
    with pytest.raises(UsageError, match=r"set optimizer\.momentum"):
        OPTIMIZERS.parse({"name": "sgd", "nesterov": True})


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


@pytest.mark.parametrize("limit", [None, 0.0, 0.5, 100.0])
def test_clip(limit: float | None) -> None:
    made = parameters()
    for parameter in made:
        parameter.grad = parameter.detach().clone()
    norm = math.sqrt(sum(float(p.detach().square().sum()) for p in made))
    assert _clip(made, limit) == pytest.approx(norm)
    after = math.sqrt(sum(float(p.grad.square().sum()) for p in made if p.grad is not None))
    assert after == pytest.approx(min(norm, limit) if limit else norm, rel=1e-5)
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


@pytest.mark.parametrize(
    "config",
    [
        {"name": "drops"},
        {"name": "linear", "drops": [0.5]},
        {"name": "exponential"},
        {"name": "inverse_sqrt", "warmup": 0.0},
        {"name": "inverse_sqrt", "warmup": 0.1, "final": 0.1},
        {"name": "cosine", "end": 0.5},
        {"name": "linear", "warmup": 0.3, "end": 0.2},
    ],
    ids=str,
)
def test_schedules_that_cannot_be_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="schedule"):
        ScheduleConfig.parse(config)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_normed_rmsprop_takes_steps_of_its_length(weight_decay: float) -> None:
    made, rho, eps = parameters(), 0.8, 1e-3
    config = {"name": "normed_rmsprop", "lr": 0.25, "rho": rho, "eps": eps, "weight_decay": weight_decay}
    optimizer = build_optimizer(OPTIMIZERS.parse(config), made)
    squares = [torch.zeros_like(p) for p in made]
    for k in range(3):
        before = [p.detach().clone() for p in made]
        for p in made:
            p.grad = (p.detach() + 0.1 * k).clone()
        grads = [p + 0.1 * k + weight_decay * p for p in before]
        squares = [rho * s + (1 - rho) * g**2 for s, g in zip(squares, grads, strict=True)]
        moves = [g / (s.sqrt() + eps) for g, s in zip(grads, squares, strict=True)]
        norm = torch.cat([m.flatten() for m in moves]).norm()
        optimizer.step()
        for p, old, move in zip(made, before, moves, strict=True):
            assert_close(p.detach(), old - 0.25 * move / norm, "step")
        taken = torch.cat([(p.detach() - old).flatten() for p, old in zip(made, before, strict=True)])
        assert float(taken.norm()) == pytest.approx(0.25)


def test_adam_without_a_first_moment_is_rmsprop_with_bias_correction() -> None:
    """The rule of the Mogrifier work: Adam with beta1 = 0."""
    made, second = parameters()[:1], 0.0
    optimizer = build_optimizer(OPTIMIZERS.parse({"name": "adam", "lr": 0.01, "betas": [0.0, 0.999]}), made)
    for k in range(1, 4):
        old = made[0].detach().clone()
        made[0].grad = old + 0.1 * k
        second = 0.999 * second + 0.001 * made[0].grad ** 2
        optimizer.step()
        expected = old - 0.01 * made[0].grad / ((second / (1 - 0.999**k)).sqrt() + 1e-8)
        assert_close(made[0].detach(), expected, "step")
