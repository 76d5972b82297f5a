"""``unrolled tune``: a search of settings under a budget; without the name of a verb it is ``run``."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from unrolled.cli.common import DeviceOption, JsonOption, app, emit, table, write


class _RunsByDefault(TyperGroup):
    """``tune SPACE.toml`` is ``tune run SPACE.toml``."""

    default = "run"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See click's Group."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [self.default, *args]
        return super().parse_args(ctx, args)


verbs = typer.Typer(
    cls=_RunsByDefault,
    help="Search settings under a budget: trials that are stopped early, the best of them confirmed with new seeds. "
    "`unrolled tune SPACE.toml` runs it. See docs/tuning.md.",
    no_args_is_help=True,
)
app.add_typer(verbs, name="tune")

FolderArgument = Annotated[Path, typer.Argument(help="The folder of a study.")]


@verbs.command()
def run(
    space: Annotated[
        str, typer.Argument(help="A space: a TOML file, or the name of a shipped one; or a study's folder.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the study; absent: studies/ and the space's name.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Trials in all; absent, and without --cpu-hours: 60.", show_default=False)
    ] = None,
    cpu_hours: Annotated[
        float | None, typer.Option(min=0, help="CPU hours in all, those of the confirmation among them.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=1024, help="Processes on this machine.")] = 1,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="PostgreSQL for the sampler's memory, postgresql+psycopg://USER@HOST/DATABASE."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of the space, such as trial.tokens=1000000; repeatable."),
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Try again what failed three times.")] = False,
    device: DeviceOption = "auto",
) -> None:
    """Search. May be stopped and started at will, on any machines that see the folder.

    Example: unrolled tune ptb-char-cpu --out studies/a --cpu-hours 1 --workers 2
    """
    from unrolled.compare.claims import Claims
    from unrolled.compare.tune.lock import begun
    from unrolled.compare.tune.memory import check_storage
    from unrolled.compare.tune.tuning import wanted

    check_storage(storage)
    limit = wanted(trials, cpu_hours)
    study = begun(space, out, settings or (), storage is not None)
    write(f"{study.space.title or study.space.recipe}; study {study.name} in {study.folder}")
    if retry:
        write(f"{Claims(study.folder).retry()} failures are forgotten")
    if workers > 1:
        _many(study, workers, limit, storage, device)
    else:
        _one(study, limit, storage, device)


def _one(study: Any, limit: Any, storage: str | None, device: str) -> None:
    import torch

    from unrolled.cli.compare.run import told_on_stderr
    from unrolled.compare.tune import work
    from unrolled.core.errors import StoppedError

    torch.set_num_threads(study.space.threads)
    tell, progress = told_on_stderr()
    try:
        outcome = work(study.folder, limit, storage, device, tell, lambda job, text: progress(job.id, text))
    except StoppedError as error:
        sentence = f"stopped; the run is saved; go on with: unrolled tune run {study.folder}"
        raise StoppedError(sentence, error.exit_code - 128) from error
    _ended(study, outcome.faults, outcome.complete)


def _many(study: Any, workers: int, limit: Any, storage: str | None, device: str) -> None:
    from unrolled.compare.claims import Claims
    from unrolled.compare.tune import Board
    from unrolled.compare.tune.worker import faults, work_many

    code = work_many(
        study.folder, workers, limit, storage, device, study.space.threads, lambda text: typer.echo(text, err=True)
    )
    if code > 128:
        raise typer.Exit(code)
    board = Board(study)
    stuck = faults(board, Claims(study.folder), limit)
    _ended(study, tuple(stuck), not board.todo(limit))
    if code:
        raise typer.Exit(code)


def _ended(study: Any, faults: tuple[str, ...], complete: bool) -> None:
    from unrolled.compare.tune import Tuning
    from unrolled.compare.tune.report import answer
    from unrolled.core.errors import UnrolledError

    for fault in faults[1:]:
        typer.echo(fault, err=True)
    if faults:
        raise UnrolledError(faults[0])
    if complete:
        write(answer(Tuning(study.folder)))
        write(f"recipe: {study.folder / 'best.toml'}; more with: unrolled tune report {study.folder}")


@verbs.command()
def status(folder: FolderArgument, json: JsonOption = False) -> None:
    """Show how far a study is: trials, who works on them, the best so far, CPU hours. Only reads.

    Example: unrolled tune status studies/a
    """
    from unrolled.compare.claims import Claims
    from unrolled.compare.tune import Tuning

    tuning = Tuning(folder)
    running = {job: worker for job, worker in Claims(folder).living().items() if tuning.board.result(job) is None}
    counts: dict[str, int] = {}
    for one in tuning.trials:
        counts[one.status] = counts.get(one.status, 0) + 1
    leaders = [one for number in tuning.board.leaders() for one in tuning.trials if one.number == number]
    confirm = tuning.board.confirm_jobs()
    done = sum(tuning.board.result(job.id) is not None for job in confirm)
    if json:
        emit({
            "kind": "unrolled study status", "trials": counts, "leaders": [one._asdict() for one in leaders],
            "confirmed": done, "to_confirm": len(confirm), "cpu_hours": tuning.cpu_hours, "running": running,
        })  # fmt: skip
        return
    told = ", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or "none yet"
    write(f"trials: {told}; {done} of {len(confirm)} runs confirm the best; {tuning.cpu_hours:.2f} CPU hours")
    names = list(tuning.study.space.space)
    rows = [
        [str(one.number), f"{one.value:.4f}", *(str(one.settings.get(name, "")) for name in names)] for one in leaders
    ]
    table(["trial", "nats per token", *names], rows)
    for job, worker in running.items():
        write(f"running: {job} on {worker.get('host')}, process {worker.get('pid')}")


@verbs.command()
def report(folder: FolderArgument, json: JsonOption = False) -> None:
    """Say what a study found: report.md, trials.tsv and record.json in its folder.

    Example: unrolled tune report studies/a
    """
    from unrolled.compare.tune import Tuning
    from unrolled.compare.tune.report import answer, write_report
    from unrolled.core.files import read_json

    tuning = Tuning(folder)
    path = write_report(tuning)
    if json:
        emit(read_json(folder / "record.json", 1 << 28))
        return
    write(answer(tuning))
    write(f"report: {path}, {path.with_name('trials.tsv')}")


@verbs.command()
def best(folder: FolderArgument) -> None:
    """Print the best settings as a recipe.

    Example: unrolled tune best studies/a > best.toml
    """
    from unrolled.compare.tune import Tuning

    write(Tuning(folder).recipe(), end="")
