"""The native library: C++ kernels for CPUs, built by ``unrolled build``. Without it everything works, slower."""

from unrolled.kernels.cpu.build import Built, build, find_compiler, library_path
from unrolled.kernels.cpu.library import (
    Call,
    Library,
    Products,
    forget_library,
    instruction_sets,
    is_intel,
    library,
    why_no_library,
)

__all__ = [
    "Built",
    "Call",
    "Library",
    "Products",
    "build",
    "find_compiler",
    "forget_library",
    "instruction_sets",
    "is_intel",
    "library",
    "library_path",
    "why_no_library",
]
