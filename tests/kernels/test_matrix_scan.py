"""Matrix states: every fast form against the loop, with resets, at lengths around a chunk's, and extreme decays."""

import itertools
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from conformance.material import resets, wave
from conformance.tolerance import assert_close
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.kernels.cpu import instruction_sets, library, why_no_library
from unrolled.kernels.matrix_scan import complex_scan, delta_scan, fla, matrix_scan, native, reference, state_norms
from unrolled.kernels.matrix_scan.reference import Inputs

BATCH, HEADS, K, V = 2, 3, 5, 7
FAST = [*(() if why_no_library() else ("native",)), "chunk", "quadratic"]
KINDS = ("none", "head", "key", "value", "rank_one", "bonus", "shared", "complex", "complex by key")


@pytest.fixture
def one_thread_again() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def given(kind: str, time: int, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    def numbers(phase: float, *shape: int) -> Tensor:
        return wave(*shape, phase=phase, dtype=dtype)

    rows = BATCH, time, HEADS
    found: dict[str, Any] = {"q": numbers(0.1, *rows, K), "k": numbers(0.2, *rows, K), "v": numbers(0.3, *rows, V)}
    found["state"] = numbers(0.4, BATCH, HEADS, K, V)
    decay = {"none": None, "value": (*rows, V), "head": rows, "complex": rows}
    if (shape := decay.get(kind, (*rows, K))) is not None:
        found["log_decay"] = -numbers(0.5, *shape).square()
    if kind == "rank_one":
        found |= {"a": normalize(numbers(0.6, *rows, K), dim=-1), "b": 0.5 * numbers(0.7, *rows, K)}
    if kind == "bonus":
        found["bonus"] = numbers(0.8, HEADS, K)
    if kind == "shared":
        found |= {name: found[name][:, :, :1] for name in ("q", "k")}
    if kind.startswith("complex"):
        found["phase"] = 3 * numbers(0.9, *found["log_decay"].shape)
        found["imaginary"] = numbers(1.0, BATCH, HEADS, K, V)
    return found


def run(kind: str, inputs: dict[str, Any], backend: str, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    parts: dict[str, Any] = dict(inputs)
    if kind == "shared":
        parts |= {name: parts[name].expand(-1, -1, HEADS, -1) for name in ("q", "k")}
    if kind.startswith("complex"):
        state = torch.complex(parts.pop("state"), parts.pop("imaginary"))
        o, last = complex_scan(**parts, state=state, reset=reset, backend=backend, scale=0.7)
        return o, torch.view_as_real(last)
    return matrix_scan(**parts, by_value=kind == "value", reset=reset, backend=backend, scale=0.7)


def outcome(kind: str, inputs: dict[str, Any], backend: str, reset: Tensor | None) -> dict[str, Tensor]:
    inputs = {name: value.detach().requires_grad_() for name, value in inputs.items()}
    outputs = run(kind, inputs, backend, reset)
    loss = torch.stack([(part * wave(*part.shape, phase=2.0)).sum() for part in outputs]).sum()
    grads = torch.autograd.grad(loss, list(inputs.values()))
    names = [f"gradient of {name}" for name in inputs]
    return dict(zip(("output", "state"), (part.detach() for part in outputs), strict=True)) | dict(
        zip(names, grads, strict=True)
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", FAST)
def test_fast_forms_are_the_loop(kind: str, backend: str) -> None:
    for time in (1, 2, 15, 16, 17, 67):
        for reset in (None, resets(BATCH, time)):
            expected = outcome(kind, given(kind, time), "reference", reset)
            found = outcome(kind, given(kind, time), backend, reset)
            for name, value in expected.items():
                what = f"{kind} by {backend}, {time} steps, reset {reset is not None}: {name}"
                # a gradient of 0, of the phase where all is reset, has no relative error
                assert_close(found[name] + 1, value + 1, what)
                if value.norm() > 1e-6:
                    assert_close(found[name], value, what)


@pytest.mark.parametrize("name", instruction_sets())
@pytest.mark.parametrize("kind", ["head", "value", "rank_one", "delta"])
def test_every_instruction_set_layout_and_count_of_threads(
    name: str, kind: str, monkeypatch: pytest.MonkeyPatch, one_thread_again: None
) -> None:
    """Sizes of several vectors and a rest, arrays in another order of memory, in float64 and in float32."""
    monkeypatch.setattr(native, "library", lambda: library(name))
    rows, keys, values = (BATCH, 35, HEADS), 21, 37
    inputs: dict[str, Any] = {"q": wave(*rows, keys), "k": 0.2 * wave(*rows, keys, phase=1.0)}
    inputs |= {"v": wave(BATCH, HEADS, 35, values).transpose(1, 2), "state": wave(BATCH, HEADS, keys, values)}
    if kind != "delta":
        inputs["log_decay"] = -wave(*rows, *{"value": (values,), "rank_one": (keys,)}.get(kind, ())).square()
    if kind == "rank_one":
        inputs |= {"a": normalize(wave(*rows, keys, phase=2.0), dim=-1), "b": 0.3 * wave(*rows, keys, phase=3.0)}
    reset = resets(BATCH, 35)

    def outcome(backend: str, dtype: torch.dtype) -> list[Tensor]:
        given: dict[str, Any] = {key: value.to(dtype).detach().requires_grad_() for key, value in inputs.items()}
        call = dict(given)
        if kind == "delta":
            call |= {"a": -normalize(given["k"], dim=-1), "b": given["k"]}
        outputs = matrix_scan(**call, by_value=kind == "value", reset=reset, backend=backend)
        loss = torch.stack([(part * wave(*part.shape).to(dtype)).sum() for part in outputs]).sum()
        return [*outputs, *torch.autograd.grad(loss, list(given.values()))]

    expected = outcome("reference", torch.float64)
    for dtype in (torch.float64, torch.float32):
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for found, value in zip(outcome("native", dtype), expected, strict=True):
                assert_close(found.double(), value, f"{kind} by {name}", dtype)


@pytest.mark.parametrize("backend", [*FAST, "reference"])
@pytest.mark.parametrize("kind", ["head", "key", "rank_one"])
def test_a_reset_is_a_new_sequence(kind: str, backend: str) -> None:
    inputs, reset = given(kind, 30), torch.zeros(BATCH, 30, dtype=torch.bool)
    reset[:, 11] = True
    o, last = run(kind, inputs, backend, reset)
    late = {name: value if name == "state" else value[:, 11:] for name, value in inputs.items()}
    expected, end = run(kind, late | {"state": torch.zeros_like(late["state"])}, backend, None)
    assert_close(o[:, 11:], expected, "after the reset")
    assert_close(last, end, "the last state")


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("kind", ["head", "key", "value", "rank_one"])
@pytest.mark.parametrize("decay", [0.0, -1e-4, -40.0, -1e4])
def test_decays_open_and_shut_stay_finite_and_right(kind: str, backend: str, decay: float) -> None:
    inputs = given(kind, 67, torch.float32)
    inputs["log_decay"] = torch.full_like(inputs["log_decay"], decay)
    inputs["log_decay"][:, ::3] *= 1e-3
    exact = outcome(kind, {name: value.double() for name, value in inputs.items()}, "reference", None)
    for name, value in outcome(kind, inputs, backend, None).items():
        assert value.isfinite().all(), f"{name} at log decay {decay}"
        assert (value.double() - exact[name]).norm() <= 1e-4 * exact[name].norm() + 1e-5, f"{name} at {decay}"


def test_gradients_are_those_of_finite_differences() -> None:
    for kind in ("key", "rank_one", "bonus", "complex"):
        inputs = {name: value.requires_grad_() for name, value in given(kind, 2).items()}

        def scan(*values: Tensor, kind: str = kind, names: tuple[str, ...] = tuple(inputs)) -> tuple[Tensor, Tensor]:
            return run(kind, dict(zip(names, values, strict=True)), "reference", None)

        assert torch.autograd.gradcheck(scan, tuple(inputs.values()))


def test_the_delta_rule_reads_its_error_from_the_decayed_state() -> None:
    inputs, time = given("head", 9), 9
    k, beta = normalize(inputs["k"], dim=-1), wave(BATCH, time, HEADS).sigmoid()
    o, last = delta_scan(inputs["q"], k, inputs["v"], beta, inputs["log_decay"], state=inputs["state"])
    s, outputs = inputs["state"], []
    for t in range(time):
        s = s * inputs["log_decay"][:, t].exp()[..., None, None]
        error = inputs["v"][:, t] - torch.einsum("bhkv,bhk->bhv", s, k[:, t])
        s = s + beta[:, t, :, None, None] * torch.einsum("bhk,bhv->bhkv", k[:, t], error)
        outputs.append(torch.einsum("bhkv,bhk->bhv", s, inputs["q"][:, t]))
    assert_close(o, torch.stack(outputs, 1), "outputs")
    assert_close(last, s, "state")


def test_norms_of_the_state_over_time() -> None:
    inputs = given("rank_one", 6)
    norms = state_norms(Inputs(**inputs, reset=None))
    for t in (1, 4, 6):
        part = {name: value if name == "state" else value[:, :t] for name, value in inputs.items()}
        _, last = run("rank_one", part, "reference", None)
        assert_close(norms[:, t - 1], torch.linalg.matrix_norm(last), f"step {t}")


def test_what_cannot_be_is_refused() -> None:
    inputs = given("rank_one", 3)
    with pytest.raises(UnrolledError, match="a and b together"):
        matrix_scan(**{name: value for name, value in inputs.items() if name != "b"})
    with pytest.raises(UnrolledError, match="decay by value"):
        matrix_scan(**inputs, by_value=True)
    with pytest.raises(UsageError, match="computes on a GPU"):
        matrix_scan(**inputs, backend="fla")


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Functions with the signatures of flash-linear-attention's, computed by the loop, segment by segment."""
    called: list[str] = []

    def make(name: str) -> Any:
        def function(q: Tensor, k: Tensor, v: Tensor, *rest: Tensor, g: Tensor | None = None, **options: Any) -> Any:
            called.append(name)
            a, b, decay = None, None, g
            if name == "chunk_dplr_delta_rule":
                a, b, decay = rest
            elif name == "chunk_gla":
                (decay,) = rest
            ends = options.get("cu_seqlens", torch.tensor([0, q.shape[1]])).tolist()
            assert "cu_seqlens" not in options or len(q) == 1
            if decay is not None and decay.dim() == 3:
                decay = decay.unsqueeze(-1)
            pieces = []
            for i, (low, high) in enumerate(itertools.pairwise(ends)):
                state = options["initial_state"][i : i + 1] if "cu_seqlens" in options else options["initial_state"]
                cut = [part if part is None else part[:, low:high] for part in (q, k, v, decay, a, b)]
                pieces.append(reference.scan(Inputs(*cut, state, None, scale=options["scale"])))  # type: ignore[arg-type]
            return torch.cat([o for o, _ in pieces], 1), torch.cat([last for _, last in pieces])

        return function

    names = {"simple_gla": "chunk_simple_gla", "gla": "chunk_gla", "generalized_delta_rule": "chunk_dplr_delta_rule"}
    for package, name in names.items():
        module = ModuleType(f"fla.ops.{package}")
        setattr(module, name, make(name))
        monkeypatch.setitem(sys.modules, f"fla.ops.{package}", module)
    return called


@pytest.mark.parametrize("kind", ["none", "head", "key", "rank_one"])
def test_the_package_is_called_by_its_conventions(kind: str, stand_in: list[str]) -> None:
    inputs = given(kind, 9)
    shaped = inputs | ({"log_decay": inputs["log_decay"].unsqueeze(-1)} if kind == "head" else {})
    for reset in (None, resets(BATCH, 9)):
        parts: dict[str, Any] = {"log_decay": None, "a": None, "b": None} | shaped
        call = Inputs(**parts, reset=reset, scale=0.7)
        for found, expected, what in zip(fla.scan(call), reference.scan(call), ("output", "state"), strict=True):
            assert_close(found, expected, f"{kind}, reset {reset is not None}: {what}")
    wanted = {"key": "chunk_gla", "rank_one": "chunk_dplr_delta_rule"}.get(kind, "chunk_simple_gla")
    assert set(stand_in) == {wanted}
