"""The condition of heads that cut the vocabulary into frequent and rare ids."""

from collections.abc import Sequence

from torch import Tensor

from unrolled.core.errors import UsageError

__all__ = ["check_cuts", "check_frequency_order"]


def check_cuts(name: str, cuts: Sequence[int], vocab_size: int) -> tuple[int, ...]:
    """The cuts, which must rise within the vocabulary. Raises UsageError."""
    if list(cuts) != sorted(set(cuts)) or (cuts and not 0 < cuts[0] <= cuts[-1] < vocab_size):
        raise UsageError(f"head.{name} must rise strictly between 0 and the {vocab_size:,} ids of the vocabulary.")
    return tuple(cuts)


def check_frequency_order(head: str, cuts: Sequence[int], counts: Tensor) -> None:
    """Raises UsageError unless no id behind a cut is more frequent than one before it."""
    for cut in cuts:
        if counts[:cut].min() < counts[cut:].max():
            raise UsageError(
                f"the {head} head needs ids by falling frequency; set tokenizer.order=frequency (word tokenizer) or "
                "use another head."
            )
