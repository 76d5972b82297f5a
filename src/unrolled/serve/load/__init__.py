"""Load for a server: many streams at once, measured from the client's side."""

from unrolled.serve.load.plan import LoadConfig
from unrolled.serve.load.run import run_load

__all__ = ["LoadConfig", "run_load"]
