"""Packages that only some ways need."""

import importlib
import importlib.util

from unrolled.core.errors import UnrolledError

__all__ = ["require"]


def require(extra: str, *packages: str) -> None:
    """Raises UnrolledError in one sentence where a package is not installed.

    Args:
        extra: by which it is installed. packages: names that Python imports them by.
    """
    for name in packages:
        try:
            found = importlib.util.find_spec(name)
        except ValueError:  # a module in its place that was made by hand
            found = None
        if found is None:
            raise UnrolledError(f'this needs {name}; install it with: pip install "unrolled[{extra}]".')
