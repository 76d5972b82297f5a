"""Settings of the whole process, for as long as a run lasts."""

import contextlib
from collections.abc import Iterator

import torch

__all__ = ["process_settings"]


@contextlib.contextmanager
def process_settings(threads: int | None) -> Iterator[None]:
    """Compute with so many CPU threads (None: as it is), and with denormal numbers taken for zero.

    Denormals appear in decayed states and gradients and cost a hundred times a normal operation. Other code of the
    process may need them, so the setting ends with the run.
    """
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)
