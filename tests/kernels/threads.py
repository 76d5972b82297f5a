"""What several threads compute."""

from collections.abc import Callable

import torch
from torch import Tensor


def assert_threads_change_no_bit(run: Callable[[], list[Tensor]], threads: int = 3) -> None:
    """One thread and several give the same numbers, to the bit."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = run()
        torch.set_num_threads(threads)
        assert all(torch.equal(a, b) for a, b in zip(run(), alone, strict=True))
    finally:
        torch.set_num_threads(before)
