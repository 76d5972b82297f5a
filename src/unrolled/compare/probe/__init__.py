"""Sweeps of cells over synthetic problems: a plan of ordinary runs, and a table of what each cell could learn."""

from unrolled.compare.probe.begin import begun_probe
from unrolled.compare.probe.listing import Listed, list_problems, read_probe_points
from unrolled.compare.probe.plan import ProbeConfig, probe_plan
from unrolled.compare.probe.report import probe_table, write_probe
from unrolled.compare.probe.rows import ProbeRow, probe_rows

__all__ = [
    "Listed", "ProbeConfig", "ProbeRow", "begun_probe", "list_problems", "probe_plan", "probe_rows", "probe_table",
    "read_probe_points", "write_probe",
]  # fmt: skip
