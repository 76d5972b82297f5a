"""Where options went that a verb had in an earlier release."""

__all__ = ["moved"]

_PAIRS = "minimal pairs are a verb of their own: unrolled pairs RUN blimp"
_MOVED = {
    ("eval", "--task"): _PAIRS,
    ("eval", "--normalize"): _PAIRS,
    ("eval", "--ensemble"): "mixing models is a verb of its own: unrolled ensemble FOLDER",
    ("eval", "--against"): "comparing is a verb of its own: write the model's tokens with --per-token, then unrolled "
    "difference FIRST.tsv SECOND.tsv",
}


def moved(error: Exception) -> str | None:
    """A sentence for a usage error about an option that has gone elsewhere; None for any other error."""
    context, option = getattr(error, "ctx", None), getattr(error, "option_name", None)
    verb = getattr(context, "info_name", None)
    where = _MOVED.get((verb or "", option or ""))
    return None if where is None else f"{option} is no option of {verb} any more; {where}."
