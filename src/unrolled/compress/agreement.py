"""How the decoder makes sure that it computes what the encoder computed.

Tables are rounded from floating-point numbers, and the last digit of those depends on the number of threads, the
number of lanes, the version of torch and the processor. Lanes and threads are recorded and restored. The rest
is recorded for the error message only; what decides is a probe: the checksum of the tables of a short, fixed text.
A probe can show that two machines differ, never that they agree everywhere, so the ids themselves
are checked too while they are decoded.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from unrolled.compress.frequencies import quantise
from unrolled.core.errors import UsageError
from unrolled.core.record import environment
from unrolled.predict import Predictor

__all__ = ["arithmetic", "brief", "differences", "identity", "probe", "weights_checksum", "with_threads"]

_PROBE_STEPS, _SHOWN = 32, 300


def weights_checksum(model: nn.Module) -> str:
    """sha256 over the names, types, shapes and bytes of a model's parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def identity(predictor: Predictor, given: str | None) -> str:
    """What names the model: the string ``given``, or else the checksum of the weights of ``predictor.model``.

    Raises:
        UsageError: neither is there.
    """
    if given is not None:
        return given
    if isinstance(predictor.model, nn.Module):
        return weights_checksum(predictor.model)
    raise UsageError(
        f"a predictor of kind {predictor.kind!r} has no weights of its own to recognise it by; give its identity."
    )


def arithmetic(predictor: Predictor) -> dict[str, Any]:
    """What the last digit of a probability depends on, beside lanes and threads, as plain JSON values."""
    # Only a neural model chooses among backends: a count model has a config of another kind.
    here, compute = environment(), getattr(getattr(predictor.model, "config", None), "compute", None)
    names = ("unrolled", "torch", "cpu", "cpu_capability")
    return {
        **{name: here[name] for name in names},
        "numpy": np.__version__,
        "device": here["gpu"] if predictor.device.type == "cuda" else predictor.device.type,
        "precision": predictor.precision,
        "backend": compute.backend if compute is not None else None,
        "products": torch.get_float32_matmul_precision(),
    }


def differences(recorded: dict[str, Any], here: dict[str, Any]) -> str:
    """What differs, in words, such as ``torch 2.12.0 there and 2.13.0 here``; empty when nothing does."""
    names = [name for name in here if recorded.get(name) != here[name]]
    return ", ".join(f"{name} {brief(recorded.get(name))} there and {here[name]} here" for name in names)


def brief(value: Any) -> str:
    """A value of a file's header, on one line and no longer than a sentence bears."""
    text = " ".join(str(value).split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def probe(predictor: Predictor, lanes: int, bits: int) -> str:
    """Checksum of the tables of the first steps of a fixed text, different in each lane, in as many lanes.

    A predictor that learns is restored before and after.
    """
    digest = hashlib.sha256()
    predictor.restore()
    state = predictor.begin(lanes)
    for step in range(_PROBE_STEPS):
        digest.update(quantise(predictor.predict(state).log_prob, bits).astype("<i8").tobytes())
        ids = (torch.arange(lanes) * 31 + step * step * 17) % predictor.vocab_size
        state = predictor.observe(state, ids.to(predictor.device))
    predictor.restore()
    return digest.hexdigest()[:32]


@contextlib.contextmanager
def with_threads(count: int) -> Iterator[None]:
    """Compute with ``count`` threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
