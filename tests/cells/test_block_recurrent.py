"""The block-recurrent layer beside its whole equations, row by row, token by token and head by head."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from conformance.material import wave
from conformance.tolerance import assert_close
from unrolled.cells.attention.block_recurrent import BlockRecurrent, BlockRecurrentConfig, BlockState

FORMS: dict[str, dict[str, Any]] = {
    "fixed skip": {},
    "fixed single": {"layout": "single", "positions": "alibi"},
    "fixed dual, strict": {"layout": "dual", "positions": "none", "strict": True},
    "lstm skip, strict": {"gate": "lstm", "positions": "alibi", "strict": True},
    "lstm single": {"gate": "lstm", "layout": "single", "positions": "none"},
    "lstm dual, strict": {"gate": "lstm", "layout": "dual", "strict": True},
}


def made(options: dict[str, Any], in_width: int = 6) -> BlockRecurrent:
    config = BlockRecurrentConfig(**{"heads": 2, "window": 4, "states": 3, "factor": 1.5, **options})
    cell = BlockRecurrent(in_width, 8, config).double()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.normal_(0, 0.6)
    return cell


def norm(x: Tensor, gain: Tensor) -> Tensor:
    return x / (x.square().mean() + 1e-6).sqrt() * gain


def unit(x: Tensor) -> Tensor:
    return x / (x.square().sum() + 1e-6).sqrt()


def turned(x: Tensor, place: int) -> Tensor:
    """One head's vector as complex numbers, channel i + d/2 the imaginary part of channel i, turned by its place."""
    half = len(x) // 2
    angle = torch.tensor([place * 10000.0 ** (-2 * i / len(x)) for i in range(half)], dtype=x.dtype)
    z = torch.complex(x[:half], x[half:]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([z.real, z.imag])


def mean(scores: list[Tensor], values: list[Tensor]) -> Tensor:
    """The softmax of scores, over values; 0 over none."""
    if not scores:
        return torch.zeros(4, dtype=torch.float64)
    weights = [score.exp() for score in scores]
    return sum((w * v for w, v in zip(weights, values, strict=True)), torch.zeros(4).double()) / sum(weights)


class Layer:
    """One row's document so far: q, k, v of every token and head, and the states."""

    def __init__(self, cell: Any):
        self.cell, self.config = cell, cell.config
        self.keys: list[list[Tensor]] = []
        self.values: list[list[Tensor]] = []
        self.states = list(cell.start)

    def four(self, weight: Tensor, x: Tensor) -> list[list[Tensor]]:
        """q, k, v and the second q, each a list of heads, all but v of length 1."""
        parts = [list((matrix @ x).split(4)) for matrix in weight.chunk(4)]
        return [part if i == 2 else [unit(head) for head in part] for i, part in enumerate(parts)]

    def score(self, q: Tensor, k: Tensor, now: int, then: int, head: int) -> Tensor:
        kind, scale = self.config.positions, self.cell.scales[0, head].abs()
        if kind == "rotary":
            q, k = turned(q, now), turned(k, then)
        bias = 2.0 ** (-8 * (head + 1) / 2) * (now - then) if kind == "alibi" else 0.0
        return (q @ k) * scale - bias

    def step(self, x: Tensor) -> Tensor:
        cell, config, now = self.cell, self.config, len(self.keys)
        x = x if cell.entry is None else cell.entry @ x
        q, k, v, q2 = self.four(cell.weight, norm(x, cell.gains[0]))
        self.keys.append(k)
        self.values.append(v)
        states = [norm(s, cell.gains[2]) + name for s, name in zip(self.states, cell.ids, strict=True)]
        own_state = [self.four(cell.state_weight, s) for s in states]
        seen = (
            range(max(0, now - config.window), now)
            if config.strict
            else range(max(0, now - config.window + 1), now + 1)
        )
        own, read = [], []
        for h in range(2):
            own.append(
                mean([self.score(q[h], self.keys[j][h], now, j, h) for j in seen], [self.values[j][h] for j in seen])
            )
            scores = [(q2[h] @ one[1][h]) * cell.scales[1, h].abs() for one in own_state]
            read.append(mean(scores, [one[2][h] for one in own_state]))
        x = x + cell.out @ torch.cat([*own, *read])
        y = x + cell.down @ torch.relu(cell.up @ norm(x, cell.gains[1]))
        if now % config.window == config.window - 1:
            last = range(max(0, now + 1 - 2 * config.window), now + 1)
            self.states = [self.changed(i, own_state, last) for i in range(config.states)]
        return y

    def changed(self, i: int, own: list[Any], last: range) -> Tensor:
        cell, (a, _, _, b), state = self.cell, own[i], self.states[i]
        found = [
            mean([(a[h] @ one[1][h]) * cell.scales[2, h].abs() for one in own], [one[2][h] for one in own])
            for h in range(2)
        ]
        for h in range(2):
            scores = [(b[h] @ self.keys[j][h]) * cell.scales[3, h].abs() for j in last]
            found.append(mean(scores, [self.values[j][h] for j in last]))
        h = torch.cat(found)
        if self.config.layout == "single":
            hidden = torch.relu(cell.state_up @ h)
            return self.gated(0, state, torch.tanh(cell.state_down @ hidden), hidden)
        state = self.gated(0, state, cell.state_out @ h, h)
        if self.config.layout == "skip":
            return state
        hidden = torch.relu(cell.state_up @ norm(state, cell.state_gain))
        return self.gated(1, state, cell.state_down @ hidden, hidden)

    def gated(self, number: int, state: Tensor, new: Tensor, read: Tensor) -> Tensor:
        gate = self.cell.gates[number]
        if self.config.gate == "fixed":
            return torch.sigmoid(gate) * state + (1 - torch.sigmoid(gate)) * new
        f, i = (gate @ read + self.cell.gate_bias[number]).chunk(2)
        return torch.sigmoid(f + 1) * state + torch.sigmoid(i - 1) * new

    def left(self) -> tuple[Any, ...]:
        """The parts of the State: the last 2W - 1 keys and values, zeros before them, counts, states."""
        room, config = 2 * self.config.window - 1, self.config
        rings = [torch.zeros(room, 2, 4).double() for _ in range(2)]
        for ring, kept in zip(rings, (self.keys, self.values), strict=True):
            for place, heads in enumerate(reversed(kept[-room:])):
                ring[room - 1 - place] = torch.stack(heads)
        return *rings, min(room, len(self.keys)), len(self.keys) % config.window, torch.stack(self.states)


def loop(cell: BlockRecurrent, x: Tensor, reset: Tensor) -> tuple[Tensor, BlockState]:
    outputs, ends = [], []
    for row, begins in zip(x, reset, strict=True):
        layer, y = Layer(cell), []
        for token, begin in zip(row, begins, strict=True):
            layer = Layer(cell) if begin else layer
            y.append(layer.step(token))
        outputs.append(torch.stack(y))
        ends.append(layer.left())
    keys, values, fill, place, states = zip(*ends, strict=True)
    counts = torch.tensor(fill), torch.tensor(place)
    return torch.stack(outputs), BlockState(torch.stack(keys), torch.stack(values), *counts, torch.stack(states))


def resets(time: int) -> Tensor:
    """The first row's documents begin inside a window, right behind one, and after a single token."""
    reset = torch.zeros(2, time, dtype=torch.bool)
    for place in (5, 9, 10):
        if place < time:
            reset[0, place] = True
    return reset


def pieces(cell: BlockRecurrent, x: Tensor, reset: Tensor, sizes: list[int]) -> tuple[Tensor, BlockState]:
    outputs, state = [], None
    for part, begins in zip(x.split(sizes, 1), reset.split(sizes, 1), strict=True):
        y, state = cell(part, state, begins)
        outputs.append(y)
    return torch.cat(outputs, 1), state  # type: ignore[return-value]


def everything(cell: BlockRecurrent, x: Tensor, found: tuple[Tensor, BlockState]) -> dict[str, Tensor]:
    """Outputs, the final state and the gradients of one number made of them all, by their names."""
    y, state = found
    parts = {"outputs": y, **{f"state {name}": part for name, part in state._asdict().items()}}
    sums = [(part * wave(*part.shape, phase=2.0)).sum() for part in parts.values() if part.is_floating_point()]
    named = {"x": x, **dict(cell.named_parameters())}
    grads = torch.autograd.grad(torch.stack(sums).sum(), list(named.values()), allow_unused=True)
    pairs = zip(named.items(), grads, strict=True)
    return parts | {f"gradient of {name}": torch.zeros_like(p) if grad is None else grad for (name, p), grad in pairs}


@pytest.mark.parametrize("time", [1, 4, 7, 19])
@pytest.mark.parametrize("form", FORMS)
def test_the_layer_is_its_equations(form: str, time: int) -> None:
    cell, reset = made(FORMS[form], in_width=8 if time == 7 else 6), resets(time)
    x = wave(2, time, cell.in_width).requires_grad_()
    wanted = everything(cell, x, loop(cell, x, reset))
    splits = {"whole": [time], "single tokens": [1] * time}
    if time == 19:
        splits |= {"odd pieces": [3, 1, 7, 8], "windows": [4, 4, 4, 4, 3], "in two": [13, 6]}
    for name, sizes in splits.items():
        for part, value in everything(cell, x, pieces(cell, x, reset, sizes)).items():
            assert_close(value, wanted[part], f"{form}, {name}: {part}")


@pytest.mark.parametrize("layout", ["skip", "single", "dual"])
def test_gates_begin_as_published(layout: str) -> None:
    """Variances 0.1 / inputs of matrices and 0.01 of biases, so that a state is at first mostly kept."""
    options: dict[str, Any] = {"layout": layout}
    config = BlockRecurrentConfig(heads=4, states=8, gate="lstm", **options)
    torch.manual_seed(0)
    cell = BlockRecurrent(64, 64, config)
    for gate in cell.gates:
        assert gate.std().item() == pytest.approx(math.sqrt(0.1 / gate.shape[1]), rel=0.1)
    assert cell.gate_bias is not None
    assert cell.gate_bias.std().item() == pytest.approx(0.1, rel=0.2)
    assert abs(cell.gate_bias.mean().item()) < 0.03
