"""The folder for what can be made again: corpora, token files, the native library."""

import os
from pathlib import Path

import platformdirs

from unrolled.core.errors import UsageError
from unrolled.core.files import make_folder

__all__ = ["cache_folder", "cache_root"]


def cache_root() -> Path:
    """``$UNROLLED_CACHE``, or the user's cache folder; it need not exist."""
    return Path(os.environ.get("UNROLLED_CACHE") or platformdirs.user_cache_dir("unrolled"))


def cache_folder(*parts: str) -> Path:
    """A folder below :func:`cache_root`, created if missing.

    Raises:
        UsageError: the folder cannot be created or written.
    """
    try:
        return make_folder(cache_root().joinpath(*parts))
    except UsageError as error:
        raise UsageError(f"{str(error).rstrip('.')} by setting UNROLLED_CACHE.") from error
