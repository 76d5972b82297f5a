"""Several processes that train one run together."""

from unrolled.train.parallel.config import ParallelConfig
from unrolled.train.parallel.shards import own_shards
from unrolled.train.parallel.window import Window, make_window

__all__ = ["ParallelConfig", "Window", "make_window", "own_shards"]
