"""``unrolled train``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unrolled.cli.common import DeviceOption, JsonOption, app, emit, out, table, write

if TYPE_CHECKING:
    from unrolled.runs import Run
    from unrolled.train import ExperimentConfig


@app.command()
def train(
    recipe: Annotated[str | None, typer.Argument(help="A shipped recipe or a TOML file; absent: the default.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", "-s", metavar="A.B=VALUE", help="Override a field of the recipe.")
    ] = None,
    corpus: Annotated[str | None, typer.Option(help="A known corpus, or a file, folder or pattern of yours.")] = None,
    run: Annotated[Path | None, typer.Option("--out", "-o", help="Run directory; absent: runs/NAME-NUMBER.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue this run.")] = None,
    device: DeviceOption = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print size, memory and arithmetic at once; train nothing.")
    ] = False,
    time: Annotated[
        bool, typer.Option("--time", help="With --dry-run: time a few real steps too, which takes up to minutes.")
    ] = False,
    profile: Annotated[
        int | None,
        typer.Option(min=1, help="Print where the time of so many steps goes; train nothing.", show_default=False),
    ] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(
            help="tensorboard (event files in RUN/tensorboard) or stdout-json (lines on standard output): the lines of "
            "metrics.jsonl for other programs, as they come; repeatable."
        ),
    ] = None,
    sample: Annotated[int, typer.Option(min=0, help="Tokens of a sample printed at the end.")] = 300,
    json: JsonOption = False,
) -> None:
    """Train a model.

    With no arguments: a good small model on an embedded corpus, in about two minutes on two cores.

    Example: unrolled train ptb-char-cpu --set model.width=512 --set train.cpu_minutes=10 --out runs/x
    """
    from unrolled.core.errors import UsageError
    from unrolled.core.group import agreed, joined, launched
    from unrolled.core.memory import keep_freed_memory
    from unrolled.data import corpus_named
    from unrolled.runs import Run
    from unrolled.train import Clock, TerminalReporter, start
    from unrolled.train.recipes import DEFAULT, load_experiment

    keep_freed_memory()
    report, clock = None if json else TerminalReporter(), Clock(from_start=True)
    with joined(device):
        if resume is not None:
            with agreed():
                if recipe or settings or corpus or run or dry_run or time or profile is not None:
                    raise UsageError(
                        "--resume continues a run as it was configured; leave out the recipe, --set, --corpus, --out, "
                        "--dry-run, --time and --profile."
                    )
            done = start.resume(resume, device, report, clock, track or ())
        else:
            with agreed():
                if dry_run and profile is not None:
                    raise UsageError("give either --dry-run or --profile, not both.")
                if time and not dry_run:
                    raise UsageError("--time belongs to --dry-run; give both.")
                config = load_experiment(recipe, settings or (), None if corpus is None else corpus_named(corpus))
            if dry_run or profile is not None:
                if not launched():
                    _look(config, device, dry_run, time, profile, json)
                return
            folder = run or start.free_folder(Path(recipe or DEFAULT).stem)
            done = start.train(config, folder, device, report, clock, track or ())
    if launched():  # one process tells what all have done
        return
    trained = Run(done, device)
    if json:
        emit({"run": str(done), **trained.record})
        return
    write(_summary(trained))
    if sample and trained.task_class.language and trained.task_class.reads_text:
        from unrolled.cli.texts import print_generation
        from unrolled.cli.writing import Writing

        out.print("sample:", style="bold")
        print_generation(Writing(trained, "", sample))


def _look(config: "ExperimentConfig", device: str, dry_run: bool, time: bool, profile: int | None, json: bool) -> None:
    if dry_run:
        _dry_run(config, device, time, json)
    else:
        _profile(config, device, profile or 1, json)


def _dry_run(config: "ExperimentConfig", device: str, time: bool, json: bool) -> None:
    from unrolled.train.dry_run import dry_run, timed_run
    from unrolled.train.process import process_settings

    with process_settings(config.train.threads):
        _print_size(timed_run(config, device) if time else dry_run(config), json)


def _profile(config: "ExperimentConfig", device: str, steps: int, json: bool) -> None:
    from unrolled.bench import BenchConfig, peak_speed
    from unrolled.core.errors import UsageError
    from unrolled.task import TASKS, ClosedTask
    from unrolled.train.process import process_settings
    from unrolled.train.profile import profile_steps
    from unrolled.train.setup import set_up

    if issubclass(task := TASKS[config.task.name], ClosedTask):
        raise UsageError(f"{task.noun} is not trained in steps; leave out --profile.")
    with process_settings(config.train.threads):
        parts, kind, peak = set_up(config, device), config.model.compute.precision, None
        before = peak_speed(BenchConfig(), kind) if next(parts.model.parameters()).device.type == "cpu" else None
        found = profile_steps(parts, steps)
        if before is not None:  # the machine's speed may change meanwhile
            peak = (before + peak_speed(BenchConfig(), kind)) / 2
    if json:
        emit({
            "steps": found.steps, "tokens": found.tokens, "seconds": found.seconds, "peak": peak,
            "parts": [{**part._asdict(), "speed": part.speed} for part in found.parts],
        })  # fmt: skip
        return
    rows = [
        [
            part.name, f"{1000 * part.seconds:.2f}", f"{part.seconds / found.seconds:.1%}",
            f"{part.speed / 1e9:.1f}" if part.operations else "",
            f"{part.speed / peak:.1%}" if part.operations and peak else "",
        ]
        for part in found.parts
    ]  # fmt: skip
    operations = sum(part.operations for part in found.parts)
    whole = [f"{operations / found.seconds / 1e9:.1f}", f"{operations / found.seconds / peak:.1%}" if peak else ""]
    rows.append(["step", f"{1000 * found.seconds:.2f}", "100.0%", *whole])
    table(["part", "ms", "share of time", "GFLOP/s", "share of peak"], rows)
    speed = f"{found.tokens:,} tokens a step, {found.tokens / found.seconds:,.0f} a second"
    write(speed if peak is None else f"{speed}; peak of {kind} products {peak / 1e9:.0f} GFLOP/s")


def _print_size(result: dict[str, Any], json: bool) -> None:
    if json:
        emit(result)
        return
    for key, value in result.items():
        if isinstance(value, dict):
            value = ", ".join(f"{amount:g} {kind.replace('_', ' ')}" for kind, amount in value.items())
        elif value is None:
            value = "not known"
        elif isinstance(value, int):
            value = f"{value:,}"
        elif isinstance(value, float):
            value = f"{value:,.4g}"
        elif isinstance(value, list):
            value = ("; " if key == "published" else ", ").join(map(str, value)) or "-"
        write(f"{key.replace('_', ' ')}: {value}")


def _summary(run: "Run") -> str:
    """One line: the figures that most people look for, and what they cost."""
    record = run.record
    cost = f"{record['tokens']:,} tokens, {record['cpu_seconds']:.0f} CPU seconds"
    if record["steps"]:
        cost = f"{record['steps']:,} steps, {cost}"
    scored = record["valid_exact"] or record["valid"]
    if scored is None:
        return f"{cost}; run {run.path}"
    result, task = run.task_class.result(scored), run.task_class
    return f"validation {task.told(result)} ({task.protocol(result)}); {cost}; run {run.path}"
