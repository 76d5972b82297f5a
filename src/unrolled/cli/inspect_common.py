"""Options and helpers that the verbs of ``unrolled inspect`` share."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from unrolled.runs import Run

__all__ = [
    "CorpusOption",
    "FolderOption",
    "LimitOption",
    "RunArgument",
    "RunsArgument",
    "SplitOption",
    "TextOption",
    "names_apart",
    "open_runs",
]

RunArgument = Annotated[Path, typer.Argument(help="A run directory.")]
RunsArgument = Annotated[list[Path], typer.Argument(help="Run directories, side by side.")]
TextOption = Annotated[
    str | None, typer.Option("--text", help="A text to read (.gz, .xz too), - for standard input; absent: the corpus.")
]
CorpusOption = Annotated[str | None, typer.Option(help="A known corpus or a path; absent: each run's own.")]
SplitOption = Annotated[str, typer.Option(help="train, valid or test of the corpus.")]
LimitOption = Annotated[int, typer.Option(min=1, help="Only the first so many tokens.")]
FolderOption = Annotated[
    Path | None, typer.Option("--out", "-o", help="Write record.json, tables and plots into this folder.")
]


def open_runs(paths: Sequence[Path], device: str, folder: Path | None) -> "list[Run]":
    """Open runs, and make the folder, so that what cannot be done is refused before minutes have gone by.

    The backend is chosen anew: one that the run names may not let anybody listen.
    """
    from unrolled.core.files import make_folder
    from unrolled.runs import Run

    opened = [Run(path, device, backend="auto") for path in paths]
    for run in opened:
        _ = run.model
    if folder is not None:
        make_folder(folder)
    return opened


def names_apart(runs: "Sequence[Run]") -> list[str]:
    """The folders' names; runs whose folders have one name are called by their paths."""
    names = [run.path.resolve().name for run in runs]
    return [str(run.path) if names.count(name) > 1 else name for run, name in zip(runs, names, strict=True)]


def provenance(run: "Run", origin: dict[str, Any]) -> dict[str, Any]:
    """What was measured and on what."""
    return {**run.provenance(), "precision": run.model.precision, **origin}
