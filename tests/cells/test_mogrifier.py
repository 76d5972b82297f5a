"""Mogrifier rounds against a gating loop written from the equations."""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from conformance.material import wave
from conformance.tolerance import assert_close
from unrolled.cells import CELLS, Cell, CellConfig
from unrolled.cells.gated.lstm import LSTM, LSTMConfig
from unrolled.cells.gated.mogrifier import Mogrifier, MogrifierConfig
from unrolled.core.errors import UsageError


def make(in_width: int = 5, width: int = 4, **options: Any) -> Any:
    torch.manual_seed(6)
    cell = Mogrifier(in_width, width, MogrifierConfig.parse(options)).double()
    with torch.no_grad():
        for k, parameter in enumerate(cell.parameters()):
            parameter.add_(0.4 * wave(*parameter.shape, phase=k))
    return cell


def gate_by_hand(cell: Any, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """x^r and h^r of the equations: odd rounds gate x by 2 sigmoid(Q h + b), even ones h by 2 sigmoid(R x + b)."""
    p = {name: value.detach() for name, value in cell.named_parameters()}
    for i in range(1, cell.config.rounds + 1):
        matrix = p[f"round{i}"] if cell.config.rank is None else p[f"round{i}_out"] @ p[f"round{i}_in"]
        gate = 2 / (1 + torch.exp(-((h if i % 2 else x) @ matrix.T + p[f"round{i}_bias"])))
        x, h = (gate * x, h) if i % 2 else (x, gate * h)
    return x, h


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("rounds", [1, 2, 5, 6])
@pytest.mark.parametrize("inner", ["lstm", "gru", "mlstm"])
def test_rounds(inner: str, rounds: int, rank: int | None) -> None:
    cell = make(rounds=rounds, rank=rank, cell={"name": inner})
    x = wave(3, 4, 5)
    start = cell.initial_state(3, dtype=torch.float64)
    state = type(start)(*(0.5 * wave(*part.shape, phase=k) for k, part in enumerate(start)))
    y, final = cell(x, state)
    for t in range(4):
        gated_x, gated_h = gate_by_hand(cell, x[:, t], state.h)
        step, state = cell.cell(gated_x.unsqueeze(1), state._replace(h=gated_h))
        assert_close(y[:, t : t + 1], step, f"output at step {t}")
    for part, other in zip(final, state, strict=True):
        assert_close(part, other, "final state")


def test_every_round_counts() -> None:
    x = wave(2, 3, 5)
    outputs = []
    for rounds in range(6):
        cell = make(rounds=rounds)
        outputs.append(cell(x)[0].detach())
    # from the zero state h is zero at the first step, so even rounds show from the second on
    assert all(float((a - b).abs().max()) > 1e-4 for a, b in pairwise(outputs))


@pytest.mark.parametrize("rank", [None, 2])
def test_zero_weights_gate_by_exactly_one(rank: int | None) -> None:
    cell = make(rounds=5, rank=rank)
    with torch.no_grad():
        for name, parameter in cell.named_parameters():
            if name.startswith("round"):
                parameter.zero_()
    seen = []
    x = wave(2, 3, 5)
    traced, _ = cell(x, tap=lambda name, value: seen.append(value) if re.fullmatch(r"round\d+", name) else None)
    assert len(seen) == 15
    assert all(bool((gate == 1).all()) for gate in seen)
    assert_close(traced, cell.cell(x)[0], "output of the wrapped cell")


def test_other_state_fields_are_untouched() -> None:
    cell = make(rounds=2)
    with torch.no_grad():
        cell.cell.weight_ih.zero_()
        cell.cell.weight_hh.zero_()
        cell.cell.bias.copy_(torch.tensor([-30.0, 30.0, 0.0, 0.0]).repeat_interleave(4))  # keep c, take nothing
    state = cell.initial_state(2, dtype=torch.float64)._replace(c=wave(2, 4))
    assert_close(cell(wave(2, 3, 5), state)[1].c, state.c, "c through closed gates")


def test_default_is_the_papers_cell() -> None:
    config = MogrifierConfig()
    assert config.rounds == 5
    assert config.cell == LSTMConfig(cap_input_gate=True, init="truncated_normal")


def test_parameters_of_a_round() -> None:
    count = {rounds: Mogrifier.num_params(MogrifierConfig(rounds=rounds, rank=84), 912, 912) for rounds in (0, 1, 5)}
    assert count[1] - count[0] == 84 * (912 + 912) + 912
    assert count[5] - count[0] == 5 * (84 * (912 + 912) + 912)
    assert count[0] == LSTM.num_params(LSTMConfig(), 912, 912)


class _ScanConfig(CellConfig):
    name: Literal["no_step"] = "no_step"


class NoStep(Cell):
    """A cell that is no StepCell."""

    Config = _ScanConfig


@pytest.fixture
def _no_step() -> Iterator[None]:
    CELLS.add("no_step", NoStep)
    yield
    CELLS.remove("no_step")


@pytest.mark.usefixtures("_no_step")
@pytest.mark.parametrize("cell", ["no_step", {"name": "no_step"}, _ScanConfig()], ids=str)
def test_a_cell_without_steps_is_refused(cell: object) -> None:
    with pytest.raises(UsageError, match="'no_step' is not"):
        MogrifierConfig.parse({"cell": cell})


def test_mogrifier_of_a_mogrifier_is_a_step_cell_like_any_other() -> None:
    cell = make(rounds=1, cell={"name": "mogrifier", "rounds": 2, "cell": "gru"})
    assert Mogrifier.num_params(cell.config, 5, 4) == sum(p.numel() for p in cell.parameters())
    assert cell(wave(2, 3, 5))[0].shape == (2, 3, 4)
