"""Sweeps of cells over synthetic problems: a plan of ordinary runs, and a table of what each cell could learn."""

from unrolled.compare.probe.plan import ProbeConfig, probe_plan
from unrolled.compare.probe.report import write_probe
from unrolled.compare.probe.rows import ProbeRow, probe_rows

__all__ = ["ProbeConfig", "ProbeRow", "probe_plan", "probe_rows", "write_probe"]
