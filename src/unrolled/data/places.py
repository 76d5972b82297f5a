"""Where corpora live on this machine."""

import os
from pathlib import Path

from unrolled.core.places import cache_root

__all__ = ["corpus_folders"]


def corpus_folders() -> list[Path]:
    """Folders that may hold corpora, in the order of the search: ``$UNROLLED_DATA``, then the cache."""
    root = os.environ.get("UNROLLED_DATA")
    return [*([Path(root)] if root else []), cache_root() / "corpora"]
