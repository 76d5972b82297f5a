"""Checks of how a cell is computed: backends, gradients, noise, weight drop, precision."""

from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from conformance.material import resets, wave
from conformance.tolerance import assert_close, relative_error
from unrolled.cells import Cell, Noise, StepCell
from unrolled.core.errors import UsageError
from unrolled.core.tree import leaves, unflatten
from unrolled.kernels.cell_loop import TableInput
from unrolled.kernels.dispatch import Compute

from .build import BATCH, MakeCell, build, fitted, noises, outcome, values


def _calls(cell: Cell, first: bool) -> list[tuple[str, int, bool, str | None]]:
    """(label, time, with resets, kind of noise): lengths plain and with resets, then noise at one length: every kind
    for the first example of a cell, for the others the last kind alone, in which all come together."""
    calls: list[tuple[str, int, bool, str | None]] = []
    for time in (1, 2, 3, 7):
        calls += [(f"time {time}", time, False, None), (f"time {time} with resets", time, True, None)]
    kinds = list(noises(cell, cell.initial_state(1), 5))
    return calls + [(f"{kind} with resets", 5, True, kind) for kind in (kinds if first else kinds[-1:])]


def check_backends(make_cell: MakeCell) -> None:
    """Every backend gives the reference's outputs, final state and gradients, in float64.

    A backend may refuse resets or noise, in words; the plain call it must serve, and the generic one serves all.
    """
    cell = build(make_cell)
    names = cell.backends()
    assert names, "a cell names the backends that can run it"
    assert not isinstance(cell, StepCell) or {"generic", "reference"} <= set(names)
    for label, time, with_resets, kind in _calls(cell, fitted(make_cell).first):
        x, state = values(cell, BATCH, time)
        reset = resets(BATCH, time) if with_resets else None
        noise = None if kind is None else noises(cell, state, time)[kind]
        cell.compute = Compute(backend="reference")
        expected = outcome(cell, x, state, reset, noise)
        for name in names:
            if name == "reference":
                continue
            cell.compute = Compute(backend=name)
            try:
                found = outcome(cell, x, state, reset, noise)
            except UsageError as refusal:
                if name == "generic" or not with_resets:
                    raise AssertionError(f"{name} refuses {label}: {refusal}") from refusal
                continue
            for part, value in expected.items():
                assert_close(found[part], value, f"{name}, {label}: {part}")


def check_table_input(make_cell: MakeCell) -> None:
    """An input given as rows of a table is that input: outputs, states and all gradients, by every backend.

    Cells without a step take tensors alone.
    """
    cell = build(make_cell)
    if not isinstance(cell, StepCell):
        return
    table, ids = wave(3, cell.in_width), torch.tensor([[0, 2, 2, 0, 1], [1, 1, 0, 2, 0], [0, 0, 0, 0, 0]])
    state = values(cell, 3, 5)[1]
    kinds = noises(cell, state, ids.shape[1])
    for label, reset, noise in (("plain", None, None), ("resets, noise", resets(*ids.shape), kinds["all"])):
        cell.compute = Compute(backend="reference")
        expected = outcome(cell, table[ids], state, reset, noise)
        by_row = expected["gradient of input"].flatten(0, 1)
        expected["gradient of input"] = torch.zeros_like(table).index_add_(0, ids.flatten(), by_row)
        for name in cell.backends():
            cell.compute = Compute(backend=name)
            try:
                found = outcome(cell, TableInput(table, ids), state, reset, noise)
            except UsageError:
                continue  # what a backend may refuse, and in which words, is for check_backends
            for part, value in expected.items():
                assert_close(found[part], value, f"{name}, {label}: {part}")


def check_gradients(make_cell: MakeCell) -> None:
    """The reference's gradients are those of its outputs (finite differences, float64)."""
    cell = build(make_cell, backend="reference", sizes=(2, 3))
    x, state = values(cell, 2, 3)
    names, parameters = zip(*cell.named_parameters(), strict=True)
    start = leaves(state)

    def run(x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(names, rest[len(start) :], strict=True))
        parts = iter(rest[: len(start)])
        given = unflatten({key: next(parts) for key in state._fields}, state)
        y, final = functional_call(cell, named, (x, given, resets(2, 3)))
        return y, *leaves(final)

    inputs = [x, *start, *parameters]
    inputs = [part.detach().requires_grad_(part.is_floating_point()) for part in inputs]
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True, raise_exception=False), "gradcheck of the reference"


def check_noise(make_cell: MakeCell) -> None:
    """Masks of ones change nothing, masks of zeros do what they say, and what the cell does not take is refused."""
    cell = build(make_cell)
    time = 4
    x, state = values(cell, BATCH, time)
    plain, last = cell(x, state)
    fields = cell.zoneout_fields
    assert set(fields) <= set(state._fields), "zoneout_fields names fields of the state"
    never = {name: torch.zeros_like(getattr(state, name)).unsqueeze(1) for name in fields}
    y, final = cell(x, state, noise=Noise(zoneout=never))
    for part, other in zip([y, *final], [plain, *last], strict=True):
        assert_close(part, other, "zoneout of zeros")
    y, final = cell(x, state, noise=Noise(zoneout={name: mask + 1 for name, mask in never.items()}))
    for name in fields:
        assert_close(getattr(final, name), getattr(state, name), f"zoneout of ones keeps {name}")
    _check_inside(cell, x, state, (plain, last))
    if not cell.masks_state:
        refused = [Noise(state_in=x.new_ones(BATCH, 1, 1)), Noise(state_out=x.new_ones(BATCH, 1, 1))]
        refused += [
            Noise(zoneout={name: x.new_zeros(BATCH, 1, 1)}) for name in (*state._fields, "none") if name not in fields
        ]
        for noise in refused:
            try:
                cell(x, state, noise=noise)
            except UsageError:
                continue
            raise AssertionError(f"{noise} is neither taken nor refused")
        return
    assert "h" in state._fields, "a cell that takes masks on its state has an h"

    ones, zeros = torch.ones_like(state.h).unsqueeze(1), torch.zeros_like(state.h).unsqueeze(1)
    y, final = cell(x, state, noise=Noise(ones, ones, never))
    for part, other in zip([y, *final], [plain, *last], strict=True):
        assert_close(part, other, "noise that masks nothing")

    carried, outputs = state, []
    for t in range(time):
        step, carried = cell(x[:, t : t + 1], carried._replace(h=torch.zeros_like(carried.h)))
        outputs.append(step)
    y, final = cell(x, state, noise=Noise(state_in=zeros))
    for part, other in zip([y, *final], [torch.cat(outputs, 1), *carried], strict=True):
        assert_close(part, other, "state_in of zeros against h set to zero")
    assert relative_error(y, plain) > 1e-6, "state_in of zeros changes nothing"

    # where the output is h, the masks act on the output too
    output_is_h = torch.equal(plain[:, -1], last.h)
    y, final = cell(x, state, noise=Noise(state_out=zeros))
    assert not final.h.any(), "state_out of zeros leaves something of h"
    assert not (output_is_h and y.any()), "state_out of zeros leaves something of the output"

    always = {name: mask + 1 for name, mask in never.items()}
    y, final = cell(x, state, noise=Noise(zoneout=always))
    if output_is_h:
        assert_close(y, state.h.unsqueeze(1).expand_as(y), "zoneout of ones keeps the output")


def _check_inside(cell: Any, x: Tensor, state: Any, plain: tuple[Tensor, Any]) -> None:
    """Masks of sites inside the cell: of ones they change nothing, each of zeros acts, another site is refused."""
    ones = {site: x.new_ones(BATCH, 1, width) for site, width in cell.inner_sites.items()}
    y, final = cell(x, state, noise=Noise(inner=ones))
    for part, other in zip([y, *final], [plain[0], *plain[1]], strict=True):
        assert_close(part, other, "masks of ones inside")
    for site, mask in ones.items():
        y, _ = cell(x, state, noise=Noise(inner={**ones, site: torch.zeros_like(mask)}))
        assert relative_error(y, plain[0]) > 1e-6, f"a mask of zeros at the site {site} changes nothing"
    try:
        cell(x, state, noise=Noise(inner={**ones, "no_site": x.new_ones(BATCH, 1, 1)}))
    except UsageError:
        return
    raise AssertionError("a mask of a site that there is not is taken")


def check_weight_drop(make_cell: MakeCell) -> None:
    """Masks on the recurrent weights, put in by substitution, act, and gradients reach the raw weights."""
    cell = build(make_cell)
    x, state = values(cell, BATCH, 3)
    named = dict(cell.named_parameters())
    assert set(cell.recurrent_weights) <= set(named), "recurrent_weights names parameters"
    with torch.no_grad():
        plain = cell(x, state)[0]
    for name in cell.recurrent_weights:
        raw = named[name]
        mask = (torch.arange(raw.numel()) % 2).view_as(raw).to(raw.dtype) * 2
        found = {}
        for backend in cell.backends():
            cell.compute = Compute(backend=backend)
            y, _ = functional_call(cell, {name: raw * mask}, (x, state))
            assert relative_error(y, plain) > 1e-6, f"{backend}: masking {name} changes nothing"
            (found[backend],) = torch.autograd.grad(y.square().sum(), raw)
            assert found[backend].count_nonzero() > 0, f"{backend}: no gradient reaches {name}"
            assert not (found[backend] * (mask == 0)).any(), f"{backend}: gradient where {name} is masked"
            assert_close(found[backend], found[cell.backends()[0]], f"{backend}: gradient of the masked {name}")
    cell.compute = Compute()
    assert_close(cell(x, state)[0].detach(), plain, "after weight drop")


def check_bf16(make_cell: MakeCell) -> None:
    """bf16 products give nearly the float32 numbers, with float32 outputs and states, and do differ."""
    x, state = values(build(make_cell, torch.float32), BATCH, 5, torch.float32)
    expected = outcome(build(make_cell, torch.float32), x, state)
    for backend in build(make_cell).backends():
        cell = build(make_cell, torch.float32, backend, "bf16")
        try:
            found = outcome(cell, x, state)
        except UsageError:
            assert backend not in ("generic", "reference"), f"{backend} refuses bf16"
            continue
        for name in ("output", *(name for name in expected if name.startswith("final state"))):
            assert_close(found[name], expected[name], f"{backend} bf16: {name}", torch.bfloat16)
        # as one vector: single small gradients (that of the initial state, say) may be differences of large numbers
        grads, wanted = (
            torch.cat([value.flatten() for name, value in part.items() if name.startswith("gradient")])
            for part in (found, expected)
        )
        assert_close(grads, wanted, f"{backend} bf16: gradients", torch.bfloat16)
        assert not torch.equal(found["output"], expected["output"]), f"{backend}: bf16 computes in float32"
