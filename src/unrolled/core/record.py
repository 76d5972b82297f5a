"""What a run must say about itself: code, machine, time."""

import functools
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

__all__ = ["cpu_seconds", "environment", "wall_seconds"]

_IMPORTED = time.time()


def cpu_seconds() -> float:
    """User + system seconds of all threads of this process and its finished children, since it started."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def wall_seconds() -> float:
    """Seconds since this process first imported this module; the command line does so first of all."""
    return time.time() - _IMPORTED


def environment() -> dict[str, Any]:
    """Versions and hardware, as plain JSON values."""
    import torch

    import unrolled

    return {
        "unrolled": unrolled.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _cpu_name() -> str:
    if sys.platform.startswith("linux"):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@functools.cache
def _commit() -> str | None:
    """The git commit of the source tree, with '+' when it has local changes; None for an installed wheel."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    try:
        asked = ["git", "--no-optional-locks", "-C", str(root)]
        head, status = (
            subprocess.run([*asked, *words], capture_output=True, text=True, timeout=5)
            for words in (("rev-parse", "--short", "HEAD"), ("status", "--porcelain"))
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return head.stdout.strip() + ("+" if status.stdout.strip() else "") if head.returncode == 0 else None
