"""Choosing a backend."""

import logging
from collections.abc import Iterator
from typing import Any, get_args

import pytest
import torch

from unrolled.cells import CELLS, Noise
from unrolled.core.errors import UsageError
from unrolled.kernels import OPERATIONS
from unrolled.kernels.cell_loop import BACKENDS, native
from unrolled.kernels.dispatch import Backend, Compute, choices, choose, forget_choices


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    forget_choices()
    yield
    forget_choices()


def backends(*refusals: tuple[str, str | None]) -> dict[str, Backend]:
    return {name: Backend(name, lambda *_, why=why: why, lambda *_: None) for name, why in refusals}


TABLE = backends(("fast", "only on Sundays"), ("middling", None), ("reference", None))


def test_auto_takes_the_first_that_can() -> None:
    assert choose("sum", TABLE, "auto", "a vector").name == "middling"


def test_a_named_backend_that_cannot_says_why() -> None:
    with pytest.raises(UsageError, match=r"'fast' cannot run a vector: only on Sundays; use backend 'auto'"):
        choose("sum", TABLE, "fast", "a vector")
    assert choices() == {}


def test_an_unknown_backend_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match=r"unknown sum backend 'midling'; did you mean 'middling'"):
        choose("sum", TABLE, "midling", "a vector")


def test_refusals_see_the_call() -> None:
    seen = []
    table = {"one": Backend("one", lambda *args: seen.append(args), lambda: None)}
    choose("sum", table, "auto", "a vector", 1, "two")
    assert seen == [(1, "two")]


def test_choices_are_recorded_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "unrolled.kernels"):
        for _ in range(3):
            choose("sum", TABLE, "auto", "a vector")
        choose("sum", TABLE, "reference", "another")
    assert choices() == {"sum a vector": "middling", "sum another": "reference"}
    assert [record.message for record in caplog.records] == [
        "sum a vector: middling (asked for: auto)",
        "sum another: reference (asked for: reference)",
    ]
    choose("sum", TABLE, "reference", "a vector")
    assert choices()["sum a vector"] == "middling, reference", "all that ran are kept"


def make(name: str = "lstm", backend: str = "auto", **config: Any) -> Any:
    cell = CELLS[name](5, 4, CELLS.parse({"name": name, **config}))
    cell.compute = Compute(backend=backend)
    return cell


def test_the_reference_is_last_and_never_refuses() -> None:
    assert list(BACKENDS)[-1] == "reference"
    assert BACKENDS["reference"].refuse() is None


RESET = torch.tensor([[False, False, True]])
X, H = torch.ones(1, 3, 5), torch.ones(1, 1, 4)

# (config, backend that stands first, what it cannot do, the words of the refusal)
REFUSALS: list[tuple[dict[str, Any], str, dict[str, Any], str]] = [
    ({"name": name}, backend, call, words)
    for name, backend in (("lstm", "torch"), ("gru", "torch"), ("rnn", "torch"), ("lstm", "fused"), ("mlstm", "fused"))
    for call, words in (
        ({"reset": RESET}, "cannot reset inside a window"),
        ({"noise": Noise(state_in=H)}, "state dropout"),
        ({"noise": Noise(zoneout={"h": H})}, "zoneout"),
        ({"tap": lambda name, value: None}, "internals"),
    )
]
REFUSALS += [
    ({"name": "lstm", "layer_norm": True}, "torch", {}, "layer norm"),
    ({"name": "lstm", "layer_norm": True}, "fused", {}, "layer norm"),
    ({"name": "lstm", "projection": 3}, "fused", {}, "projection"),
    ({"name": "lstm", "coupled": True}, "torch", {}, "coupled"),
    ({"name": "gru", "reset": "before"}, "torch", {}, "before"),
    ({"name": "gru", "layer_norm": True}, "torch", {}, "layer norm"),
    ({"name": "mlstm", "form": "early"}, "fused", {}, "standard output form"),
    ({"name": "mlstm"}, "torch", {}, "no kernel"),
    ({"name": "gru"}, "fused", {}, "only the LSTM and the mLSTM"),
    ({"name": "mogrifier"}, "torch", {}, "no kernel"),
    ({"name": "lstm"}, "generic", {"tap": lambda name, value: None}, "reference"),
]


@pytest.mark.parametrize(("config", "backend", "call", "words"), REFUSALS)
def test_named_backend_refuses_in_words_and_auto_goes_on(
    config: dict[str, Any], backend: str, call: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        make(**config, backend=backend)(X, **call)
    y, _ = make(**config)(X, **call)
    assert y.isfinite().all()
    assert backend not in choices().values()


FEW_STEPS = [
    ("lstm", 1, "generic"), ("lstm", 3, "fused"), ("lstm", 4, "torch"),
    ("mlstm", 1, "generic"), ("mlstm", 2, "fused"), ("gru", 1, "torch"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "steps", "backend"), FEW_STEPS)
def test_auto_looks_at_the_number_of_steps(
    monkeypatch: pytest.MonkeyPatch, name: str, steps: int, backend: str
) -> None:
    """What packs weights in every call, or fuses steps, takes some of them to pay."""
    monkeypatch.setattr(native, "why_no_library", lambda: "it is not built")
    make(name)(X[:, :1].expand(-1, steps, -1))
    assert list(choices().values()) == [backend]


def test_bf16_is_refused_by_kernels_that_have_none() -> None:
    cell = make("gru", "torch")
    cell.compute = Compute(backend="torch", precision="bf16")
    with pytest.raises(UsageError, match="not bf16"):
        cell(X)


def test_a_reset_at_the_start_is_no_hindrance() -> None:
    reset = torch.tensor([[True, False, False]])
    cell = make("gru", "torch")
    state = cell.initial_state(1)._replace(h=torch.ones(1, 4))
    assert torch.equal(cell(X, state, reset)[0], cell(X)[0])


def test_a_subclass_with_its_own_step_is_computed_by_that_step() -> None:
    lstm = CELLS["lstm"]

    class Doubled(lstm):
        def step(self, pre: Any, state: Any, w: Any, tap: Any) -> Any:
            return super().step(2 * pre, state, w, tap)

    torch.manual_seed(0)
    cell = Doubled(5, 4, CELLS.parse("lstm"))
    found = cell(X)[0]
    cell.compute = Compute(backend="reference")
    assert torch.allclose(found, cell(X)[0])
    assert not {"torch", "fused"} & set(cell.backends())
    for backend in ("torch", "fused"):
        cell.compute = Compute(backend=backend)
        with pytest.raises(UsageError, match="Doubled has a step of its own"):
            cell(X)


def test_compute_refuses_other_precisions() -> None:
    with pytest.raises(UsageError, match="precision"):
        Compute.parse({"precision": "int3"})


def test_what_users_read_names_every_backend() -> None:
    from unrolled.cli.common import BackendOption

    option = get_args(BackendOption)[1].help
    for name in {name for row in OPERATIONS if OPERATIONS[row].of_cells for name in OPERATIONS[row].backends}:
        assert name in str(Compute.model_fields["backend"].description), name
        assert name in option, name
