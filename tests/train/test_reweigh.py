"""Functions of a token's nats: the dense formula by every kind of head."""

import math
from typing import Any

import pytest
import torch

from train.objective_material import B, T, make_model, make_task, make_window, objectives_of
from unrolled.train.objectives.reweigh import reweighed

HEADS = (
    {"name": "softmax"},
    {"name": "mos", "components": 2},
    {"name": "adaptive", "cutoffs": [4]},
    {"name": "pointer"},
)


@pytest.mark.parametrize("kind", ["tldr", "focal"])
@pytest.mark.parametrize("head", HEADS, ids=lambda head: head["name"])
def test_reweighing_is_the_dense_formula(head: dict[str, Any], kind: str) -> None:
    lm, batch = make_model(head), make_window()
    value = make_task().loss(lm, batch, None, None, objectives_of(lm, "reweigh", kind=kind)).value
    found = torch.autograd.grad(value, list(lm.parameters()))
    state, nats = lm.initial_state(B), []
    for t in range(T):  # one step after another: a pointer's state holds what was read
        out = lm(batch.inputs[:, t : t + 1], state)
        log_prob, _ = lm.head.log_prob(out.dropped[:, 0], out.state.head)
        nats.append(-log_prob.gather(1, batch.targets[:, t : t + 1]).squeeze(1))
        state = lm.score(out, batch.targets[:, t : t + 1])[2]
    n = torch.stack(nats, 1)
    p = (-n).exp()
    plain = ((1 + (math.pi * p).cos() if kind == "tldr" else (1 - p).square()) * n).mean()
    torch.testing.assert_close(value, plain, rtol=1e-10, atol=1e-12)
    for one, other in zip(found, torch.autograd.grad(plain, list(lm.parameters())), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_weights_fall_with_the_probability() -> None:
    p = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    for kind in ("tldr", "focal"):
        f, _ = reweighed(-p.log(), kind)
        assert bool(((f / -p.log()).diff() < 0).all())
