"""Where corpora and derived files live on this machine."""

import os
from pathlib import Path

import platformdirs

from unrolled.core.errors import UsageError
from unrolled.core.files import make_folder

__all__ = ["cache_folder", "corpus_folders"]


def cache_folder(*parts: str) -> Path:
    """A folder below ``$UNROLLED_CACHE`` (default: the user's cache folder), created if missing.

    Raises:
        UsageError: the folder cannot be created or written.
    """
    root = Path(os.environ.get("UNROLLED_CACHE") or platformdirs.user_cache_dir("unrolled"))
    try:
        return make_folder(root.joinpath(*parts))
    except UsageError as error:
        raise UsageError(f"{str(error).rstrip('.')} by setting UNROLLED_CACHE.") from error


def corpus_folders() -> list[Path]:
    """Folders that may hold corpora, in the order of the search: ``$UNROLLED_DATA``, then the cache."""
    root = os.environ.get("UNROLLED_DATA")
    cache = Path(os.environ.get("UNROLLED_CACHE") or platformdirs.user_cache_dir("unrolled"))
    return [*([Path(root)] if root else []), cache / "corpora"]
