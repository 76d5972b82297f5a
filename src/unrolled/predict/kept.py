"""The state after a text as a value that is kept: named tensors and what the next part of the text needs, in bytes.

The bytes are a safetensors file that any program can read. They are read here by a reader of our own, since they may
come from strangers: nothing is allocated that the checks before have not allowed.
"""

import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.core.registry import shown
from unrolled.core.tree import flatten, map_tree, unflatten
from unrolled.predict.base import Predictor

__all__ = ["KeptState", "OtherModelError", "StateForm"]

KIND, VERSION = "unrolled state", "1"
MOST_HEADER = 64 << 10
_LARGEST = 1e6
_MOST_HELD, _MOST_PENDING, _MOST_COUNT = 64, 3, 2**53
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_FIELDS = {"kind", "version", "model", "tokens", "last", "drawn", "pending", "held", "issued", "key"}


class OtherModelError(UsageError):
    """The state is that of another model."""


class KeptState(NamedTuple):
    """The state of one text.

    model: the id of the model that read it. tree: of tensors with one row, in the predictors' shared form. tokens: read
    so far. last: the last of them; None at a text's beginning. drawn: how many of the last ones were drawn, by which a
    seed goes on. pending: bytes of a character that is not whole yet. held: the text's end that is not shown
    yet, since it may begin a stop string. issued: when it was made, seconds since 1970.
    """

    model: str
    tree: Any
    tokens: int = 0
    last: int | None = None
    drawn: int = 0
    pending: bytes = b""
    held: str = ""
    issued: float = 0.0

    def size(self) -> int:
        """Bytes that its tensors take."""
        return sum(value.numel() * value.element_size() for value in flatten(self.tree).values())


class StateForm:
    """What the states of a model are made of.

    Args:
        model: its id, a name with ``@`` and a checksum; the checksum must be that of a state.
        predictor: any of those that share the form.
    """

    def __init__(self, model: str, predictor: Predictor):
        self.model = model
        self.vocab_size = predictor.vocab_size
        begun = predictor.shared_form(predictor.begin(1))
        # a single row's memory, not that of the batch that it was made in
        self.begun = map_tree(lambda value: value.detach().cpu().clone(), begun)
        self._like = flatten(self.begun)

    def size(self) -> int:
        """Bytes of the tensors of one state."""
        return KeptState(self.model, self.begun).size()

    def begin(self) -> KeptState:
        """Of a text that has no token yet."""
        return KeptState(self.model, self.begun, issued=time.time())

    def pack(self, kept: KeptState, key: str = "") -> bytes:
        """A safetensors file. key: a sign of the key that it is going to be signed with."""
        from safetensors.torch import save

        told = {
            "kind": KIND, "version": VERSION, "model": kept.model, "tokens": str(kept.tokens),
            "last": "" if kept.last is None else str(kept.last), "drawn": str(kept.drawn),
            "pending": kept.pending.hex(), "held": kept.held, "issued": f"{kept.issued:.3f}", "key": key,
        }  # fmt: skip
        return save({name: value.contiguous() for name, value in flatten(kept.tree).items()}, told)

    def unpack(self, data: bytes) -> KeptState:
        """The state in the bytes of a file.

        Raises:
            UsageError: they are no state of this form. OtherModelError: they are one of another model.
        """
        try:
            header, begins = _header(data)
        except (ValueError, RecursionError) as error:
            raise UsageError("the state cannot be read: it is damaged, or of another kind.") from error
        told = header.pop("__metadata__", None)
        self._check_told(told)
        assert isinstance(told, dict)
        if _checksum(told["model"]) != _checksum(self.model):
            raise OtherModelError(
                f"the state is that of the model {shown(told['model'])}, and this is {self.model}; send the text again."
            )
        tensors = self._tensors(header, data, begins)
        tokens = int(told["tokens"])
        self._check_values(tensors, tokens)
        return KeptState(
            self.model, unflatten(tensors, self.begun), tokens, int(told["last"]) if told["last"] else None,
            int(told["drawn"]), bytes.fromhex(told["pending"]), told["held"], float(told["issued"]),
        )  # fmt: skip

    def _check_told(self, told: Any) -> None:
        """Raises UsageError unless the metadata are those of a state."""
        sound = isinstance(told, dict) and set(told) == _FIELDS and all(isinstance(v, str) for v in told.values())
        if not sound or told["kind"] != KIND:
            raise UsageError("the file holds no state of a text.")
        if told["version"] != VERSION:
            raise UsageError(f"the state has format {shown(told['version'])}, and this release reads {VERSION}.")
        forms = {
            "tokens": r"\d{1,16}",
            "last": r"\d{0,16}",
            "drawn": r"\d{1,16}",
            "pending": r"(?:[0-9a-f]{2})*",
            "issued": r"\d{1,12}\.\d{3}",
        }
        sound = all(re.fullmatch(form, told[name], re.ASCII) for name, form in forms.items())
        sound = sound and len(told["pending"]) <= 2 * _MOST_PENDING and len(told["held"]) <= _MOST_HELD
        sound = sound and int(told["last"] or 0) < self.vocab_size
        sound = sound and int(told["drawn"]) <= int(told["tokens"]) <= _MOST_COUNT
        if not sound:
            raise UsageError("what the state says of its text cannot be: it is damaged.")

    def _tensors(self, header: Mapping[str, Any], data: bytes, begins: int) -> dict[str, Tensor]:
        """Raises UsageError unless names, types and shapes are those of this form, and the data as many bytes."""
        if set(header) != set(self._like):
            raise UsageError("the state has other parts than those of this model.")
        if len(data) - begins != self.size():
            raise UsageError("the state is shorter or longer than those of this model: it is damaged.")
        made, end = {}, 0
        for name, entry in sorted(header.items(), key=lambda pair: _offsets(pair[1])):
            like, (low, high) = self._like[name], _offsets(entry)
            if entry.get("dtype") != _NAMES[like.dtype] or entry.get("shape") != list(like.shape):
                raise UsageError(f"the state's {name} has another shape or type than that of this model.")
            if low != end or high - low != like.numel() * like.element_size():
                raise UsageError("the state's parts do not lie as they should: it is damaged.")
            end = high
            part = bytearray(data[begins + low : begins + high])
            made[name] = (torch.frombuffer(part, dtype=like.dtype) if part else torch.zeros(0, dtype=like.dtype)).view(
                like.shape
            )
        return made

    def _check_values(self, tensors: Mapping[str, Tensor], tokens: int) -> None:
        """Raises UsageError for numbers that no text gives: they would spoil the batch, or lie outside of a table."""
        most = max(self.vocab_size, tokens + 1)
        for name, value in tensors.items():
            like = self._like[name]
            if value.dtype == torch.bool or not value.numel():
                continue
            if value.is_floating_point():
                sound = value.isfinite() | value.isneginf() if bool(like.isneginf().any()) else value.isfinite()
                within = bool(sound.all()) and not bool((value[value.isfinite()].abs() > _LARGEST).any())
            else:
                within = min(0, int(like.min())) <= int(value.min()) and int(value.max()) <= max(most, int(like.max()))
            if not within:
                raise UsageError(f"the state's {name} holds numbers that no text gives: it is damaged.")


def norms(kept: KeptState) -> dict[str, float]:
    """The Euclidean norm of each part of a state, by name."""
    found = {name: float(value.double().norm()) for name, value in flatten(kept.tree).items() if value.numel()}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _checksum(model: str) -> str:
    return model.rpartition("@")[2]


def _offsets(entry: Any) -> tuple[int, int]:
    """Raises UsageError unless the entry of a tensor says where it lies."""
    place = entry.get("data_offsets") if isinstance(entry, dict) and len(entry) == 3 else None
    if (
        isinstance(place, list)
        and len(place) == 2
        and all(type(one) is int and 0 <= one <= _MOST_COUNT for one in place)
    ):
        return place[0], place[1]
    raise UsageError("the state's parts do not lie as they should: it is damaged.")


def _header(data: bytes) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and where the data begin. Raises ValueError for anything else."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= size <= min(MOST_HEADER, len(data) - 8):
        raise ValueError("size")
    value = json.loads(data[8 : 8 + size].decode("utf-8"), object_pairs_hook=_once)
    if not isinstance(value, dict):
        raise ValueError("no object")
    return value, 8 + size


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found
