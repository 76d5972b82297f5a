"""The native library: C++ kernels for CPUs, built by ``unrolled build``. Without it everything works, slower."""

from unrolled.kernels.cpu.build import Built, build, find_compiler, library_path
from unrolled.kernels.cpu.library import (
    Call,
    Library,
    Products,
    beats_torch,
    forget_library,
    instruction_sets,
    library,
    why_no_library,
)

__all__ = [
    "Built",
    "Call",
    "Library",
    "Products",
    "beats_torch",
    "build",
    "find_compiler",
    "forget_library",
    "instruction_sets",
    "library",
    "library_path",
    "why_no_library",
]
