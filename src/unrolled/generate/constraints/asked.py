"""A constraint as it is asked for in one text: its name, and perhaps the value of its main option."""

from pathlib import Path
from typing import Any

from unrolled.core.errors import UsageError
from unrolled.data.reading import read_plain
from unrolled.generate.constraints import CONSTRAINTS

__all__ = ["constraint_asked"]


def constraint_asked(text: str) -> dict[str, Any]:
    """``NAME``, ``NAME=VALUE`` or ``NAME=@FILE`` as a table of options.

    Raises:
        UsageError: no such constraint; a value for one that has no main option; a file that cannot be read.
    """
    name, given, value = text.partition("=")
    config = CONSTRAINTS[name].Config
    if not given:
        return {"name": name}
    if config.short is None:
        raise UsageError(f"{name} has no main option that a value would set; write --set sampler.constrain.OPTION=X.")
    if value.startswith("@") and not config.reads_files:
        value = read_plain(Path(value[1:]))
    return {"name": name, config.short: value}
