"""Where a report's figures come from, and where runs that are compared were not made alike."""

from collections.abc import Iterable

from unrolled.compare.answer import Analysis
from unrolled.compare.results import Found, RunFound

__all__ = ["provenance"]


def provenance(found: Found, analysis: Analysis) -> list[str]:
    """The plan's hash, the code, machines and backends, and which contrasts have runs that differ in them."""
    runs = [run for system in found.systems for run in system.runs]
    facts = [f"sha256 of the registered plan: {found.sha256}"]
    facts += [f"{key}: {value}" for key, value in found.code.items() if value is not None]
    facts.append(
        f"machines of the runs: {', '.join(sorted({run.machine for run in runs if run.machine})) or 'none yet'}"
    )
    used = sorted({f"{operation} by {backend}" for run in runs for operation, backend in run.backends.items()})
    facts.append(f"backends of the runs: {', '.join(used) or 'none yet'}")
    hours = sum(run.cpu_seconds for run in runs) / 3600
    facts.append(f"full runs: {len(runs)}, which took {hours:.1f} CPU hours")
    return [*facts, *_unlike(found, analysis)]


def _unlike(found: Found, analysis: Analysis) -> list[str]:
    told = []
    for row in analysis.contrasts:
        runs = [
            run
            for system in found.systems
            if system.name in (row.first, row.than) and system.corpus in row.corpora
            for run in system.runs
        ]
        if len(row.corpora) > 1:  # its corpora have been looked at one by one
            continue
        machines = sorted({run.machine for run in runs if run.machine})
        if len(machines) > 1:
            told.append(
                f"the runs of {row.name!r} on {row.corpus} were made on different machines: {', '.join(machines)}"
            )
        for operation, backends in _backends(runs):
            if len(backends) > 1:
                told.append(
                    f"the runs of {row.name!r} on {row.corpus} used different backends for {operation}: "
                    f"{', '.join(backends)}"
                )
    return told


def _backends(runs: Iterable[RunFound]) -> list[tuple[str, list[str]]]:
    """operation -> the backends that served it."""
    found: dict[str, set[str]] = {}
    for run in runs:
        for operation, backend in run.backends.items():
            found.setdefault(operation, set()).add(backend)
    return [(operation, sorted(backends)) for operation, backends in sorted(found.items())]
