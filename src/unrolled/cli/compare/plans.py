"""``unrolled compare check``, ``register`` and ``add``: plans."""

from pathlib import Path
from typing import Annotated

import typer

from unrolled.cli.common import JsonOption, emit, table, write
from unrolled.cli.compare.common import FolderArgument, PlanArgument, SettingsOption, verbs


@verbs.command()
def check(
    plan: PlanArgument,
    settings: SettingsOption = None,
    sd: Annotated[
        float, typer.Option(min=0, help="Standard deviation over seeds to reckon with, in bits per token.")
    ] = 0.006,
    json: JsonOption = False,
) -> None:
    """Resolve a plan: parameters, tokens, jobs, CPU hours and power; nothing is written.

    Example: unrolled compare check sharing
    """
    from unrolled.compare import estimate, find_plan, read_plan
    from unrolled.compare.check import power_of_plan

    read = read_plan(find_plan(plan), settings or ())
    found, power = estimate(read), power_of_plan(read, sd)
    if json:
        systems = [
            {key: value for key, value in one._asdict().items() if key not in ("config", "text")}
            for one in found.systems
        ]
        emit({
            "kind": "unrolled plan check", "title": read.title, "systems": systems, "searches": found.searches,
            "runs": found.runs, "operations": found.operations, "cpu_hours_at_least": found.cpu_hours,
            "power": [one._asdict() for one in power],
        })  # fmt: skip
        return
    write(read.title)
    rows = [
        [
            one.system, one.corpus, f"{one.width:,}", f"{one.parameters:,}", f"{one.flops_per_token:,}",
            "by timing" if one.tokens is None else f"{one.tokens:,}",
            "" if one.search_tokens is None else f"{one.search_tokens:,}",
        ]
        for one in found.systems
    ]  # fmt: skip
    table(["system", "corpus", "width", "parameters", "flops/token", "tokens", "tokens of a search"], rows)
    hours = "by timing" if found.cpu_hours is None else f"at least {found.cpu_hours:.1f} CPU hours"
    write(f"jobs: {found.searches} of the search, {found.runs} full runs; {hours}")
    for one in power:
        write(str(one))


@verbs.command()
def register(
    plan: PlanArgument,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="New folder; absent: comparisons/ and the plan's name.")
    ] = None,
    settings: SettingsOption = None,
    amend: Annotated[
        str | None, typer.Option(help="Why a plan that is registered there already is changed; the report prints it.")
    ] = None,
    reuse: Annotated[
        Path | None,
        typer.Option(
            help="Another comparison, its folder or its results.jsonl: results of the same jobs are taken over."
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Freeze a plan in a folder: plan.lock.json holds every configuration, and what is asked. Nothing is trained.

    Example: unrolled compare register sharing --out comparisons/sharing
    """
    from unrolled.compare import Board, find_plan
    from unrolled.compare import amend as amend_plan
    from unrolled.compare import register as register_plan
    from unrolled.compare.check import check_folder
    from unrolled.compare.comparison import default_folder
    from unrolled.compare.jobs import take_over
    from unrolled.core.errors import UsageError

    folder, path = out or default_folder(plan), find_plan(plan)
    if amend is not None:
        if settings:
            raise UsageError("--amend takes the settings that were registered; write other ones into the plan's file.")
        lock = amend_plan(folder, "", amend, path)
    else:
        check_folder(folder)
        lock = register_plan(path, folder, settings or ())
    taken = 0 if reuse is None else take_over(Board(lock), reuse)
    if json:
        emit({"folder": str(folder), "sha256": lock.sha256, "reused": taken})
        return
    write(f"registered {lock.plan.title!r} in {folder}: plan {lock.sha256[:12]}")
    if reuse is not None:
        write(f"{taken} results taken over from {reuse}")


@verbs.command()
def add(
    folder: FolderArgument,
    seeds: Annotated[str, typer.Option(help="Further seeds, such as 6-10 or 6,7,12.")],
    reason: Annotated[str, typer.Option(help="Why; the report prints it.")] = "more seeds",
    json: JsonOption = False,
) -> None:
    """Add seeds to a registered plan, in the open: the report lists it as an amendment.

    Example: unrolled compare add comparisons/sharing --seeds 13-16
    """
    from unrolled.compare import amend

    lock = amend(folder, f"seeds {seeds}", reason, seeds=_seeds(seeds))
    if json:
        emit({"folder": str(folder), "sha256": lock.sha256, "seeds": list(lock.plan.seeds)})
        return
    write(f"{len(lock.plan.seeds)} seeds; go on with: unrolled compare run {folder}")


def _seeds(text: str) -> list[int]:
    from unrolled.core.errors import UsageError

    found: list[int] = []
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        if not low.isdigit() or (dash and not high.isdigit()) or len(low + high) > 20:
            raise UsageError(f"--seeds takes numbers and ranges, such as 6-10 or 6,7,12, not {text!r}.")
        if dash and int(high) - int(low) > 10_000:
            raise UsageError("--seeds names more than 10,000 seeds; give fewer.")
        found += range(int(low), int(high or low) + 1)
    return found
