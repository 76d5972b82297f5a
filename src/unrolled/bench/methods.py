"""Ways of writing that are more than a draw from one model's prediction. A further one is one class and one line."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

from pydantic import Field

from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.core.registry import Registry
from unrolled.evaluate import open_predictor
from unrolled.generate import (
    BeamConfig,
    Contrast,
    ContrastConfig,
    Guidance,
    GuidanceConfig,
    SamplerConfig,
    SpeculativeConfig,
    beam_search,
    generate,
    speculate,
    tree_search,
)
from unrolled.predict import Predictor
from unrolled.runs import Run
from unrolled.tokenizer import Tokenizer

__all__ = ["METHODS", "Method", "MethodConfig"]


class MethodConfig(Config):
    """Options of a method. A subclass fixes ``name``; ``short`` is the option that a bare value sets."""

    short: ClassVar[str | None] = None

    name: str = Field(description="of the method, in the table")


class Method(ABC):
    """Writes texts with a predictor.

    Attributes:
        Config: its options. draws: whether it draws, so that filters and the temperature have a part.
    """

    Config: ClassVar[type[MethodConfig]]
    draws: ClassVar[bool] = True

    def __init__(self, config: Any, tokenizer: Tokenizer):
        self.config, self.tokenizer = config, tokenizer

    def around(self, predictor: Predictor) -> Predictor:
        """What it writes with. Raises UsageError where this predictor cannot serve."""
        return predictor

    @abstractmethod
    def write(self, predictor: Predictor, sampler: SamplerConfig, texts: int, tokens: int) -> int:
        """Write ``texts`` texts from their beginning, of ``tokens`` tokens where they do not end before.

        Returns:
            how many tokens were written.
        """

    def other(self, path: str) -> Predictor:
        """The model of another run of the same vocabulary. Raises UsageError."""
        run = Run(path, "cpu")
        if run.tokenizer.symbols_checksum() != self.tokenizer.symbols_checksum():
            raise UsageError(f"{self.config.name} needs a run of the same vocabulary, and {path} has another.")
        return open_predictor(run, stepwise=True)


class DrawConfig(MethodConfig):
    """Options of draws: none."""

    name: Literal["draw"] = "draw"


class Draw(Method):
    """Draws from the prediction; all texts side by side."""

    Config = DrawConfig

    def write(self, predictor: Predictor, sampler: SamplerConfig, texts: int, tokens: int) -> int:
        """See :meth:`Method.write`."""
        found = generate(predictor, self.tokenizer, max_tokens=tokens, sampler=sampler, samples=texts)
        return sum(len(one.tokens) for one in found)


class GuidanceMethodConfig(MethodConfig):
    """Options of guidance, as of ``unrolled generate``."""

    short: ClassVar[str | None] = "weight"

    name: Literal["guidance"] = "guidance"
    weight: float = Field(default=0.5, gt=-1, description="how much further from what comes without the prompt")
    negative: str = Field(default="", description="what is read in place of the prompt; default: nothing")


class GuidanceMethod(Draw):
    """Draws from two readings of one model."""

    Config = GuidanceMethodConfig

    def around(self, predictor: Predictor) -> Predictor:
        """See :meth:`Method.around`; the prompt is the empty one."""
        config = GuidanceConfig(weight=self.config.weight, negative=self.config.negative)
        return Guidance(predictor, config.weight, 0, self.tokenizer.encode(config.negative))


class ContrastMethodConfig(ContrastConfig, MethodConfig):
    """Options of contrastive decoding, and the run of the weaker model."""

    short: ClassVar[str | None] = "run"

    name: Literal["contrast"] = "contrast"
    run: str = Field(description="folder of the weaker model's run")


class ContrastMethod(Draw):
    """Draws from a model's prediction less that of a weaker one."""

    Config = ContrastMethodConfig

    def around(self, predictor: Predictor) -> Predictor:
        """See :meth:`Method.around`."""
        config = ContrastConfig(weight=self.config.weight, plausible=self.config.plausible)
        return Contrast(predictor, self.other(self.config.run), config)


class BeamsMethodConfig(MethodConfig):
    """Options of beam search; its beams are as many as texts are asked for."""

    name: Literal["beams"] = "beams"
    groups: int = Field(default=1, ge=1, description="groups that are kept different; beams are divided among them")
    diversity: float = Field(default=0.0, ge=0, description="taken off what other groups chose")
    length: float = Field(default=1.0, description="exponent of the number of tokens that a sum is divided by")


class BeamsMethod(Method):
    """Beam search with as many beams as texts; a token is one of each beam."""

    Config = BeamsMethodConfig
    draws = False

    def write(self, predictor: Predictor, sampler: SamplerConfig, texts: int, tokens: int) -> int:
        """See :meth:`Method.write`."""
        config = BeamConfig.parse({**self.config.model_dump(exclude={"name"}), "beams": texts})
        found = beam_search(predictor, self.tokenizer, max_tokens=tokens, config=config, sampler=sampler)
        return texts * max(len(one.tokens) for one in found)


class SearchMethodConfig(MethodConfig):
    """Options of best-first search."""

    short: ClassVar[str | None] = "budget"

    name: Literal["search"] = "search"
    budget: int = Field(default=100, ge=0, description="distributions asked for beyond the greedy text")
    length: float = Field(default=0.0, description="exponent of the number of tokens that a sum is divided by")


class SearchMethod(Method):
    """Best-first search, one text after another."""

    Config = SearchMethodConfig
    draws = False

    def write(self, predictor: Predictor, sampler: SamplerConfig, texts: int, tokens: int) -> int:
        """See :meth:`Method.write`."""
        budget, length = self.config.budget, self.config.length
        found = [tree_search(predictor, self.tokenizer, "", tokens, budget, length, sampler).best for _ in range(texts)]
        return sum(len(one.tokens) for one in found)


class DraftMethodConfig(SpeculativeConfig, MethodConfig):
    """Options of a draft, and its run."""

    short: ClassVar[str | None] = "run"

    name: Literal["draft"] = "draft"
    run: str = Field(description="folder of the run that drafts")


class DraftMethod(Method):
    """Draws that another run drafts, one text after another."""

    Config = DraftMethodConfig

    def around(self, predictor: Predictor) -> Predictor:
        """See :meth:`Method.around`; the draft is read beside it."""
        self._draft = self.other(self.config.run)
        return predictor

    def write(self, predictor: Predictor, sampler: SamplerConfig, texts: int, tokens: int) -> int:
        """See :meth:`Method.write`."""
        config = SpeculativeConfig.parse(self.config.model_dump(exclude={"name", "run"}))
        found = [
            speculate(predictor, self._draft, self.tokenizer, "", tokens, config, sampler, sample=number)
            for number in range(texts)
        ]
        return sum(len(one.tokens) for one in found)


METHODS: "Registry[type[Method]]" = Registry(
    "method of writing",
    {
        "draw": f"{__name__}:Draw",
        "beams": f"{__name__}:BeamsMethod",
        "search": f"{__name__}:SearchMethod",
        "draft": f"{__name__}:DraftMethod",
        "guidance": f"{__name__}:GuidanceMethod",
        "contrast": f"{__name__}:ContrastMethod",
    },
)
