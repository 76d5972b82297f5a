"""What an adapter is: one thing that is done to a model at test time, in one file and one line of a table."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

from pydantic import Field
from torch import Tensor

from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.data import TokenSplit
from unrolled.data.walk import Progress
from unrolled.predict.base import Predictor
from unrolled.predict.static import NeuralPredictor
from unrolled.tokenizer import Tokenizer

__all__ = ["HEAD", "MEMORY", "READING", "Adapter", "AdapterConfig", "Search", "Source"]

HEAD, READING, MEMORY = 0, 10, 20
"""Places in the order in which adapters are applied: how the model's head is read; how its cells are read, or with
which weights, of which there is one way at a time; what is remembered beside it and mixed in."""


class AdapterConfig(Config):
    """Options of an adapter. A subclass sets ``name`` to the adapter's name in the table.

    Attributes:
        short: the option that a bare value sets, as in ``cache = 500``; None where there is none.
    """

    short: ClassVar[str | None] = None

    name: str = Field(description="of the adapter, in the table")


class Search(NamedTuple):
    """How the options of an adapter are chosen on validation text.

    grid: from the options given, what is tried in turn: values by dotted name, for the record, and the options with
    them. tokens: of validation text for each. patience: ends the search after so many without gain; None: never.
    """

    grid: Callable[[Any], Iterator[tuple[dict[str, float], AdapterConfig]]]
    tokens: int
    patience: int | None = None


class Source(Protocol):
    """What an adapter may ask of the run that a model comes from; nothing is read before it asks."""

    progress: Progress | None

    @property
    def kept(self) -> dict[str, Any]:
        """What adapters have made and may need again, as long as the run is open."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """That of the run."""
        ...

    def identity(self) -> Mapping[str, str]:
        """What the model is: checksums of its ``weights``, of its ``tokenizer``, of the training ``text`` and of its
        ``valid`` text; these two are empty where they are not known."""
        ...

    def side(self, name: str) -> Mapping[str, Tensor] | None:
        """Parameters of a module that was trained with the model and is no part of it; None where there is none."""
        ...

    def stored(
        self,
        kind: str,
        settings: Mapping[str, Any],
        make: Callable[[TokenSplit], dict[str, Tensor]],
        fits: Callable[[Mapping[str, Tensor]], bool],
        split: str = "train",
    ) -> dict[str, Tensor]:
        """Tensors that follow from weights, tokenizer, training text and settings: kept with the run, once made.

        Args:
            kind: names the folder. settings: plain JSON values. make: from the split.
            fits: whether what was found on disk is whole. split: train or valid.
        Raises:
            UsageError: they are absent, and so is the text.
        """
        ...


class Adapter(ABC):
    """Makes a predictor of a predictor. Nothing is kept on the class; see docs/adding-an-adapter.md.

    Attributes:
        Config: its options. EXAMPLES: options that cover what it does; each runs through the conformance suite.
        title: what messages call it, such as "a cache". place: in the chain, see :data:`READING`.
        reads_model: it reads the model's cells or weights in a way of its own, so that only one of these can be had.
        needs_hidden: it uses hidden states. gives_hidden: its predictions have them.
        neutral: options that change nothing, if there are such. search: how its options are chosen, or None.
    """

    Config: ClassVar[type[AdapterConfig]]
    EXAMPLES: ClassVar[tuple[AdapterConfig, ...]] = ()
    title: ClassVar[str]
    place: ClassVar[int]
    reads_model: ClassVar[bool] = False
    needs_hidden: ClassVar[bool] = False
    gives_hidden: ClassVar[bool] = True
    neutral: ClassVar[AdapterConfig | None] = None
    search: ClassVar[Search | None] = None

    @classmethod
    @abstractmethod
    def apply(cls, inner: Predictor, config: Any, source: Source | None) -> Predictor:
        """The predictor around, or in place of, ``inner``.

        Args:
            inner: the model as it is, or what adapters before this one made of it.
            config: of the class ``Config``. source: the run, where there is one.
        Raises:
            UsageError: this model cannot be adapted so.
        """

    @classmethod
    def plain(cls, inner: Predictor) -> NeuralPredictor:
        """``inner`` as a neural model that nobody has adapted but at the head. Raises UsageError where it is none."""
        if type(inner) is not NeuralPredictor:
            raise UsageError(
                f"{cls.title} needs a neural model, and this is a count model, which has no neural weights; leave out "
                f"{cls.name()}."
            )
        return inner

    @classmethod
    def name(cls) -> str:
        """In the table."""
        return cls.Config.model_fields["name"].default
