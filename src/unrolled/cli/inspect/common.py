"""Options and helpers that the verbs of ``unrolled inspect`` share."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unrolled.cli.common import app, emit, progress_bar

if TYPE_CHECKING:
    from unrolled.analyse import Passage
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
    "passages",
    "present",
    "provenance",
    "verbs",
]

verbs = typer.Typer(
    help="Look into trained models: probes of what they do. For loss, entropy and predictions of each token see "
    "`unrolled score --unit token`.",
    no_args_is_help=True,
)
app.add_typer(verbs, name="inspect")

RunArgument = Annotated[Path, typer.Argument(help="A run directory.")]
RunsArgument = Annotated[list[Path], typer.Argument(help="Run directories, side by side.")]
TextOption = Annotated[
    str | None,
    typer.Option("--text", help="A text to read (compressed too), - for standard input; absent: the corpus."),
]
CorpusOption = Annotated[str | None, typer.Option(help="A known corpus or a path; absent: each run's own.")]
SplitOption = Annotated[
    str, typer.Option(help="train, valid or test of the corpus; or whole, all of a text of your own.")
]
LimitOption = Annotated[int, typer.Option(min=1, help="Only the first so many tokens.")]
FolderOption = Annotated[
    Path | None, typer.Option("--out", "-o", help="Write record.json, tables and plots into this folder.")
]


def open_runs(paths: Sequence[Path], device: str, folder: Path | None) -> "list[Run]":
    """Open runs, and make the folder, so that what cannot be done is refused before minutes have gone by.

    The backend is chosen anew: one that the run names may not let anybody listen.
    """
    from unrolled.core.errors import UsageError
    from unrolled.core.files import make_folder
    from unrolled.runs import CONFIG, Run

    if folder is not None and (folder / CONFIG).exists():
        raise UsageError(f"{folder} is a run, whose record would be lost; choose another --out.")
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


def passages(
    runs: "Sequence[Run]", text: str | None, corpus: str | None, split: str, limit: int | None, progress: bool
) -> "Iterator[tuple[Run, str, Passage, Callable[[int, int, float], None]]]":
    """Every run with its name, what it is to read, and what hears of the tokens read; a bar is shown meanwhile.

    Raises:
        UsageError: several runs are to read standard input; or see :func:`unrolled.analyse.passage_of_run`.
    """
    from unrolled.analyse import passage_of_run
    from unrolled.core.errors import UsageError

    if text == "-" and len(runs) > 1:
        raise UsageError("standard input can be read once, by one run; write the text to a file and name it.")
    for run, name in zip(runs, names_apart(runs), strict=True):
        passage = passage_of_run(run, text, corpus, split, limit)
        with progress_bar(f"reading {name}", progress) as advance:
            yield run, name, passage, advance


def present(record: dict[str, Any], json: bool, show: Callable[[], object], note: str | None = None) -> None:
    """Print a record as JSON or as ``show`` does; ``note``, what could not be written, goes to standard error."""
    if json:
        emit(record)
    else:
        show()
    if note is not None:
        typer.echo(note, err=True)
