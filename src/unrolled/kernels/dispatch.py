"""The only place that chooses a backend.

A call names an operation and a wish: ``auto``, ``reference`` or a backend. ``auto`` takes the first backend
that can serve; a named backend that cannot serve raises and says why. Each choice is logged once and kept
(:func:`choices`), so that a run record can say what computed it.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, field_validator
from torch import Tensor

from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.core.registry import shown, unknown_name
from unrolled.kernels import OPERATIONS

__all__ = [
    "Backend",
    "Compute",
    "Operation",
    "Sizes",
    "choices",
    "choose",
    "forget_choices",
    "measurable",
    "operation_named",
]

log = logging.getLogger("unrolled.kernels")

_AUTO, _REFERENCE = "auto", "reference"


class Compute(Config):
    """How the operations are computed."""

    backend: str | dict[str, str] = Field(
        default=_AUTO,
        description="auto, or a backend of the cells' operation: native, torch, fused, generic, newton or reference "
        "for cells with a step; native, fla, chunk, quadratic, closed, doubling, inplace, levels, dense, dual or "
        "reference for others (`unrolled cells` says which a cell has); "
        "reference is meant for all operations. A table, or operation=name with commas between, says it of each: "
        "{softmax_loss = native, linear = window}",
    )
    precision: Literal["float32", "bf16"] = Field(
        default="float32",
        description="float32, or bf16: matrix products in bf16 with states, reductions, losses and optimiser "
        "in float32 (pays on CPUs with AMX or AVX512-BF16 and on GPUs)",
    )

    @field_validator("backend", mode="before")
    @classmethod
    def _table(cls, value: Any) -> Any:
        """``a=b,c=d``, as a command line has it."""
        if not isinstance(value, str) or "=" not in value:
            return value
        table: dict[str, str] = {}
        for name, _, backend in (part.partition("=") for part in value.split(",")):
            if name.strip() in table:
                raise UsageError(f"the backend of {shown(name.strip())} is given twice; give it once.")
            table[name.strip()] = backend.strip()
        return table

    @field_validator("backend", mode="after")
    @classmethod
    def _known(cls, value: str | dict[str, str]) -> str | dict[str, str]:
        """Raises UsageError for a backend that no operation has, or not the one that it is asked of."""
        if isinstance(value, str):
            known = {name for operation in OPERATIONS for name in OPERATIONS[operation].backends} | {_AUTO}
            if value not in known:
                raise unknown_name("backend", value, known)
            return value
        for operation, name in value.items():
            known = [*OPERATIONS[operation].backends, _AUTO]
            if name not in known:
                raise unknown_name(f"{operation} backend", name, known)
        return value

    def wish(self, operation: str) -> str:
        """The backend that is asked of an operation. One named alone is meant for the operations that cells compute
        through, or for all that have it where none of those has; ``reference`` is meant for all."""
        if not isinstance(self.backend, str):
            return self.backend.get(operation, _AUTO)
        row = OPERATIONS[operation]
        if self.backend == _REFERENCE or row.of_cells:
            return self.backend
        of_cells = any(self.backend in OPERATIONS[name].backends for name in OPERATIONS if OPERATIONS[name].of_cells)
        return self.backend if self.backend in row.backends and not of_cells else _AUTO


class Backend(NamedTuple):
    """One implementation of an operation.

    ``refuse`` takes the call's arguments and gives the reason why this backend cannot serve it, or None. ``pays`` says
    whether ``auto`` is to take it for a call that it can serve. ``by_name``: it serves by name alone; ``auto``, and a
    bench of all, pass it by.
    """

    name: str
    refuse: Callable[..., str | None]
    run: Callable[..., Any]
    pays: Callable[..., bool] = lambda *_: True
    by_name: bool = False


class Sizes(NamedTuple):
    """width of input and output; batch: sequences side by side; window: steps."""

    width: int
    batch: int
    window: int


class Operation(NamedTuple):
    """A row of OPERATIONS: all that dispatch, bench, docs and tests know of an operation.

    name, summary: what it computes, in one line. backends: by name, fastest first, the reference last.
    of_cells: whether cells compute through it, so that a backend named alone is asked of it.
    bound: what bounds its speed: the arithmetic of ``products``, or the ``bytes`` that it must move.
    amount: (sizes, whether backward too) -> floating-point operations, or bytes of float32 numbers, of one call.
    inputs: (sizes, draw) -> tensors by name, all that a call needs; ``draw(name, *shape)`` gives normal numbers.
    call: (inputs, backend, precision) -> outputs, the first of them the output proper.
    published: (inputs) -> outputs, the form in which it is usually written; None where that is the reference.
    peer: name and (inputs) -> outputs of something of torch's beside which it is measured, another function of as much.
    forms: name -> what stands for ``inputs`` in one of its other forms; such a one is called ``operation:form``.
    form_amounts: name -> what stands for ``amount`` in a form whose calls take another.
    request: (inputs) -> the arguments of ``refuse``; None where they are the inputs in their order.
    cell: the cell by which it is measured, for an operation whose input is a cell; it has no inputs or call of its own.
    precisions: those in which it has products; float32 alone where it has none.
    """

    name: str
    summary: str
    backends: Mapping[str, Backend]
    bound: Literal["products", "bytes"]
    of_cells: bool = False
    amount: Callable[[Sizes, bool], int] | None = None
    inputs: Callable[[Sizes, Callable[..., Tensor]], dict[str, Tensor]] | None = None
    call: Callable[[Mapping[str, Tensor], str, str], tuple[Tensor, ...]] | None = None
    published: Callable[[Mapping[str, Tensor]], tuple[Tensor, ...]] | None = None
    peer: tuple[str, Callable[[Mapping[str, Tensor]], tuple[Tensor, ...]]] | None = None
    forms: Mapping[str, Callable[[Sizes, Callable[..., Tensor]], dict[str, Tensor]]] = {}
    form_amounts: Mapping[str, Callable[[Sizes, bool], int]] = {}
    request: Callable[[Mapping[str, Tensor]], tuple[Any, ...]] | None = None
    cell: str | None = None
    precisions: tuple[str, ...] = ("float32",)

    def serving(self) -> list[str]:
        """Names of the backends that can serve a plain call on this machine."""
        assert self.inputs is not None
        inputs = self.inputs(Sizes(2, 1, 2), lambda name, *shape: torch.zeros(*shape))
        given = tuple(inputs.values()) if self.request is None else self.request(inputs)
        return [backend.name for backend in self.backends.values() if backend.refuse(*given) is None]


def operation_named(subject: str) -> Operation:
    """The row of OPERATIONS, or, for ``operation:form``, the row with the inputs of that form.

    Raises:
        UsageError: no such operation or form.
    """
    name, colon, form = subject.partition(":")
    operation: Operation = OPERATIONS[name]
    if not colon:
        return operation
    if form not in operation.forms:
        raise unknown_name(f"form of {name}", form, operation.forms)
    amount = operation.form_amounts.get(form, operation.amount)
    return operation._replace(inputs=operation.forms[form], amount=amount)


def measurable() -> list[str]:
    """The operations and their forms, by the names that :func:`operation_named` takes."""
    return [full for name in OPERATIONS for full in (name, *(f"{name}:{form}" for form in OPERATIONS[name].forms))]


_choices: dict[str, list[str]] = {}


def choices() -> dict[str, str]:
    """Operation and subject -> the backends that ran, of every choice made in this process.

    There are several where ``auto`` had to fall back for some windows (a reset inside).
    """
    return {key: ", ".join(names) for key, names in sorted(_choices.items())}


def forget_choices() -> None:
    """Start a new record of choices (at the start of a run)."""
    _choices.clear()


def choose(operation: str, backends: Mapping[str, Backend], wish: str, subject: str, *args: Any) -> Backend:
    """The backend that serves this call.

    Args:
        operation: name of the operation.
        backends: by name, fastest first, the reference last.
        wish: ``auto`` or the name of a backend.
        subject: what the call is about (a cell's name and shape), for the record.
        args: the arguments that ``refuse`` looks at.
    Raises:
        UsageError: unknown backend, or a named one that cannot serve this call.
    """
    if wish == _AUTO:
        backend = next(b for b in backends.values() if not b.by_name and b.pays(*args) and b.refuse(*args) is None)
    elif wish not in backends:
        raise unknown_name(f"{operation} backend", wish, [*backends, _AUTO])
    else:
        backend = backends[wish]
        reason = backend.refuse(*args)
        if reason is not None:
            raise UsageError(f"backend {wish!r} cannot run {subject}: {reason}; use backend 'auto' or 'reference'.")
    key = f"{operation} {subject}"
    names = _choices.setdefault(key, [])
    if backend.name not in names:
        names.append(backend.name)
        log.info("%s: %s (asked for: %s)", key, backend.name, wish)
    return backend
