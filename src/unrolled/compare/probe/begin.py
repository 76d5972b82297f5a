"""Beginning a probe: its plan is written, registered, and gone on with by the same command."""

from pathlib import Path

from unrolled.compare.check import check_folder
from unrolled.compare.lock import LOCK, PLAN, Lock, open_lock, register
from unrolled.compare.matched import SizeError
from unrolled.compare.plan import PlanConfig
from unrolled.compare.probe.plan import ProbeConfig, probe_plan
from unrolled.core.errors import UsageError
from unrolled.core.files import atomic_write
from unrolled.core.toml_text import toml_text

__all__ = ["begun_probe"]


def begun_probe(config: ProbeConfig, out: Path | None) -> Lock:
    """The registered plan of a probe, new or gone on with.

    Args:
        out: the folder; absent: ``probes/`` and the names of the problems.
    Raises:
        UsageError: the folder holds another probe or comparison; whatever is wrong with the plan.
    """
    values = probe_plan(config)
    PlanConfig.parse(values)  # what is wrong is told before there is a file that it would be of
    text = toml_text(values)
    folder = out or Path("probes") / "-".join(name.partition(":")[2] or name for name in config.problems)
    if (folder / LOCK).exists():
        lock = open_lock(folder)
        if (folder / PLAN).read_text(encoding="utf-8") != text:
            raise UsageError(f"{folder} holds a probe with other settings; choose another --out.")
        return lock
    check_folder(folder)
    atomic_write(folder / PLAN, text)
    try:
        return register(folder / PLAN, folder)
    except UsageError as error:
        (folder / PLAN).unlink(missing_ok=True)
        if isinstance(size := error.__cause__, SizeError):  # a plan has remedies that a probe has not
            sentence = str(error).removesuffix(size.remedy)
            raise UsageError(f"{sentence}give --size {size.parameters}, or --match none for equal widths.") from error
        raise
