"""Texts with labels: the binary Stanford Sentiment Treebank, and files of one's own."""

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from unrolled.core.errors import UsageError
from unrolled.core.registry import unknown_name
from unrolled.data.labelled.base import LabelledConfig, LabelledSource, LabelledSplit
from unrolled.data.labelled.reading import find_sst2, read_rows

__all__ = ["Files", "FilesConfig", "Sst2", "Sst2Config"]


class _Texts(LabelledSource):
    kind = "text"

    def splits(self) -> dict[str, LabelledSplit]:
        """See :class:`LabelledSource`; texts are for a tokenizer."""
        raise NotImplementedError

    def _numbered(self, rows: dict[str, list[tuple[str, str]]]) -> dict[str, tuple[list[str], np.ndarray]]:
        number = {name: index for index, name in enumerate(self.classes)}
        for split, found in rows.items():
            if odd := next((label for _, label in found if label not in number), None):
                raise unknown_name(f"label in the {split} rows:", odd, self.classes)
        return {
            split: ([text for text, _ in found], np.array([number[label] for _, label in found], np.int64))
            for split, found in rows.items()
        }


class Sst2Config(LabelledConfig):
    """Settings of the binary Stanford Sentiment Treebank: none."""

    name: Literal["sst2"] = "sst2"


class Sst2(_Texts):
    """Sentences of film reviews, negative or positive (Socher et al. 2013), 6,920 of training, 872 and 1,821; see
    :func:`unrolled.data.labelled.reading.find_sst2`."""

    Config = Sst2Config
    classes = ("negative", "positive")

    def texts(self) -> dict[str, tuple[list[str], np.ndarray]]:
        """See :class:`LabelledSource`."""
        names = {"0": "negative", "1": "positive"}
        rows = {}
        for split, path in zip(("train", "valid", "test"), find_sst2(), strict=True):
            found = read_rows(path)
            if odd := next((label for _, label in found if label not in names), None):
                raise unknown_name(f"label in {path}:", odd, names)
            rows[split] = [(text, names[label]) for text, label in found]
        return self._numbered(rows)


class FilesConfig(LabelledConfig):
    """Settings of files with labelled texts."""

    name: Literal["files"] = "files"
    path: str = Field(default="", description="training rows: .csv, .tsv or .jsonl, perhaps .gz, .bz2 or .xz")
    valid: str | None = Field(default=None, description="rows of validation (absent: every tenth of training)")
    test: str | None = Field(default=None, description="rows of test (absent: none)")
    text: str = Field(default="sentence", description="column or key of the text")
    label: str = Field(default="label", description="column or key of the label")


class Files(_Texts):
    """Rows of one's own. Labels are those of the training rows, in order of their text."""

    Config = FilesConfig
    config: FilesConfig

    def texts(self) -> dict[str, tuple[list[str], np.ndarray]]:
        """See :class:`LabelledSource`."""
        c = self.config
        if not c.path:
            raise UsageError("there is no file of labelled texts; set task.data.path.")
        rows = {"train": read_rows(Path(c.path), c.text, c.label)}
        if c.valid is None:
            rows["train"], rows["valid"] = (
                [row for place, row in enumerate(rows["train"]) if (place % 10 == 9) == held] for held in (False, True)
            )
            if not rows["valid"]:
                raise UsageError(f"{c.path} has too few rows to hold out a tenth; set task.data.valid.")
        for split, path in (("valid", c.valid), ("test", c.test)):
            if path is not None:
                rows[split] = read_rows(Path(path), c.text, c.label)
        self.classes = tuple(sorted({label for _, label in rows["train"]}))
        if len(self.classes) < 2:
            raise UsageError(f"all rows of {c.path} have one label; give rows of two at least.")
        return self._numbered(rows)
