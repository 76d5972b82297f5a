"""A backend is compared with the reference before it is timed."""

from collections.abc import Mapping

import torch
from torch import Tensor

from unrolled.bench.decode import cannot_decode
from unrolled.bench.material import Case, Material
from unrolled.bench.plan import PLAIN, REFERENCE, Row, Sizes
from unrolled.bench.subjects import case_of
from unrolled.core.errors import UsageError

__all__ = ["LIMITS", "SMALL", "cannot", "fault", "outcome", "relative_error"]

LIMITS = {"float64": 1e-10, "float32": 1e-3, "bf16": 1e-1, "int8": 1e-1}
"""Largest relative errors: of whole tensors in float64, with bf16 products, and with weights in fewer bits; of single
numbers in float32."""

SMALL = Sizes(width=24, batch=3, window=7)
"""The sizes of the exact comparison."""

# Steps of the comparison at a row's own width, at most: more take no other path, and with bf16 products what has been
# rounded is carried on from step to step.
_STEPS = {"float32": 20, "bf16": SMALL.window}
# Below this root mean square a tensor counts as zero, and its error as absolute.
_FLOOR = 1e-6
_GRADIENT = "gradient of "


def cannot(row: Row) -> str | None:
    """Why a row is no measurement at all, beside what its backend says."""
    if row.mode == "decode":
        return cannot_decode(row)
    if row.precision == "int8":
        return "only decoding has weights of 8 bits; use --pass decode."
    if (operation := row.operation()) is not None:
        if row.mode == "step":
            return "operations are measured over whole windows; use --pass forward or both."
        if row.precision not in operation.precisions:
            return f"{row.subject} has no matrix products; use --precision float32."
    return None


def outcome(case: Case, material: Material) -> dict[str, Tensor]:
    """All that a subject computes, by name: outputs and final state in every way of calling it, and all gradients."""
    outputs = case.forward()
    names = list(case.wanted)
    seeds = [material.normal(f"seed {i}", *part.shape) for i, part in enumerate(outputs)]
    ends = [(part, seed) for part, seed in zip(outputs, seeds, strict=True) if part.requires_grad]
    wanted = [case.wanted[name] for name in names]
    grads = torch.autograd.grad([part for part, _ in ends], wanted, [seed for _, seed in ends], allow_unused=True)
    found = _named("", [part.detach() for part in outputs])
    with torch.no_grad():
        found |= _named(" without gradients", case.forward())
        if case.stepwise is not None:
            pieces, final = case.stepwise()
            found |= _named(" step by step", [torch.cat(pieces, 1), *final])
    for name, grad in zip(names, grads, strict=True):
        found[_GRADIENT + name] = torch.zeros_like(case.wanted[name]) if grad is None else grad
    return found


def _named(how: str, outputs: "list[Tensor] | tuple[Tensor, ...]") -> dict[str, Tensor]:
    return {("output" if i == 0 else f"final state {i}") + how: part for i, part in enumerate(outputs)}


def relative_error(actual: Tensor, expected: Tensor, largest: bool = False) -> float:
    """|actual - expected| / |expected| over all numbers: in the 2-norm, or by the largest of each; NaN stays NaN."""
    a, b = actual.detach().double(), expected.detach().double()
    if largest:
        return float((a - b).abs().max() / b.abs().max().clamp_min(_FLOOR))
    return float((a - b).norm() / b.norm().clamp_min(_FLOOR * b.numel() ** 0.5))


def _differs(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], limit: float, largest: bool) -> str | None:
    """The first thing by name that is not what it should be."""
    for name, value in expected.items():
        if found[name].shape != value.shape:
            return f"{name} has shape {tuple(found[name].shape)}, not {tuple(value.shape)}"
        error = relative_error(found[name], value, largest)
        if not error <= limit:  # NaN too
            return f"{name} differs from the reference's by {error:.1e}, more than {limit:.0e}"
    return None


def _as_one(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gradients as one vector: single small ones may be differences of large numbers."""
    rest = {name: value for name, value in found.items() if not name.startswith(_GRADIENT)}
    grads = [value.flatten() for name, value in found.items() if name.startswith(_GRADIENT)]
    return {**rest, "the vector of all gradients": torch.cat(grads)}


def fault(row: Row, own: Sizes) -> str | None:
    """Why a backend is not to be timed; None where it computes what the reference computes.

    Args:
        row: its subject, backend and precision count, not its sizes and pass.
        own: the smallest sizes at which it is going to be timed.
    Raises:
        UsageError: the backend cannot serve this cell or precision.
    """
    if row.mode == "decode":
        return _decodes_otherwise(row, own._replace(window=min(own.window, _STEPS["float32"])))
    low = row.precision == "bf16"
    first = Material(torch.float32 if low else torch.float64)
    small = _fitting(row, own, first)
    second = Sizes(own.width, own.batch, min(own.window, _STEPS[row.precision]))
    for sizes, material in ((small, first), (second, Material(torch.float32))):
        expected = outcome(case_of(row._replace(backend=REFERENCE, precision="float32"), sizes, material), material)
        try:
            found = outcome(case_of(row, sizes, material), material)
        except (UsageError, MemoryError):
            raise
        except Exception as error:  # whatever a kernel raises, it does not compute the cell
            return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        if low:
            reason = _differs(_as_one(found), _as_one(expected), LIMITS["bf16"], largest=False)
        elif material.dtype == torch.float64:
            reason = _differs(found, expected, LIMITS["float64"], largest=False)
        else:
            reason = _differs(found, expected, LIMITS["float32"], largest=True)
        if reason is not None:
            return f"{reason} ({material.dtype}, width {sizes.width})".replace("torch.", "")
    return None


def _decodes_otherwise(row: Row, sizes: Sizes) -> str | None:
    """Why what is decoded is not what the model itself predicts, up to the rounding of its weights."""
    material = Material(torch.float32)
    plain, own = row._replace(backend=PLAIN, precision="float32"), case_of(row, sizes, material)
    with torch.no_grad():
        (expected,), (found,) = case_of(plain, sizes, material).forward(), own.forward()
    return _differs(
        {"log-probability": found}, {"log-probability": expected}, LIMITS[row.precision],
        largest=row.precision == "float32",
    )  # fmt: skip


def _fitting(row: Row, own: Sizes, material: Material) -> Sizes:
    """The small sizes, or with the row's own width where the cell's options do not go with the small one."""
    try:
        case_of(row._replace(backend=REFERENCE), SMALL, material)
    except UsageError:
        return SMALL._replace(width=own.width)
    return SMALL
