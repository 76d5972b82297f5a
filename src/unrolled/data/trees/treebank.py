"""Files of trees: bracketed ones with labels, and dependencies."""

from abc import abstractmethod
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from unrolled.core.errors import UsageError
from unrolled.data.places import corpus_folders
from unrolled.data.trees.base import Tree
from unrolled.data.trees.bracketed import bracketed, read_bracketed
from unrolled.data.trees.conllu import read_conllu
from unrolled.data.trees.source import TreeConfig, TreeSource, check_labels, classes_of

__all__ = ["Dependencies", "DependenciesConfig", "Treebank", "TreebankConfig"]


class _FilesConfig(TreeConfig):
    valid: str | None = Field(default=None, description="trees of validation (absent: every tenth of training)")
    test: str | None = Field(default=None, description="trees of test (absent: none)")


class _Files(TreeSource):
    @abstractmethod
    def read(self, path: Path) -> list[Tree]:
        """The trees of a file."""

    def of_files(self, paths: dict[str, str | None]) -> dict[str, list[Tree]]:
        """Trees by split; what is trained on gives every tenth where there is no file of validation."""
        found = {split: self.read(Path(path)) for split, path in paths.items() if path is not None}
        if "valid" not in found:
            found["train"], found["valid"] = (
                [tree for place, tree in enumerate(found["train"]) if (place % 10 == 9) == held]
                for held in (False, True)
            )
            if not found["valid"]:
                raise UsageError(f"{paths['train']} has too few trees to hold out a tenth; set task.data.valid.")
        self.classes = classes_of(found["train"])
        if len(self.classes) < 2:
            raise UsageError(f"all trees of {paths['train']} have one label; give trees of two at least.")
        check_labels(found, self.classes)
        return found


class TreebankConfig(_FilesConfig):
    """Settings of files of bracketed trees."""

    name: Literal["treebank"] = "treebank"
    path: str = Field(default="", description="training trees, one a line, perhaps .gz, .bz2 or .xz")
    nodes: Literal["root", "all"] = Field(
        default="root", description="which labels are learned: of whole trees, or of every node"
    )


class Treebank(_Files):
    """Bracketed trees of one's own, ``(3 (2 It) (4 good))``; see :func:`read_bracketed`. Labels are those of the
    training trees, in order of their text."""

    Config = TreebankConfig
    config: TreebankConfig

    def read(self, path: Path) -> list[Tree]:
        """See :class:`_Files`."""
        found = read_bracketed(path)
        return found if self.config.nodes == "all" else [tree.rooted() for tree in found]

    def splits(self) -> dict[str, list[Tree]]:
        """See :class:`TreeSource`."""
        if not self.config.path:
            raise UsageError("there is no file of trees; set task.data.path.")
        return self.of_files({"train": self.config.path, "valid": self.config.valid, "test": self.config.test})

    def tree(self, line: str) -> Tree:
        """See :class:`TreeSource`."""
        return bracketed(line, f"{line[:60]!r}")


class DependenciesConfig(_FilesConfig):
    """Settings of files of dependencies."""

    name: Literal["dependencies"] = "dependencies"
    path: str | None = Field(
        default=None,
        description="training sentences in CoNLL-U, perhaps .gz, .bz2 or .xz (absent: the English Web Treebank of "
        "Universal Dependencies)",
    )
    subtypes: bool = Field(default=False, description="tell relations such as nmod:poss and nmod apart")


class Dependencies(_Files):
    """Dependency trees: a word at every node, whose label is its relation to its head, to be told from the words below
    it. Cells that read inner words serve (``child_sum_tree_lstm``), others with ``task.binary``."""

    Config = DependenciesConfig
    config: DependenciesConfig

    def read(self, path: Path) -> list[Tree]:
        """See :class:`_Files`."""
        return read_conllu(path, self.config.subtypes)

    def splits(self) -> dict[str, list[Tree]]:
        """See :class:`TreeSource`."""
        c = self.config
        if c.path is not None:
            return self.of_files({"train": c.path, "valid": c.valid, "test": c.test})
        if c.valid is not None or c.test is not None:
            raise UsageError("task.data.valid and task.data.test go with task.data.path; set it, or leave them out.")
        return self.of_files(dict(zip(("train", "valid", "test"), _find_english(), strict=True)))

    def tree(self, line: str) -> Tree:
        """See :class:`TreeSource`; a line has no heads."""
        raise UsageError("a line of text has no dependencies; measure files in CoNLL-U with `unrolled eval`.")


def _find_english() -> list[Any]:
    for folder in corpus_folders():
        for end in (".conllu", ".conllu.gz"):
            paths = [folder / "ud-english-ewt" / f"en_ewt-ud-{split}{end}" for split in ("train", "dev", "test")]
            if all(path.is_file() for path in paths):
                return [str(path) for path in paths]
    raise UsageError(
        "the English Web Treebank is not on this machine; put en_ewt-ud-train.conllu, -dev and -test of "
        "github.com/UniversalDependencies/UD_English-EWT into the folder ud-english-ewt below $UNROLLED_DATA, or set "
        "task.data.path."
    )
