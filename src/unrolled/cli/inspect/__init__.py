"""``unrolled inspect``: one file a probe, each of which registers its verb."""

from unrolled.cli.inspect import errors, features, gates, length, memory, page, reading, recovery, trace, units

__all__ = ["errors", "features", "gates", "length", "memory", "page", "reading", "recovery", "trace", "units"]
