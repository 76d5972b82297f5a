"""Files that come with the package beside its recipes: plans of comparisons, spaces of searches."""

import os
from pathlib import Path

from unrolled.core.config import read_toml
from unrolled.core.errors import UsageError
from unrolled.core.registry import unknown_name
from unrolled.train.recipes import recipes_folder

__all__ = ["find_shipped", "list_shipped"]


def list_shipped(folder: str) -> dict[str, str]:
    """Name -> title of every file of a folder of the recipes, such as ``plans``."""
    return {path.stem: str(read_toml(path).get("title", "")) for path in sorted(_files(folder))}


def _files(folder: str) -> list[Path]:
    return list((recipes_folder() / folder).glob("*.toml"))


def find_shipped(what: str, folder: str, name: str) -> Path:
    """A shipped file by its name, or any by its path.

    Args:
        what: that it is, for the sentence. folder: of the recipes.
    Raises:
        UsageError: neither; names the nearest one.
    """
    if name.endswith(".toml") or os.sep in name:
        if not Path(name).is_file():
            raise UsageError(
                f"there is no {what} {name}; shipped {what}s: {', '.join(list_shipped(folder)) or 'none'}."
            )
        return Path(name)
    path = recipes_folder() / folder / f"{name}.toml"
    if not path.is_file():
        raise unknown_name(what, name, list_shipped(folder))
    return path
