"""The carried state as a cache of transformers."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from unrolled.core import tree
from unrolled.core.errors import UnrolledError

__all__ = ["Carried", "UnrolledCache", "own_cache"]


class Carried(NamedTuple):
    """What a model carries from one call to the next: a tree of batch-first tensors.

    cells: one State a layer. head: the head's, or None. hidden: (batch, width), the last output. begun: (batch,),
    whether the row has read a token.
    """

    cells: tuple[Any, ...]
    head: Any
    hidden: Tensor
    begun: Tensor


class UnrolledCache(Cache):
    """The state of a model, of a size that does not grow with the text.

    Tensors in it are never changed, only replaced, so a copy (``copy.copy``, ``copy.deepcopy``) takes no memory and may
    be continued by itself.

    Attributes:
        carried: see :class:`Carried`; None before the first token.
        seen: columns read so far, padding among them.
    """

    is_compileable = False  # type: ignore[assignment]
    is_croppable = False  # type: ignore[assignment]
    # one entry: of an empty list ``all`` would hold, and ids already read would be fed again
    is_sliding = [False]  # type: ignore[assignment]
    is_linear = [False]  # type: ignore[assignment]
    is_dummy = [False]  # type: ignore[assignment]

    def __init__(self, carried: Carried | None = None, seen: int = 0):
        super().__init__(layers=[])
        self.carried, self.seen = carried, seen

    def __copy__(self) -> "UnrolledCache":
        return UnrolledCache(self.carried, self.seen)

    def __deepcopy__(self, memo: Any) -> "UnrolledCache":
        return self.__copy__()

    def __len__(self) -> int:
        return 1 if self.carried is None else len(self.carried.cells)

    def __repr__(self) -> str:
        return f"UnrolledCache(batch_size={self.batch_size}, seen={self.seen})"

    @property
    def is_initialized(self) -> bool:
        """Whether anything was read."""
        return self.carried is not None

    @property
    def batch_size(self) -> int:
        """Number of rows; 0 before the first token."""
        return 0 if self.carried is None else len(self.carried.begun)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns read so far."""
        return self.seen

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """No maximum."""
        return -1

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """Columns of a mask over all that was read and what comes, and where it begins."""
        return self.seen + query_length, 0

    def reset(self) -> None:
        """Forget all."""
        self.carried, self.seen = None, 0

    def crop(self, tokens_to_remove: int) -> None:
        """Raises UnrolledError: a state cannot be cut back."""
        raise UnrolledError("a recurrent state cannot be cut back; copy the cache before what may have to be undone.")

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Row i becomes what row ``beam_idx[i]`` was."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows of these indices, or of a boolean mask."""
        if self.carried is not None:
            self.carried = tree.select_rows(self.carried, indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each row ``repeats`` times, copies side by side."""
        if self.carried is not None:
            self.carried = tree.repeat_rows(self.carried, repeats)


def own_cache(cache: Any, past_key_values: Any) -> UnrolledCache | None:
    """The cache of a call, by either of its names; None where it holds nothing of ours yet.

    Raises:
        UnrolledError: two different ones, or one of another model that holds something.
    """
    if cache is not None and past_key_values is not None and cache is not past_key_values:
        raise UnrolledError("cache and past_key_values are two names of one argument; give one of them.")
    given = past_key_values if cache is None else cache
    if isinstance(given, UnrolledCache) or given is None:
        return given
    if not isinstance(given, Cache) or given.get_seq_length():
        raise UnrolledError(
            f"a {type(given).__name__} holds no state of this model; give the cache that it returned, or none."
        )
    return None  # transformers makes an empty one for every model


def rows_where(held: Tensor, old: Carried, new: Carried) -> Carried:
    """The rows of ``old`` where ``held`` (batch,) is true, of ``new`` elsewhere."""
    return tree.reset_rows(new, old, held.to(torch.bool))
