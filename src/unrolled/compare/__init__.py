"""Controlled experiments: a plan of systems, what is held equal, jobs that any number of workers do, and a report."""

from unrolled.compare.check import Estimate, estimate
from unrolled.compare.claims import Claims
from unrolled.compare.comparison import Comparison
from unrolled.compare.found import found
from unrolled.compare.jobs import Board
from unrolled.compare.lock import Lock, amend, open_lock, register
from unrolled.compare.plan import PlanConfig, find_plan, list_plans, read_plan
from unrolled.compare.results import Found, RunFound, SystemFound
from unrolled.compare.worker import Outcome, work

__all__ = [
    "Board",
    "Claims",
    "Comparison",
    "Estimate",
    "Found",
    "Lock",
    "Outcome",
    "PlanConfig",
    "RunFound",
    "SystemFound",
    "amend",
    "estimate",
    "find_plan",
    "found",
    "list_plans",
    "open_lock",
    "read_plan",
    "register",
    "work",
]
