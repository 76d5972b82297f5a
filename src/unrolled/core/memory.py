"""Memory of the process."""

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

__all__ = ["device_memory", "free_memory", "keep_freed_memory"]

# Parameters of mallopt, from malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> bool:
    """Ask the C library to keep freed memory for the next allocation; whether it could be asked.

    A training step frees and allocates the same large tensors again and again. By default glibc gives each back to the
    system and gets it anew, page by page zeroed. Only for a process of our own: it lasts, and costs the process its
    peak memory.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # a C library other than glibc
        return False
    return bool(mallopt(_MMAP_THRESHOLD, 1 << 30)) and bool(mallopt(_TRIM_THRESHOLD, (1 << 31) - 1))


def free_memory() -> int | None:
    """Bytes that a program can still have without swapping; None where the system does not say."""
    try:
        with Path("/proc/meminfo").open(encoding="ascii") as file:
            found = [int(line.split()[1]) for line in file if line.startswith("MemAvailable:")]
    except OSError:
        return None
    return found[0] * 1024 if found else None


def device_memory(device: Any) -> int | None:
    """Bytes that this process can still have on a device; of a CPU its part of the machine's, where a launcher started
    several. None where the system does not say.

    Args:
        device: a ``torch.device``.
    """
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    free, beside = free_memory(), os.environ.get("LOCAL_WORLD_SIZE", "1")
    return None if free is None else free // max(1, int(beside) if beside.isdecimal() else 1)
