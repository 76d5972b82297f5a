"""The command, and servers, as fixtures."""

from cli.conftest import refused, unrolled
from serve.live.conftest import live

__all__ = ["live", "refused", "unrolled"]
