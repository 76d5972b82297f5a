"""Traces of every registered cell: names, shapes, values against plain runs, zoneout, silent cells."""

from operator import attrgetter
from typing import Any

import pytest
import torch
from torch import Tensor

from conformance.cells.build import CAUSAL, Case
from families import first_of_each
from unrolled.cells import CELLS
from unrolled.cells.base import HiddenState
from unrolled.cells.gated.rnn import RNN
from unrolled.cells.taps import TAP_NAMES, tap_name, tapped
from unrolled.model import LanguageModel, ModelConfig, trace_window

TOKENS = torch.tensor([[1, 4, 2, 2, 0, 3], [0, 0, 5, 1, 3, 2]])

LSTM = ["i_pre", "f_pre", "g_pre", "o_pre", "i", "f", "g", "o", "c", "h"]
NAMES = {
    "mlp": ["hidden", "h"],
    "rnn": ["h_pre", "h"],
    "lstm": LSTM,
    "gru": ["r_pre", "z_pre", "n_pre", "r", "z", "n", "h"],
    "mrnn": ["m", "h_pre", "h"],
    "mlstm": ["m", *LSTM],
    "mgru": ["m", "r_pre", "z_pre", "n_pre", "r", "z", "n", "h"],
    "qrnn": ["g_pre", "f_pre", "o_pre", "g", "f", "o", "c", "h"],
    "mogrifier": [
        *("round1_pre", "round1", "x1", "round2_pre", "round2", "h2", "round3_pre", "round3", "x3"),
        *("round4_pre", "round4", "h4", "round5_pre", "round5", "x5", *LSTM),
    ],
}  # fmt: skip


def make(cell: Any, **options: Any) -> LanguageModel:
    torch.manual_seed(2)
    parsed = CELLS.parse(cell)
    multiple = CELLS[parsed.name].width_multiple(parsed)
    width = -(-12 // multiple) * multiple
    model = LanguageModel(ModelConfig.parse({"width": width, "layers": 2, "cell": cell, **options}), 6).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.6 * (12 / width) ** 0.5 * torch.randn_like(parameter))
    return model


def stacked(model: LanguageModel, tokens: Tensor) -> dict[str, Tensor]:
    steps = list(model.trace(tokens))
    return {key: torch.stack([step[key] for step in steps], 1) for key in steps[0]}


@pytest.mark.parametrize("name", NAMES)
def test_names_of_the_default_cells(name: str) -> None:
    assert tapped(CELLS[name], CELLS[name].Config()) == NAMES[name]


def numbers(state: Any) -> dict[str, Tensor]:
    """The fields of a state that hold real numbers."""
    return {name: part for name, part in state._asdict().items() if part.is_floating_point()}


@pytest.mark.parametrize("case", first_of_each(CAUSAL, attrgetter("name")), ids=str)
def test_every_cell_speaks_the_one_language(case: Case) -> None:
    """All names are in the table, gates keep to their range, and a gate has its pre-activation."""
    config = CELLS[case.name].EXAMPLES[case.index]
    model = make(config.model_dump())
    found = stacked(model, TOKENS)
    assert {key.split(".", 1)[0] for key in found} == {"0", "1"}
    for layer, cell in enumerate(model.stack.cells()):
        names = [key.split(".", 1)[1] for key in found if key.startswith(f"{layer}.")]
        assert set(names) == set(tapped(type(cell), config))
        assert set(numbers(cell.initial_state(1))) <= set(names), "the whole state, but for its counts"
        for name in names:
            value, kind = found[f"{layer}.{name}"], tap_name(name)
            assert value.shape[:2] == (2, 6)
            assert value.dim() == 3
            assert kind.role != "other", name
            if kind.role == "gate":
                assert 0 <= float(value.min()) < float(value.max()) <= kind.high
                inputs = found.get(f"{layer}.{name}_pre")
                if inputs is None:  # 1 - f in the place of an input gate
                    assert name == "i"
                    assert getattr(getattr(config, "cell", config), "coupled", False)
                elif not (name == "i" and "cap_input_gate=True" in repr(config)):
                    assert torch.allclose(value, kind.high * torch.sigmoid(inputs), atol=1e-12)


@pytest.mark.parametrize("case", first_of_each(CAUSAL, attrgetter("name")), ids=str)
def test_a_window_is_its_steps_and_the_states_are_the_models(case: Case) -> None:
    model = make(CELLS[case.name].EXAMPLES[case.index].model_dump())
    slow = stacked(model, TOKENS)
    fast, out = trace_window(model, TOKENS)
    assert set(fast) == set(slow)
    for key, value in slow.items():
        assert torch.allclose(fast[key], value, atol=1e-12), key
    with torch.no_grad():
        plain = model(TOKENS)
        for t in range(6):
            state = model(TOKENS[:, : t + 1]).state.cells
            for layer, fields in enumerate(state):
                for name, value in numbers(fields).items():
                    assert torch.allclose(slow[f"{layer}.{name}"][:, t], value.flatten(1), atol=1e-12), (layer, name, t)
    assert torch.allclose(out.raw, plain.raw, atol=1e-12)
    h = slow["1.h"]
    assert torch.allclose(h, plain.raw[..., : h.shape[2]], atol=1e-12), "h is the output, or what it begins with"


def test_only_what_is_wanted() -> None:
    model = make("lstm")
    fast, _ = trace_window(model, TOKENS, wanted=lambda layer, name: layer == 1 and name in ("f", "c"))
    assert set(fast) == {"1.f", "1.c"}
    assert set(next(model.trace(TOKENS, wanted=lambda layer, name: (layer, name) == (0, "h")))) == {"0.h"}


def test_states_with_zoneout_are_those_carried_on() -> None:
    model = make("lstm", dropout={"zoneout": {"c": 0.4, "h": 0.2}})
    fast, out = trace_window(model, TOKENS)
    with torch.no_grad():
        for t in range(6):
            state = model(TOKENS[:, : t + 1]).state.cells
            for layer in (0, 1):
                assert torch.allclose(fast[f"{layer}.c"][:, t], state[layer].c, atol=1e-12)
                assert torch.allclose(fast[f"{layer}.h"][:, t], state[layer].h, atol=1e-12)
        assert torch.allclose(out.raw, model(TOKENS).raw, atol=1e-12)
    new = fast["0.f"][:, 1] * fast["0.c"][:, 0] + fast["0.i"][:, 1] * fast["0.g"][:, 1]
    assert not torch.allclose(fast["0.c"][:, 1], new, atol=1e-3), "zoneout changed it"


class Silent(RNN):
    """Taps nothing of its state."""

    def step(self, pre: Any, state: HiddenState, w: Any, tap: Any) -> Any:
        return super().step(pre, state, w, lambda name, value: tap("odd", value) if name == "h_pre" else None)


def test_a_cell_that_taps_no_state() -> None:
    model, other = make("rnn"), make("rnn")
    for layer in model.stack.cells():
        layer.__class__ = Silent
    found, _ = trace_window(model, TOKENS)
    assert set(found) == {"0.odd", "0.h", "1.odd", "1.h"}
    wanted, _ = trace_window(other, TOKENS)
    for layer in (0, 1):
        assert torch.allclose(found[f"{layer}.h"], wanted[f"{layer}.h"], atol=1e-12)
        assert torch.allclose(found[f"{layer}.odd"], wanted[f"{layer}.h_pre"], atol=1e-12)
    assert tap_name("odd").role == "other"


def test_each_name_of_the_table_is_tapped_by_some_cell() -> None:
    names = {name for case in CAUSAL for name in tapped(CELLS[case.name], CELLS[case.name].EXAMPLES[case.index])}
    assert {id(tap_name(name)) for name in names} == {id(kind) for kind in TAP_NAMES.values()}


def test_a_plain_lstm_step_by_hand() -> None:
    """The values under the names are those of the equations."""
    model = make("lstm")
    (layer, _), found = model.stack.cells(), stacked(model, TOKENS)
    weights = dict(layer.named_parameters())
    h = c = torch.zeros(2, 12, dtype=torch.float64)
    for t in range(6):
        x = model.embedding(TOKENS[:, t : t + 1])[:, 0]
        pre = (x @ weights["weight_ih"].T + h @ weights["weight_hh"].T + weights["bias"]).detach()
        i, f, g, o = pre[:, :12].sigmoid(), pre[:, 12:24].sigmoid(), pre[:, 24:36].tanh(), pre[:, 36:].sigmoid()
        c = f * c + i * g
        h = o * c.tanh()
        by_hand = {"i": i, "f": f, "g": g, "o": o, "c": c, "h": h, "f_pre": pre[:, 12:24]}
        for name, value in by_hand.items():
            assert torch.allclose(found[f"0.{name}"][:, t], value, atol=1e-12), name


def test_the_qrnns_f_is_the_share_kept() -> None:
    config = {"name": "qrnn", "pooling": "ifo"}
    found = stacked(make(config), TOKENS)
    before = torch.cat([torch.zeros(2, 1, 12, dtype=torch.float64), found["0.c"][:, :-1]], 1)
    written = found["0.i"] * found["0.g"]
    assert torch.allclose(found["0.c"], found["0.f"] * before + written, atol=1e-12)
    assert torch.allclose(found["0.h"], found["0.o"] * found["0.c"], atol=1e-12)
