"""Weights of the published systems, in the layouts of their authors' code."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from unrolled.core.errors import UsageError
from unrolled.core.registry import unknown_name
from unrolled.model.layouts import LAYOUTS, Row
from unrolled.model.lm import LanguageModel

__all__ = ["LAYOUTS", "load_published"]

# What may be done about a name that is missing, or is there without a place.
_REMEDIES = {
    "decoder.bias": "where the system has none, set model.head.bias=false",
    "decoder.weight": "where the system ties it to the embedding, set model.embedding.tied=true",
    "tail_vectors": "the official script keeps it in its criterion, whose state_dict() belongs beside the model's",
    "tail_bias": "the official script keeps it in its criterion, whose state_dict() belongs beside the model's",
}
_PLACES = {
    "tail_vectors": "set model.head.name=split, and its cuts",
    "tail_bias": "set model.head.name=split, and its cuts",
    "prior.weight": "weights of a mixture have layout mos",
}


class _Part(NamedTuple):
    """A tensor with its name as the file spells it."""

    name: str
    value: Tensor

    def __str__(self) -> str:
        return f"{self.name} {tuple(self.value.shape)}"


@torch.no_grad()
def load_published(
    model: LanguageModel, tensors: Mapping[Any, Tensor | np.ndarray] | nn.Module | Sequence[Any], layout: str
) -> None:
    """Copy published weights into a model of the same sizes.

    Args:
        tensors: name -> tensor or numpy array in the published layout, a tied matrix once or twice; or the module of
            the authors' code itself; or what their script saves, a list of model, criterion and optimizer; or arrays
            in the order of their numbers.
        layout: a key of :data:`LAYOUTS`. Prefixes and wrappers in the names (``module.``, ``0.``) do not matter. Of a
            matrix under weight drop the ``_raw`` form is taken where both are there, as after an evaluation.
    Raises:
        UsageError: unknown layout; a tensor is missing, of another shape, not finite, or belongs to no parameter. The
            model is then as it was.
    """
    if layout not in LAYOUTS:
        raise unknown_name("layout", layout, LAYOUTS)
    own, rows = dict(model.named_parameters()), list(LAYOUTS[layout].rows(model))
    parts = _by_plain_name(_named(tensors), layout)
    known = {name for row in rows for names in row.sources for name in names}
    if not known & set(parts):
        first = next((part.name for part in parts.values()), "there is none")
        raise UsageError(
            f"no tensor of the weights has a name of layout {layout}, such as {LAYOUTS[layout].example} (the first is "
            f"{first}); give the state dict itself, and the layout that it is in."
        )
    _check_layers(model, parts)
    found = {row.name: _parts_of(row, parts, known, layout) for row in rows}
    tied = [parts[name].value for name in ("encoder.weight", "decoder.weight") if name in parts]
    if model.config.embedding.tied and len(tied) == 2 and not torch.equal(*tied):
        raise UsageError("the weights are of an untied model and this one is tied; set model.embedding.tied=false.")
    for name in found:
        if name not in own:
            raise UsageError(f"layout {layout} has a part for {name}, which this model lacks; check its config.")
    for name in own:
        if name not in found:
            raise UsageError(f"layout {layout} has nothing for {name} of this model; check its config.")
    for name, part in parts.items():
        if name not in known:
            remedy = _PLACES.get(name, "check the model's config")
            raise UsageError(f"the weights have {part.name}, which layout {layout} does not know; {remedy}.")
    made = _made(rows, found, own)
    for name, value in own.items():
        value.copy_(made[name])


def _named(given: Any) -> Iterator[tuple[str, Any]]:
    """Names and values of whatever was given."""
    if isinstance(given, nn.Module):
        yield from given.state_dict().items()
    elif isinstance(given, Mapping):
        yield from ((str(name), value) for name, value in given.items())
    elif isinstance(given, Sequence):
        modules = [part for part in given if isinstance(part, nn.Module)]
        for part in modules:
            yield from part.state_dict().items()
        if not modules:
            yield from ((str(number), value) for number, value in enumerate(given))
    else:
        raise UsageError(f"weights are names with tensors or arrays, not a {type(given).__name__}; give a state dict.")


def _tensor(name: str, value: Any) -> Tensor:
    if isinstance(value, Tensor) and not value.is_complex():
        tensor = value.detach()
    else:
        try:
            array = np.asarray(value)
            if isinstance(value, Tensor) or array.dtype.kind not in "fiu":
                raise TypeError
            # a copy: torch shares memory, warns of arrays that are not to be written, and refuses another byte order
            tensor = torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))
        except (TypeError, ValueError) as error:
            kind = type(value).__name__
            raise UsageError(
                f"{name} of the weights is no array of real numbers but a {kind}; give the state dict itself."
            ) from error
    if not tensor.isfinite().all():
        raise UsageError(
            f"{name} of the weights holds numbers that are not finite; the file is damaged or its training diverged."
        )
    return tensor


def _by_plain_name(named: Iterator[tuple[str, Any]], layout: str) -> dict[str, _Part]:
    """The tensors under the names without wrappers."""
    parts: dict[str, _Part] = {}
    for name, value in named:
        part, plain = _Part(name, _tensor(name, value)), LAYOUTS[layout].plain(name)
        other = parts.setdefault(plain, part)
        if other is not part and not torch.equal(other.value, part.value):
            raise UsageError(
                f"the weights have {other.name} and {name}, which in layout {layout} are one parameter and differ; "
                "leave one of them out."
            )
    return parts


def _check_layers(model: LanguageModel, parts: Mapping[str, _Part]) -> None:
    """Where there are whole layers too few or too many, that is said and not the name of a first tensor."""
    there: dict[int, set[str]] = {}
    for name in parts:
        if found := re.match(r"rnns\.(\d+)\.(.*)", name):
            there.setdefault(int(found[1]), set()).add(found[2])
    alike = all(names == next(iter(there.values())) for names in there.values())
    count, layers = len(there), len(model.stack.cells())
    if count and alike and set(there) == set(range(count)) and count != layers:
        raise UsageError(
            f"the weights have {count} recurrent layer{'s' * (count > 1)} and this model has {layers}; set "
            f"model.layers={count}."
        )


def _parts_of(row: Row, parts: Mapping[str, _Part], known: set[str], layout: str) -> list[_Part]:
    """The tensors that make up a parameter."""
    found = []
    for names in row.sources:
        part = next((parts[name] for name in names if name in parts), None)
        if part is None:
            odd = difflib.get_close_matches(names[-1], [name for name in parts if name not in known], 1)
            instead = f" and have {parts[odd[0]].name}, which is no name of layout {layout}" if odd else ""
            remedy = _REMEDIES.get(names[0], f"get the whole file, or the layout that it is in, if not {layout}")
            raise UsageError(f"the weights lack {_spelled(names[-1], parts)}{instead}; {remedy}.")
        found.append(part)
    return found


def _spelled(plain: str, parts: Mapping[str, _Part]) -> str:
    """A missing name as the file would spell it: like the same parameter of another layer, or its neighbours."""
    pieces = plain.split(".")
    for other, part in sorted(parts.items(), key=lambda item: item[0].split(".")[-1] != pieces[-1]):
        differing = [(a, b) for a, b in zip(other.split("."), pieces, strict=False) if a != b]
        if len(other.split(".")) == len(pieces) and len(differing) == 1:
            theirs, ours = differing[0]
            head, _, tail = f".{part.name}.".rpartition(f".{theirs}.")
            return f"{head}.{ours}.{tail}".strip(".")
    return plain


def _made(rows: list[Row], found: Mapping[str, list[_Part]], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parameters, of the right shapes and finite."""
    made: dict[str, Tensor] = {}
    odd: list[str] = []
    for row in rows:
        wanted, parts = own[row.name], found[row.name]
        try:
            value = row.make(*(part.value for part in parts))
        except (RuntimeError, ValueError, IndexError):  # they do not even go together
            value = None
        if value is None or value.shape != wanted.shape:
            odd.append(f"{' and '.join(map(str, parts))}, for {row.name} {tuple(wanted.shape)},")
            continue
        made[row.name] = value.to(wanted.dtype)
        if not made[row.name].isfinite().all():
            names, kind = " and ".join(part.name for part in parts), str(wanted.dtype).removeprefix("torch.")
            raise UsageError(f"{names} of the weights holds numbers too large for {kind}; load it into a wider type.")
    if len(odd) == 1 and len(rows) > 1:
        raise UsageError(f"of all weights only {odd[0]} does not fit; get the file again, or check the model's config.")
    if odd:
        raise UsageError(
            f"the weights have other shapes: {odd[0].rstrip(',')}; set the sizes of the model to those of the weights."
        )
    return made
