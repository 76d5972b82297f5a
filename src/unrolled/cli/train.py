"""``unrolled train``."""

import itertools
from pathlib import Path
from typing import Annotated

import typer

from unrolled.cli.common import DeviceOption, JsonOption, app, corpus_config, emit, out


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
        bool, typer.Option("--dry-run", help="Print size, memory and estimated time; train nothing.")
    ] = False,
    sample: Annotated[int, typer.Option(min=0, help="Tokens of a sample printed at the end.")] = 300,
    json: JsonOption = False,
) -> None:
    """Train a model.

    With no arguments: a good small model on an embedded corpus, in about two minutes on two cores.

    Example: unrolled train ptb-char-cpu --set model.width=512 --set train.cpu_minutes=10 --out runs/x
    """
    from unrolled.core.errors import UsageError
    from unrolled.train import TerminalReporter, loop
    from unrolled.train.recipes import DEFAULT, load_experiment
    from unrolled.train.setup import set_up

    report = None if json else TerminalReporter()
    if resume is not None:
        if recipe or settings or corpus or run or dry_run:
            raise UsageError(
                "--resume continues a run as it was configured; leave out the recipe, --set, --corpus and --out."
            )
        done = loop.resume(resume, device, report)
    else:
        config = load_experiment(recipe, settings or (), None if corpus is None else corpus_config(corpus))
        if dry_run:
            from unrolled.train.dry_run import dry_run as estimate

            result = estimate(set_up(config, device))
            if json:
                emit(result)
            else:
                for key, value in result.items():
                    out.print(
                        f"{key.replace('_', ' ')}: {value:,.6g}"
                        if isinstance(value, float)
                        else f"{key.replace('_', ' ')}: {value}"
                    )
            return
        done = loop.train(config, run or _free_folder(Path(recipe or DEFAULT).stem), device, report)
    if json:
        from unrolled.runs import Run

        emit({"run": str(done), **Run(done, device).record})
    elif sample:
        _print_sample(done, sample, device)


def _free_folder(name: str) -> Path:
    return next(path for i in itertools.count(1) if not (path := Path("runs") / f"{name}-{i}").exists())


def _print_sample(run: Path, tokens: int, device: str) -> None:
    from unrolled.cli.generate import print_generation
    from unrolled.runs import Run

    out.print("sample:", style="bold")
    print_generation(Run(run, device), "", tokens)
