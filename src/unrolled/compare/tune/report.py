"""What a study found, as files: a page in Markdown, a table of the trials, a record."""

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from unrolled.compare.tune.space import DimensionConfig
from unrolled.compare.tune.tuning import BEST, Confirmed, Tuning
from unrolled.core.files import atomic_write, make_folder, write_json

__all__ = ["answer", "at_edge", "write_report"]

_SHOWN = 10
_NEAR = 0.05
_STATUSES = ("finished", "pruned", "diverged", "refused", "running")


def answer(tuning: Tuning) -> str:
    """What the study came to, in a sentence."""
    best, done = tuning.best, [one for one in tuning.trials if one.status != "running"]
    cost = f"{len(done)} trials, {tuning.cpu_hours:.2f} CPU hours"
    if best is None:
        return f"Nothing is confirmed yet; so far {cost}."
    return (
        f"Trial {best.number} is the best of the confirmed: {best.mean:.4f} nats per token{_bits(best)}, "
        f"sd {best.sd:.4f} over {len(best.values)} new seeds; {cost}."
    )


def _bits(one: Confirmed) -> str:
    return "" if one.bits_per_character is None else f" ({one.bits_per_character:.4f} bits per character)"


def at_edge(dimension: DimensionConfig, value: Any) -> str | None:
    """``low`` or ``high`` where a value lies within a twentieth of the range from that end; None elsewhere."""
    if dimension.values is not None or dimension.low is None or dimension.high is None:
        return None
    scale = math.log if dimension.log else float
    share = (scale(value) - scale(dimension.low)) / (scale(dimension.high) - scale(dimension.low))
    return "low" if share < _NEAR else "high" if share > 1 - _NEAR else None


def write_report(tuning: Tuning, out: str | os.PathLike[str] | None = None) -> Path:
    """Write report.md, trials.tsv and record.json, and best.toml where the best is known.

    Args:
        out: a folder; absent: the study's own.
    Returns:
        the report in Markdown.
    """
    folder = make_folder(tuning.folder if out is None else Path(out))
    atomic_write(folder / "trials.tsv", _tsv(tuning))
    write_json(folder / "record.json", _record(tuning))
    if tuning.best is not None:
        atomic_write(folder / BEST, tuning.recipe())
    path = folder / "report.md"
    atomic_write(path, "\n".join(_markdown(tuning)) + "\n")
    return path


def _markdown(tuning: Tuning) -> Iterable[str]:
    study, space = tuning.study, tuning.study.space
    yield f"# {_cell(space.title or space.recipe)}"
    yield from ("", answer(tuning), "")
    budget = f"{space.trial.amount:,.0f} {space.trial.kind.replace('_', ' ')}"
    yield f"- recipe {_cell(space.recipe)}, which is trial 0; a whole trial is {budget}; seed {space.seed}"
    if space.parameters is not None:
        yield f"- every trial has the largest width within {space.parameters:,} parameters"
    if study.checks:
        shares = ", ".join(f"{check / study.config['train']['validations']:.1%}" for check in study.checks)
        yield f"- of the trials that come to a rung, at {shares} of a trial, the best {space.keep:.0%} go on"
    counts = {status: sum(one.status == status for one in tuning.trials) for status in _STATUSES}
    yield "- trials: " + ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    yield from ("", "## Confirmed", "")
    yield from _table(
        ["trial", *space.space, "mean nats per token", "sd", "bits per character", "by seed"],
        [
            [
                str(one.number), *(_shown(one.settings.get(name)) for name in space.space), f"{one.mean:.4f}",
                f"{one.sd:.4f}", "" if one.bits_per_character is None else f"{one.bits_per_character:.4f}",
                ", ".join("diverged" if value is None else f"{value:.4f}" for value in one.values.values()),
            ]
            for one in tuning.confirmed
        ],
    )  # fmt: skip
    yield from (
        "",
        "Their seeds took no part in the search, so that the luck of the best trial is not in these figures.",
    )
    if tuning.best is not None:
        for name, value in tuning.best.settings.items():
            if (end := at_edge(space.space[name], value)) is not None:
                yield ""
                yield f"{name} = {_shown(value)} lies at the {end} end of what was tried ({space.space[name]})."
    yield from ("", "## Best trials", "")
    best = sorted((one for one in tuning.trials if one.status == "finished"), key=lambda one: (one.value, one.number))
    yield from _table(
        ["trial", *space.space, "nats per token, quick validation", "parameters", "CPU s"],
        [
            [
                str(one.number), *(_shown(one.settings.get(name)) for name in space.space), f"{one.value:.4f}",
                f"{one.parameters:,}", f"{one.cpu_seconds:.0f}",
            ]
            for one in best[:_SHOWN]
        ],
    )  # fmt: skip
    for one in tuning.trials:
        if one.reason:
            yield from ("", f"Trial {one.number} was refused: {_cell(one.reason)}")
    yield from ("", f"Study {study.name}, {study.sha256[:12]}, begun {study.begun}.")


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else _cell(str(value))


def _cell(text: str) -> str:
    """Text that makes no other cell, line or markup of a table."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterable[str]:
    yield f"| {' | '.join(columns)} |"
    yield "|" + " --- |" * len(columns)
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _tsv(tuning: Tuning) -> str:
    names = list(tuning.study.space.space)
    lines = ["\t".join(["trial", "status", "nats_per_token", "step", "parameters", "cpu_seconds", *names])]
    for one in tuning.trials:
        values = [one.number, one.status, one.value, one.step, one.parameters, round(one.cpu_seconds, 1)]
        values += [one.settings.get(name) for name in names]
        lines.append("\t".join("" if value is None else " ".join(str(value).split()) for value in values))
    return "\n".join(lines) + "\n"


def _record(tuning: Tuning) -> dict[str, Any]:
    return {
        "kind": "unrolled study",
        "version": 1,
        "study": tuning.study.name,
        "sha256": tuning.study.sha256,
        "space": tuning.study.space.model_dump(mode="json"),
        "cpu_hours": tuning.cpu_hours,
        "best": None if tuning.best is None else _plain(tuning.best),
        "confirmed": [_plain(one) for one in tuning.confirmed],
        "trials": [one._asdict() for one in tuning.trials],
    }


def _plain(one: Confirmed) -> dict[str, Any]:
    finite = math.isfinite(one.mean)
    return {**one._asdict(), "mean": one.mean if finite else None, "values": {str(k): v for k, v in one.values.items()}}
