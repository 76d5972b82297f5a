"""Formats that a run is exported to: one table, one row a format."""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from unrolled.core.errors import UsageError
from unrolled.core.registry import unknown_name
from unrolled.runs import Run

__all__ = ["EXPORTS", "Export", "Exported", "chosen_export", "export_run"]


class Exported(NamedTuple):
    """What was written. record: plain JSON values. sentence: the same for people."""

    record: dict[str, Any]
    sentence: str


class Export(NamedTuple):
    """A format.

    Attributes:
        name: of the format, as ``--to`` takes it.
        endings: of names of files that choose it without ``--to``; none for a folder.
        describe: what may be exported and what is written, in a few words for messages.
        function: "module:function" of (run, out, options) -> :class:`Exported`, loaded when it is used; ``options`` has
            those that were given, by name.
        options: names of the options that it takes.
    """

    name: str
    endings: tuple[str, ...]
    describe: str
    function: str
    options: tuple[str, ...] = ()

    def write(self, run: Run, out: Path, options: Mapping[str, Any]) -> Exported:
        """Write ``run`` to ``out``. Raises UsageError, UnrolledError in one sentence."""
        module, _, name = self.function.partition(":")
        function: Callable[..., Exported] = getattr(importlib.import_module(module), name)
        return function(run, out, options)


_ROWS = (
    Export(
        "arpa",
        (".arpa", ".arpa.gz"),
        "count models, in the format of SRILM and KenLM",
        "unrolled.serve.arpa:export_arpa",
    ),
    Export(
        "huggingface",
        (),
        "neural language models, as a folder that transformers reads",
        "unrolled.serve.hf.write:export_hugging_face",
        ("remote_code",),
    ),
    Export(
        "onnx",
        (".onnx",),
        "neural language models, one step with the state as inputs and outputs",
        "unrolled.serve.onnx.write:export_onnx",
        ("int8", "batch", "logits", "log_prob", "verify"),
    ),
    Export(
        "web",
        (),
        "neural language models of bytes, characters or words, as a page that runs in the browser",
        "unrolled.serve.web.write:export_web",
        ("int8", "runtime", "verify"),
    ),
)

EXPORTS: dict[str, Export] = {row.name: row for row in _ROWS}
"""The formats by name; a new one is a row."""


def chosen_export(out: Path, to: str | None = None) -> Export:
    """The format that ``to`` names, or else the one whose ending the name of ``out`` has.

    Raises:
        UsageError: no such format; a name that chooses none.
    """
    if to is not None:
        if to not in EXPORTS:
            raise unknown_name("format", to, EXPORTS)
        return EXPORTS[to]
    fitting = [row for row in EXPORTS.values() if out.name.endswith(row.endings or ("/",))]
    if not fitting:
        known = "; ".join(f"{row.name} ({row.describe})" for row in EXPORTS.values())
        raise UsageError(f"{out} has the ending of no format; name one with --to: {known}.")
    return fitting[0]


def export_run(run: Run, out: Path, to: str | None = None, options: Mapping[str, Any] | None = None) -> Exported:
    """Write a run in a format that other programs read.

    Args:
        out: file or folder. to: name of the format; absent: by the ending of ``out``.
        options: of the format, by name; those that are None or False count as not given.
    Raises:
        UsageError: see :func:`chosen_export`; an option that the format does not take; a run that it cannot hold.
    """
    chosen = chosen_export(out, to)
    given = {name: value for name, value in (options or {}).items() if value is not None and value is not False}
    for name in given:
        if name not in chosen.options:
            raise UsageError(f"--{name.replace('_', '-')} is no option of the format {chosen.name}; leave it out.")
    return chosen.write(run, out, given)
