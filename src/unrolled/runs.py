"""Run directories: what training writes and everything else reads."""

import os
import re
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field

from unrolled.core import tree
from unrolled.core.config import Config, VersionedConfig
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import read_json
from unrolled.core.registry import unknown_name
from unrolled.counts import KneserNeyConfig, NgramModel, load_ngrams
from unrolled.data import Corpus, CorpusConfig, StreamConfig, TokenSplit, corpus_named, open_corpus
from unrolled.data.spec import WHOLE
from unrolled.kernels.dispatch import Compute
from unrolled.model import LanguageModel, ModelConfig
from unrolled.model.published import LAYOUTS, load_published
from unrolled.tokenizer import AnyTokenizerConfig, Tokenizer, load_tokenizer
from unrolled.tokenizer.encode import encode_corpus

__all__ = [
    "CONFIG",
    "MODEL",
    "RECORD",
    "TOKENIZER",
    "PublishedFigure",
    "Run",
    "RunConfig",
    "WeightsConfig",
    "arpa_words",
    "pick_device",
]

CONFIG, MODEL, TOKENIZER, RECORD = "config.json", "model.safetensors", "tokenizer.json", "record.json"
STATES, STATE_TENSORS = "train_state", "tensors.safetensors"
_STATE_NAME = re.compile(r"\d{9}")


class PublishedFigure(Config):
    """A published figure of the system that a recipe states: what to compare with, and how it was measured."""

    system: str = Field(description="name of the system, with what was added (fine-tuned, dynamic evaluation...)")
    metric: Literal["perplexity", "bits per character"] = Field(description="perplexity is per token")
    valid: float | None = Field(default=None, description="on the validation split")
    test: float | None = Field(default=None, description="on the test split")
    parameters: str = Field(description="number of parameters as published, such as 24M")
    protocol: str = Field(description="how it was measured, as far as known")
    source: str = Field(description="where it was published")

    def __str__(self) -> str:
        """One readable line."""
        shown = [
            f"{split} {value:g}" for split, value in (("valid", self.valid), ("test", self.test)) if value is not None
        ]
        return f"{self.system}, {self.parameters}: {', '.join(shown)} {self.metric} ({self.protocol}; {self.source})"


class WeightsConfig(Config):
    """Weights to begin with, in place of random ones."""

    file: str = Field(description="safetensors file")
    layout: str = Field(
        default="unrolled",
        description="unrolled (model.safetensors of a run), or that of a published system: awd-lstm, awd-qrnn, mos, "
        "sentiment-mlstm; for a count model arpa",
    )

    def load(self, model: LanguageModel) -> None:
        """Copy the weights into a model. Raises UsageError or UnrolledError in one sentence when they do not fit."""
        if self.layout == "unrolled":
            load_weights(model, Path(self.file))
        elif self.layout not in LAYOUTS:
            raise unknown_name("layout", self.layout, ["unrolled", *LAYOUTS])
        elif not Path(self.file).is_file():
            raise UsageError(f"there are no weights at {self.file}; give a safetensors file.")
        else:
            tensors = tree.load_tensors(Path(self.file))
            tree.check_numbers(tensors, Path(self.file))
            load_published(model, tensors, self.layout)


class RunConfig(VersionedConfig):
    """What every reader of a run needs. Training's own part is kept as it is (see unrolled.train)."""

    kind: ClassVar[str] = "unrolled run"

    title: str = Field(default="", description="one line about the experiment")
    corpus: CorpusConfig = Field(default=CorpusConfig(), description="the text")
    tokenizer: AnyTokenizerConfig | None = Field(
        default=None, description="text to tokens (absent: the corpus's convention)"
    )
    stream: StreamConfig = Field(default=StreamConfig(), description="how the text is cut into windows")
    vocabulary: int | None = Field(
        default=None, ge=1, description="number of ids that the published figure used; another one is refused"
    )
    published: tuple[PublishedFigure, ...] = Field(
        default=(), description="published figures of this system on this corpus"
    )
    model: ModelConfig = Field(default=ModelConfig(), description="the language model")
    counts: KneserNeyConfig | None = Field(
        default=None, description="a count model in place of the neural one (Kneser-Ney)"
    )
    weights: WeightsConfig | None = Field(default=None, description="weights to begin with (absent: random ones)")
    train: Any = Field(default=None, description="training")
    seed: int = Field(default=1, ge=0, description="the one seed of the run")

    def check_vocabulary(self, corpus: str, size: int) -> None:
        """Raises UsageError where the recipe pins another number of ids than the text gives."""
        if self.vocabulary not in (None, size):
            raise UsageError(
                f"corpus {corpus} gives {size:,} ids where the recipe states {self.vocabulary:,}; "
                "bring the text that the recipe names, or train on another one with --corpus."
            )


def pick_device(name: str = "auto") -> torch.device:
    """``auto`` is a CUDA GPU where there is one, else the CPU. Raises UsageError for an absent device."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {name!r} is not available here; use --device cpu or auto.") from error
    return device


class Run:
    """An opened run directory.

    Args:
        path: the directory.
        device: where to put the model. backend, precision: in place of the run's own.
        weights: ``saved``, those of the best checkpoint, averaged where training averages; or ``raw``, those that
            training would go on from.

    Attributes:
        kept: what readers have made from the run and may need again.
    Raises:
        UsageError: no such run. UnrolledError: a broken, foreign or future file in it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        device: str = "auto",
        backend: str | None = None,
        precision: str | None = None,
        weights: Literal["saved", "raw"] = "saved",
    ):
        if weights not in ("saved", "raw"):
            raise unknown_name("weights", weights, ["saved", "raw"])
        self.weights_kind = weights
        self.path = Path(path)
        if not (self.path / CONFIG).is_file():
            raise UsageError(
                f"{self.path} is not a run: it has no {CONFIG}; give the folder that `unrolled train` wrote."
            )
        self.config = RunConfig.load(self.path / CONFIG)
        self.device = pick_device(device)
        changes = {key: value for key, value in (("backend", backend), ("precision", precision)) if value is not None}
        self.kept: dict[str, Any] = {}
        self._compute = Compute.parse({**self.config.model.compute.model_dump(), **changes})

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer the model was trained with."""
        return load_tokenizer(self.path / TOKENIZER)

    @cached_property
    def model(self) -> LanguageModel:
        """The model, in evaluation mode. Raises UsageError for a count model, which has no weights."""
        if self.config.counts is not None:
            raise UsageError(f"{self.path} is a count model, which has no neural weights; use a run of a neural model.")
        config = self.config.model.model_copy(update={"compute": self._compute})
        model = LanguageModel(config, self.tokenizer.vocab_size)
        load_weights(model, self.weights_file, "model." if self.weights_kind == "raw" else "")
        return model.to(self.device).eval()

    @cached_property
    def ngrams(self) -> NgramModel:
        """The tables of a count model. Raises UnrolledError for damaged ones."""
        return load_ngrams(self.path)

    @property
    def weights_file(self) -> Path:
        """Where the model's weights are. Raises UnrolledError when the run keeps no training state."""
        if self.weights_kind == "saved":
            return self.path / MODEL
        states = saved_states(self.path)
        if not states:
            raise UnrolledError(f"{self.path} has no training state, which holds the raw weights; use the saved ones.")
        return states[-1] / STATE_TENSORS

    @cached_property
    def record(self) -> dict[str, Any]:
        """The run record, empty where training has not written one yet."""
        value = read_json(self.path / RECORD) if (self.path / RECORD).exists() else {}
        step, texts = (value.get("best_step"), value.get("checksums", {})) if isinstance(value, dict) else ("", {})
        sound = step is None or (isinstance(step, int) and 0 <= step <= 2**53)
        if not sound or not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
            raise UnrolledError(f"{self.path / RECORD} is no run record: it is damaged, or of another program.")
        return value

    def provenance(self) -> dict[str, Any]:
        """What was measured: run, tokenizer, weights, number of parameters (None for a count model), training step."""
        return {
            "run": str(self.path),
            "tokenizer": self.tokenizer.fingerprint(),
            "weights": self.weights_kind,
            "parameters": None if self.config.counts is not None else self.model.num_params(),
            "step": self.record.get("best_step"),
        }

    def splits(self, corpus: CorpusConfig | str | None = None) -> tuple[Corpus, dict[str, TokenSplit]]:
        """A corpus (its config, name or path; absent: the run's own) as tokens of this run's tokenizer."""
        opened = self._open(corpus, False)
        return opened, encode_corpus(opened, self.tokenizer)

    def to_measure(
        self, split: str, corpus: CorpusConfig | str | None = None
    ) -> tuple[str, TokenSplit, dict[str, TokenSplit]]:
        """A split of a corpus: the corpus's name, the split, and all splits.

        Args:
            split: train, valid or test; or whole, all of a text of your own.
            corpus: see :meth:`splits`.
        Raises:
            UsageError: no such split.
        """
        opened = self._open(corpus, split == WHOLE)
        splits = encode_corpus(opened, self.tokenizer)
        if split not in splits:
            raise UsageError(f"corpus {opened.name} has no split {split!r}; it has: {', '.join(splits)}.")
        return opened.name, splits[split], splits

    def _open(self, corpus: CorpusConfig | str | None, whole: bool) -> Corpus:
        if isinstance(corpus, str):
            corpus = corpus_named(corpus)
        return open_corpus(corpus if corpus is not None else self.config.corpus, whole)


def arpa_words(tokenizer: Tokenizer) -> list[str]:
    """A name for every id that the ARPA format can hold: its text, where white space and bytes that are no text are
    written as ``<0x20>``. A character that is ``<`` stays as it is."""
    names: list[str] = []
    for index, piece in enumerate(tokenizer.pieces):
        text = piece.decode("utf-8", "backslashreplace") if piece else "<eos>"
        name = "".join(f"<0x{ord(sign):02x}>" if sign.isspace() else sign for sign in text)
        names.append(name if index != tokenizer.end_id else "<eos>")
    return names


def saved_states(run: Path) -> list[Path]:
    """The folders of a run's training states, oldest first."""
    folder = run / STATES
    return sorted(p for p in folder.iterdir() if _STATE_NAME.fullmatch(p.name)) if folder.is_dir() else []


def load_weights(model: LanguageModel, path: Path, prefix: str = "") -> None:
    """Copy saved weights into a model. Raises UnrolledError in one sentence when they do not fit.

    Args:
        prefix: of the names that count in the file; others are left alone.
    """
    if not path.is_file():
        raise UnrolledError(f"{path} does not exist: the run has no checkpoint yet.")
    found, own = tree.load_tensors(path), weights(model)
    saved = {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}
    if set(saved) != set(own) or any(saved[name].shape != own[name].shape for name in own):
        odd = sorted(set(saved) ^ set(own)) or [n for n in own if saved[n].shape != own[n].shape]
        raise UnrolledError(f"{path} does not fit the run's config (parameter {odd[0]!r}); it belongs to another run.")
    tree.check_numbers(saved, path)
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(saved[name])


def weights(model: LanguageModel) -> dict[str, torch.Tensor]:
    """Name -> parameter, a tied matrix once."""
    return dict(model.named_parameters())
