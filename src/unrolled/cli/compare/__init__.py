"""``unrolled compare``: controlled experiments from a plan; one file a group of verbs."""

from unrolled.cli.compare import plans, reading, run

__all__ = ["plans", "reading", "run"]
