"""``unrolled compare run``."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from unrolled.cli.common import DeviceOption, JsonOption, emit, write
from unrolled.cli.compare.common import SettingsOption, verbs


@verbs.command()
def run(
    plan: Annotated[str, typer.Argument(help="The folder of a registered plan; or a plan, which is registered first.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where a plan is registered; see register.")] = None,
    settings: SettingsOption = None,
    workers: Annotated[int, typer.Option(min=1, max=1024, help="Processes on this machine.")] = 1,
    only: Annotated[
        str | None, typer.Option(metavar="GLOB", help="Only jobs whose names match, such as 'run.mamba*'.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Begin no job after so many minutes.")] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Try jobs again that failed three times.")] = False,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Take jobs until none is left. May be stopped and started at will, on any machines that see the folder.

    Example: unrolled compare run sharing --out comparisons/sharing --workers 2
    """
    from unrolled.compare import Board
    from unrolled.compare.claims import Claims
    from unrolled.compare.comparison import begun
    from unrolled.compare.status import progress as status
    from unrolled.compare.worker import faults
    from unrolled.core.errors import UnrolledError

    lock = begun(plan, out, settings or ())
    folder = lock.folder
    typer.echo(f"{lock.plan.title}; plan {lock.sha256[:12]} in {folder}", err=True)
    if retry:
        typer.echo(f"{Claims(folder).retry()} failures are forgotten", err=True)
    code = 0
    if workers > 1:
        code = _many(folder, workers, only, minutes, device, lock.plan.threads)
    else:
        _one(folder, only, minutes, device)
    board = Board(lock)
    stuck = faults(board, Claims(folder))
    if json:
        emit(status(board).to_json())
    elif not board.todo() and not stuck:
        write(f"complete; read it with: unrolled compare report {folder}")
    for fault in stuck[1:]:
        typer.echo(fault, err=True)
    if stuck:
        raise UnrolledError(stuck[0])
    if code and board.todo():  # a worker ended for another reason, which it has told
        raise typer.Exit(code)


def _one(folder: Path, only: str | None, minutes: float | None, device: str) -> None:
    from unrolled.compare import work
    from unrolled.core.errors import StoppedError

    tell, progress = told_on_stderr()
    try:
        work(folder, only, minutes, device, tell, lambda board, job, text: progress(job.id, text))
    except StoppedError as error:
        sentence = f"stopped; the run is saved; go on with: unrolled compare run {folder}"
        raise StoppedError(sentence, error.exit_code - 128) from error


def told_on_stderr() -> tuple[Callable[[str], None], Callable[[str, str], None]]:
    """Two listeners of a worker: of lines, and of how far a job is, which a terminal shows in one line."""
    from unrolled.core.terminal import visible

    errors = typer.get_text_stream("stderr")

    def progress(job: str, text: str) -> None:
        if errors.isatty():
            errors.write(f"\r\x1b[K{visible(job)}: {text}")
            errors.flush()

    def tell(text: str) -> None:
        errors.write(f"{chr(13) + chr(27) + '[K' if errors.isatty() else ''}{visible(text)}\n")
        errors.flush()

    return tell, progress


def _many(folder: Path, workers: int, only: str | None, minutes: float | None, device: str, threads: int) -> int:
    from unrolled.compare.worker import work_many

    arguments = ["--device", device]
    arguments += ["--only", only] if only else []
    arguments += ["--minutes", str(minutes)] if minutes is not None else []
    code = work_many(folder, workers, arguments, threads, lambda text: typer.echo(text, err=True))
    if code > 1:  # a signal, or what is no fault of a job; those are told by name
        raise typer.Exit(code)
    return code
