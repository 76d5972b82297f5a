"""The only place that chooses a backend.

A call names an operation and a wish: ``auto``, ``reference`` or a backend. ``auto`` takes the first backend
that can serve; a named backend that cannot serve raises and says why. Each choice is logged once and kept
(:func:`choices`), so that a run record can say what computed it.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from pydantic import Field

from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.core.registry import unknown_name

__all__ = ["Backend", "Compute", "choices", "choose", "forget_choices"]

log = logging.getLogger("unrolled.kernels")


class Compute(Config):
    """How the operations are computed."""

    backend: str = Field(
        default="auto",
        description="auto, or one backend: native, torch, fused, generic or reference for cells with a step; native, "
        "inplace or reference for the QRNN's scan (`unrolled cells` says which a cell has)",
    )
    precision: Literal["float32", "bf16"] = Field(
        default="float32",
        description="float32, or bf16: matrix products in bf16 with states, reductions, losses and optimiser "
        "in float32 (pays on CPUs with AMX or AVX512-BF16 and on GPUs)",
    )


class Backend(NamedTuple):
    """One implementation of an operation.

    ``refuse`` takes the call's arguments and gives the reason why this backend cannot serve it, or None. ``pays`` says
    whether ``auto`` is to take it for a call that it can serve.
    """

    name: str
    refuse: Callable[..., str | None]
    run: Callable[..., Any]
    pays: Callable[..., bool] = lambda *_: True


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
    if wish == "auto":
        backend = next(b for b in backends.values() if b.pays(*args) and b.refuse(*args) is None)
    elif wish not in backends:
        raise unknown_name(f"{operation} backend", wish, [*backends, "auto"])
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
