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
    json: JsonOption = False,
) -> None:
    """Search. May be stopped and started at will, on any machines that see the folder.

    Example: unrolled tune run ptb-char-cpu --out studies/a --cpu-hours 1 --workers 2
    """
    from unrolled.compare.claims import Claims
    from unrolled.compare.tune import Board, Tuning, begun
    from unrolled.compare.tune.memory import check_storage
    from unrolled.compare.tune.report import answer
    from unrolled.compare.tune.status import progress
    from unrolled.compare.tune.tuning import wanted
    from unrolled.compare.tune.worker import faults
    from unrolled.core.errors import UnrolledError

    check_storage(storage)
    limit = wanted(trials, cpu_hours)
    study = begun(space, out, settings or (), storage is not None)
    typer.echo(f"{study.space.title or study.space.recipe}; study {study.name} in {study.folder}", err=True)
    if retry:
        typer.echo(f"{Claims(study.folder).retry()} failures are forgotten", err=True)
    if workers > 1:
        _many(study, workers, limit, storage, device)
    else:
        _one(study, limit, storage, device)
    stuck, tuning = faults(Board(study), Claims(study.folder), limit), Tuning(study.folder)
    if json:
        emit(progress(tuning).to_json())
    elif tuning.board.complete(limit) and not stuck:
        write(answer(tuning))
        write(f"recipe: {study.folder / 'best.toml'}; more with: unrolled tune report {study.folder}")
    for fault in stuck[1:]:
        typer.echo(fault, err=True)
    if stuck:
        raise UnrolledError(stuck[0])


def _one(study: Any, limit: Any, storage: str | None, device: str) -> None:
    import torch

    from unrolled.cli.compare.run import told_on_stderr
    from unrolled.compare.tune import work
    from unrolled.core.errors import StoppedError

    torch.set_num_threads(study.space.threads)
    tell, progress = told_on_stderr()
    try:
        work(study.folder, limit, storage, device, tell, lambda job, text: progress(job.id, text))
    except StoppedError as error:
        sentence = f"stopped; the run is saved; go on with: unrolled tune run {study.folder}."
        raise StoppedError(sentence, error.exit_code - 128) from error


def _many(study: Any, workers: int, limit: Any, storage: str | None, device: str) -> None:
    from unrolled.compare.tune.worker import work_many

    code = work_many(
        study.folder, workers, limit, storage, device, study.space.threads, lambda text: typer.echo(text, err=True)
    )
    if code > 1:  # a signal, or what is no fault of a trial; those are told by name
        raise typer.Exit(code)


@verbs.command()
def status(folder: FolderArgument, json: JsonOption = False) -> None:
    """Show how far a study is: trials, who works on them, the best so far, CPU hours. Only reads.

    Example: unrolled tune status studies/a
    """
    from unrolled.compare.tune import Tuning
    from unrolled.compare.tune.status import progress

    tuning = Tuning(folder)
    found = progress(tuning)
    if json:
        emit(found.to_json())
        return
    told = ", ".join(f"{count} {status}" for status, count in found.trials.items()) or "none yet"
    confirmed = f"{found.confirmed} of {found.to_confirm} runs confirm the best"
    write(f"trials: {told}; {confirmed}; {found.cpu_hours:.2f} CPU hours")
    names = list(tuning.study.space.space)
    rows = [
        [str(one.number), f"{one.value:.4f}", *(str(one.settings.get(name, "")) for name in names)]
        for one in found.leaders
    ]
    table(["trial", "nats per token", *names], rows)
    for job, worker in found.running.items():
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
def best(folder: FolderArgument, json: JsonOption = False) -> None:
    """Print the best settings as a recipe.

    Example: unrolled tune best studies/a > best.toml
    """
    from unrolled.compare.tune import Tuning

    tuning = Tuning(folder)
    if json:
        emit(tuning.config().model_dump(mode="json"))
        return
    write(tuning.recipe(), end="")
