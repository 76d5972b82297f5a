"""``unrolled compare run``."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from unrolled.cli.common import DeviceOption, write
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
) -> None:
    """Take jobs until none is left. May be stopped and started at will, on any machines that see the folder.

    Example: unrolled compare run sharing --out comparisons/sharing --workers 2
    """
    from unrolled.compare.claims import Claims
    from unrolled.compare.comparison import begun

    lock = begun(plan, out, settings or ())
    folder = lock.folder
    write(f"{lock.plan.title}; plan {lock.sha256[:12]} in {folder}")
    if retry:
        write(f"{Claims(folder).retry()} failures are forgotten")
    if workers > 1:
        _many(folder, workers, only, minutes, device, lock.plan.threads)
    else:
        _one(folder, only, minutes, device, lock.plan.threads)


def _one(folder: Path, only: str | None, minutes: float | None, device: str, threads: int) -> None:
    import torch

    from unrolled.compare import work
    from unrolled.core.errors import StoppedError, UnrolledError

    torch.set_num_threads(threads)
    tell, progress = told_on_stderr()
    try:
        outcome = work(folder, only, minutes, device, tell, lambda board, job, text: progress(job.id, text))
    except StoppedError as error:
        sentence = f"stopped; the run is saved; go on with: unrolled compare run {folder}"
        raise StoppedError(sentence, error.exit_code - 128) from error
    _ended(folder, outcome.faults, outcome.complete)
    if outcome.faults:
        raise UnrolledError(outcome.faults[0])


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


def _many(folder: Path, workers: int, only: str | None, minutes: float | None, device: str, threads: int) -> None:
    from unrolled.compare import Board, open_lock
    from unrolled.compare.claims import Claims
    from unrolled.compare.worker import faults, work_many
    from unrolled.core.errors import UnrolledError

    arguments = ["--device", device]
    arguments += ["--only", only] if only else []
    arguments += ["--minutes", str(minutes)] if minutes is not None else []
    code = work_many(folder, workers, arguments, threads, lambda text: typer.echo(text, err=True))
    if code > 128:
        raise typer.Exit(code)
    board = Board(open_lock(folder))
    found = faults(board, Claims(folder))
    _ended(folder, tuple(found), not board.todo() and not found)
    if found:
        raise UnrolledError(found[0])
    if code:
        raise typer.Exit(code)


def _ended(folder: Path, faults: tuple[str, ...], complete: bool) -> None:
    if complete:
        write(f"complete; read it with: unrolled compare report {folder}")
    for fault in faults[1:]:
        typer.echo(fault, err=True)
