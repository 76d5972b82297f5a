"""How large a language model would be, and how much text it would read, counted at once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from unrolled.core.errors import UsageError
from unrolled.core.graph import Graph
from unrolled.core.parameters import matching_parameters
from unrolled.data.table import CORPORA
from unrolled.model import LanguageModel, ModelConfig
from unrolled.runs import RunConfig
from unrolled.task import Size

__all__ = ["Build", "KnownText", "facts_of", "lm_of", "lm_size", "published_text"]

Build = Callable[[ModelConfig], LanguageModel]
"""From the settings of a model to the model."""

# Two vocabularies, from which the share of each id in the parameters follows.
_FEW, _MANY = 50_000, 60_000


class KnownText(NamedTuple):
    """Number of ids, and of training tokens; each None where unknown."""

    vocabulary: int | None
    tokens: int | None


def published_text(config: RunConfig) -> KnownText:
    """What is known of a text that is absent: the recipe's vocabulary, and the published count of a known corpus."""
    spec = None if config.corpus.own else CORPORA.get(config.corpus.label)
    published = spec.published.get("train") if spec else None
    same = spec is not None and config.tokenizer is not None and config.tokenizer.name == spec.tokenizer  # type: ignore[attr-defined]
    tokens = published.tokens if published and (config.tokenizer is None or same) else None
    return KnownText(config.vocabulary, tokens)


def lm_size(config: RunConfig, text: KnownText, note: str | None) -> Size:
    """Size of the model and its text.

    Args:
        note: what is to be said of an absent text.
    Raises:
        UsageError: whatever is wrong with the model.
    """
    per_batch = config.stream.columns * config.stream.window
    if text.vocabulary is None:
        return Size(_facts_of_any(config), None, None, text.tokens, per_batch, note)
    facts = facts_of(config, lm_of(text.vocabulary))
    return Size(facts, facts["parameters"], facts["flops_per_token"], text.tokens, per_batch, note)


def lm_of(vocabulary: int) -> Build:
    """What makes models of texts of so many ids."""

    def build(config: ModelConfig) -> LanguageModel:
        own = config.with_graph(lambda: Graph(vocabulary, ()))  # what lies between nodes does not matter here
        return LanguageModel(own, vocabulary)

    return build


def facts_of(config: RunConfig, build: Build) -> dict[str, Any]:
    """Size of the model that ``build`` makes; JSON values."""
    with torch.device("meta"):
        model = build(config.model)
    trained = matching_parameters(model, config.train.trainable)
    return {
        "parameters": model.num_params(),
        "trainable_parameters": sum(p.numel() for p in trained.values()),
        "vocabulary": model.vocab_size,
        "flops_per_token": model.flops_per_token(),
        "state_numbers": sum(layer.state_size() for layer in model.stack.cells()),
        "largest_group": _largest_group(model),
        "widths": list(model.config.layer_widths()),
        "columns": config.stream.columns,
        "window": config.stream.window,
    }


def _largest_group(model: LanguageModel) -> int:
    """Parameters that are whole at once where processes hold parts of them: a cell's, or all that is no cell's."""
    cells = [sum(p.numel() for p in cell.parameters()) for cell in model.stack.cells()]
    return max([model.num_params() - sum(cells), *cells])


def _facts_of_any(config: RunConfig) -> dict[str, Any]:
    """Size of a model whose vocabulary the text would tell: what the model has without it, and for each id."""
    try:
        few, many = facts_of(config, lm_of(_FEW)), facts_of(config, lm_of(_MANY))
    except UsageError as error:
        raise UsageError(f"{str(error).rstrip('.')}; state the size with --set vocabulary=NUMBER.") from error
    per_id = (many["parameters"] - few["parameters"]) / (_MANY - _FEW)
    fixed = few["parameters"] - per_id * _FEW
    shown = f"{fixed:,.0f} and {per_id:,.0f} for each id of the vocabulary (--set vocabulary=NUMBER adds them up)"
    return {**few, "vocabulary": None, "parameters": shown, "trainable_parameters": None, "flops_per_token": None}
