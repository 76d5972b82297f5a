"""How tokens are chosen, from the options of the command line."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unrolled.cli.common import with_escapes

if TYPE_CHECKING:
    from unrolled.generate import SamplerConfig
    from unrolled.tokenizer import Tokenizer

__all__ = ["counts", "sampler_of"]

_READ = ("bias", "stop_tokens", "constrain")
"""Fields that are texts on the command line, and read here."""


def sampler_of(
    tokenizer: "Tokenizer",
    flags: Mapping[str, Any],
    bias: Sequence[str],
    stop_tokens: Sequence[str],
    constrain: str | None,
    settings: Any,
) -> "SamplerConfig":
    """The sampler.

    Args:
        flags: options of the command, of which those count that have the name of a field. bias: each TEXT=X.
        stop_tokens: texts of single tokens.
        constrain: a name, or NAME=VALUE. settings: a table of fields, of ``--set sampler.``, which come last.
    Raises:
        UsageError: in one sentence.
    """
    from unrolled.core.errors import UsageError
    from unrolled.generate import SamplerConfig, bias_of, token_of
    from unrolled.generate.constraints.asked import constraint_asked

    if not isinstance(settings, Mapping):
        raise UsageError("sampler is a table of options; write --set sampler.typical=0.9, say.")
    values = {name: flags[name] for name in SamplerConfig.model_fields if name in flags and name not in _READ}
    if bias:
        values["bias"] = bias_of(dict(map(_bias, bias)), tokenizer)
    if stop_tokens:
        values["stop_tokens"] = [token_of(with_escapes(one), tokenizer) for one in stop_tokens]
    if constrain is not None:
        values["constrain"] = constraint_asked(constrain)
    return SamplerConfig.parse({**values, **settings})


def _bias(text: str) -> tuple[str, float]:
    from unrolled.core.errors import UsageError

    name, _, value = text.rpartition("=")
    try:
        if not name:
            raise ValueError("no text")
        return with_escapes(name), float(value)
    except ValueError as error:
        raise UsageError(f"--bias needs the form TEXT=X, such as --bias e=-2 (got {text!r}).") from error


def counts(text: str, option: str) -> list[int]:
    """Numbers with commas between them. Raises UsageError."""
    from unrolled.core.errors import UsageError

    try:
        return [int(one) for one in text.split(",")]
    except ValueError as error:
        raise UsageError(f"{option} takes numbers with commas between them, such as 3,2 (got {text!r}).") from error
