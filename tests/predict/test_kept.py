"""States in bytes: what comes back, and what is refused before anything is made of it."""

import base64
import contextlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.tree import leaves
from unrolled.predict import KeptState, NeuralPredictor, OtherModelError, StateForm
from unrolled.predict.state_files import read_state, write_state

from .tiny import *  # noqa: F403


@pytest.fixture
def form(predictor: Callable[..., NeuralPredictor]) -> StateForm:
    return StateForm("tiny@0123456789ab", predictor(dtype=torch.float32))


def kept(form: StateForm, **changes: Any) -> KeptState:
    tree = form.begun
    return KeptState(form.model, tree, 12, 3, 2, b"\xc3", "EN", 1_700_000_000.125)._replace(**changes)


def rewritten(data: bytes, change: Callable[[dict], Any]) -> bytes:
    """The file with another header."""
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    text = change(header)
    text = text if isinstance(text, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


def told(**changes: str) -> Callable[[dict], None]:
    return lambda header: header["__metadata__"].update(changes)


def entry(**changes: Any) -> Callable[[dict], None]:
    def change(header: dict) -> None:
        header[min(name for name in header if name != "__metadata__")].update(changes)

    return change


def test_comes_back(form: StateForm) -> None:
    before = kept(form)
    after = form.unpack(form.pack(before))
    assert after._replace(tree=None) == before._replace(tree=None)
    assert all(torch.equal(a, b) for a, b in zip(leaves(after.tree), leaves(before.tree), strict=True))
    assert form.unpack(form.pack(form.begin())).last is None


def test_any_program_reads_it(form: StateForm) -> None:
    from safetensors.torch import load

    assert set(load(form.pack(kept(form)))) == {"cells.0.h", "cells.0.c", "cells.1.h", "cells.1.c", "hidden"}


def test_another_folder_has_the_same_model(form: StateForm) -> None:
    assert form.unpack(form.pack(kept(form, model="other-name@0123456789ab"))).model == form.model
    with pytest.raises(OtherModelError, match="send the text again"):
        form.unpack(form.pack(kept(form, model="tiny@ffffffffffff")))


@pytest.mark.parametrize(
    "change",
    [
        told(kind="weights"), told(version="2"), told(tokens="-1"), told(tokens="1e3"), told(tokens="9" * 17),
        told(last="19999"), told(last="x"), told(drawn="13"), told(pending="c"), told(pending="00" * 4),
        told(held="x" * 65), told(issued="now"), told(issued="nan"), told(extra="1"),
        lambda header: header["__metadata__"].pop("key"), lambda header: header.pop("__metadata__"),
        lambda header: header.update(__metadata__={"kind": 3}), lambda header: header.update(__metadata__=[]),
        lambda header: header.pop("hidden"), lambda header: header.update(more=header["hidden"]),
        lambda header: header.update(hidden=3), lambda header: header.update(hidden=[]),
        entry(dtype="F64"), entry(dtype="X"), entry(shape=[2, 4]), entry(shape=[10**12]), entry(shape="8"),
        entry(data_offsets=[0, 10**12]), entry(data_offsets=[-4, 28]), entry(data_offsets=[8, 40]),
        entry(data_offsets=[0]), entry(data_offsets=[0.0, 32.0]), entry(data_offsets=[True, 33]), entry(more=1),
        lambda header: b'{"hidden": 1, "hidden": 2}', lambda header: b"[" * 60_000, lambda header: b"\xff{}",
        lambda header: b"{" + b" " * 70_000 + b"}", lambda header: b"3",
    ],
)  # fmt: skip
def test_refused(form: StateForm, change: Callable[[dict], Any]) -> None:
    with pytest.raises(UsageError) as error:
        form.unpack(rewritten(form.pack(kept(form)), change))
    assert str(error.value).endswith(".")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 2e6])
def test_numbers_that_no_text_gives(form: StateForm, value: float) -> None:
    tree = form.begun._replace(hidden=torch.full_like(form.begun.hidden, value))
    with pytest.raises(UsageError, match="hidden holds numbers"):
        form.unpack(form.pack(kept(form, tree=tree)))


def test_ids_outside_of_a_table() -> None:
    from unrolled.counts import KneserNeyConfig, estimate_kneser_ney
    from unrolled.predict import KneserNeyPredictor

    model = KneserNeyPredictor(
        estimate_kneser_ney(torch.arange(40).numpy() % 7, 7, 0, KneserNeyConfig.parse({"order": 3}))
    )
    form = StateForm("n@1", model)
    for value in (-2, 14):
        tree = form.begun._replace(ids=torch.full_like(form.begun.ids, value))
        with pytest.raises(UsageError, match="ids holds numbers"):
            form.unpack(form.pack(kept(form, tree=tree)))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_changed_bytes_are_read_or_refused(form: StateForm, data: st.DataObject) -> None:
    whole = bytearray(form.pack(kept(form)))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    for one in (bytes(whole), bytes(whole[:cut])):
        with contextlib.suppress(UsageError):
            form.unpack(one)


def test_files(form: StateForm, tmp_path: Path) -> None:
    """As written here, and as a server gives it out: signed, or as the text of a blob."""
    write_state(tmp_path / "a.state", kept(form), form)
    data = (tmp_path / "a.state").read_bytes()
    signed = bytes(range(32)) + data
    (tmp_path / "b.state").write_bytes(signed)
    (tmp_path / "c.state").write_bytes(base64.urlsafe_b64encode(signed).rstrip(b"=") + b"\n")
    for name in "abc":
        assert read_state(tmp_path / f"{name}.state", form).held == "EN"
    (tmp_path / "d.state").write_bytes(b"no state of anything, and long enough to hold a signature before one")
    with pytest.raises(UsageError, match="no state of a text"):
        read_state(tmp_path / "d.state", form)
    (tmp_path / "e.state").write_bytes(data + bytes(1 << 20))
    with pytest.raises(UnrolledError):
        read_state(tmp_path / "e.state", form)
