"""Dynamic evaluation: a model that learns from the text as it reads it."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import model_validator
from torch import Tensor

from unrolled.core import tree
from unrolled.core.parameters import matching_parameters
from unrolled.model import LanguageModel, ModelState
from unrolled.optim.dynamic import DynamicConfig, DynamicRule, dynamic_preset
from unrolled.optim.gates import Gates
from unrolled.predict.adapter import READING, Adapter, AdapterConfig, Search, Source
from unrolled.predict.base import Prediction, Predictor, Scores
from unrolled.predict.gating import GATES, gates_of
from unrolled.predict.gradients import gradient_statistics
from unrolled.predict.of_model import ModelPredictor

_RMS = ("epsilon", "normalize", "statistic", "columns", "batches")

__all__ = ["Dynamic", "DynamicAdapterConfig", "DynamicPredictor", "DynamicState"]


class DynamicState(NamedTuple):
    """Where each row is in its segment.

    start: the model's state before the segment's first input. here: before the next input. last: (batch, 1) the next
    input. inputs, targets: (batch, segment) ids of the segment under way; flags: (batch, segment) which inputs begin a
    text. fill: (batch, 1) how many of them are filled; rows fill together. begins: (batch, 1) whether the next input
    begins a text.
    """

    start: ModelState
    here: ModelState
    last: Tensor
    inputs: Tensor
    targets: Tensor
    flags: Tensor
    fill: Tensor
    begins: Tensor


class DynamicPredictor(ModelPredictor):
    """A language model that makes one update of its parameters after each segment it has read.

    A segment is scored with the parameters of before and then learned from, so every token is predicted from the past
    alone. The recurrent state is carried, and gradients stop at the segment's beginning. Rows share the parameters:
    several columns learn from one another, which is another protocol than one column.

    Unlike other predictors it changes what it is made of: use it as a context manager, which gives the model its
    trained parameters back, whatever happens inside, and read one text from one state.

    Args:
        model: put in evaluation mode: no dropout, also not on weights.
        start_id: the tokenizer's ``start_id``.
        config: the rule. statistics: see :func:`gradient_statistics`; needed by ``rms`` and ``gated``.
        temperature: divides the logits of what is scored and of what is learned from.
        gates: needed by ``gated``, with the checksum of the text that they were learned on.
    Raises:
        UsageError: a pattern of parameters that matches none; missing statistics.
    """

    kind = "dynamic"
    lockstep, independent = True, False

    def __init__(
        self,
        model: LanguageModel,
        start_id: int,
        config: DynamicConfig,
        statistics: Mapping[str, Tensor] | None = None,
        temperature: float = 1.0,
        gates: tuple[Gates, str] | None = None,
    ):
        self.model = model.eval()
        self.vocab_size, self.start_id, self.config = model.vocab_size, start_id, config
        self._temperature, self._head = temperature, model.head.tempered(temperature)
        self.holds = frozenset({gates[1]} - {""} if gates else ())
        adapting = matching_parameters(model, config.parameters)
        self._rule = DynamicRule(config, adapting, statistics, gates[0] if gates else None)
        self._ahead: tuple[DynamicState, Any] | None = None

    def restore(self) -> None:
        """Give the model its trained parameters back."""
        self._ahead = None
        self._rule.restore()

    @property
    def options(self) -> dict[str, Any]:
        """See :attr:`Predictor.options`."""
        used = self.config.model_dump(mode="json", exclude={"name"})
        unread = {"rms": GATES, "gated": _RMS[:3]}.get(self.config.rule, (*GATES, *_RMS))
        for name in unread:
            del used[name]
        if self.config.rule == "sgd":
            del used["decay"]
        return {"dynamic": used, **({} if self._temperature == 1.0 else {"temperature": self._temperature})}

    def begin(self, batch: int, first: Tensor | None = None) -> DynamicState:
        """See :meth:`Predictor.begin`. The parameters stay as they are, see :meth:`restore`."""
        if first is None:
            first = torch.full((batch,), self.start_id, device=self.device)
        start, shape = self.model.initial_state(batch), (batch, self.config.segment)
        ids = torch.zeros(shape, dtype=torch.int64, device=self.device)
        return DynamicState(
            start, start, first.unsqueeze(1), ids, ids, torch.zeros(shape, dtype=torch.bool, device=self.device),
            torch.zeros(batch, 1, dtype=torch.int64, device=self.device),
            torch.zeros(batch, 1, dtype=torch.bool, device=self.device),
        )  # fmt: skip

    def restarted(self, state: DynamicState, rows: Tensor) -> DynamicState:
        """See :meth:`Predictor.restarted`; the segment goes on, since its rows fill together."""
        here = tree.reset_rows(state.here, self.model.initial_state(len(rows)), rows)
        chosen = rows.unsqueeze(1)
        last = state.last.masked_fill(chosen, self.start_id)
        return state._replace(here=here, last=last, begins=state.begins | chosen)

    @torch.no_grad()
    def predict(self, state: DynamicState) -> Prediction:
        """See :meth:`Predictor.predict`."""
        out = self.model(state.last, state.here)
        self._ahead = state, out  # observing the token needs the same step again
        hidden = out.raw[:, -1]
        return Prediction(self._head.log_prob(hidden, state.here.head)[0], hidden)

    def observe(self, state: DynamicState, ids: Tensor) -> DynamicState:
        """See :meth:`Predictor.observe`; learns when the segment is full."""
        return self.window(state, ids.unsqueeze(1)).state

    def consume(self, state: DynamicState, ids: Tensor) -> DynamicState:
        """See :meth:`Predictor.consume`; learns from the tokens."""
        return self.window(state, ids).state if ids.shape[1] else state

    def window(self, state: DynamicState, ids: Tensor, reset: Tensor | None = None) -> Scores:
        """See :meth:`Predictor.window`. A reset restores the state, not the parameters."""
        parts, hiddens, low = [], [], 0
        while low < ids.shape[1]:
            fill = int(state.fill[0])
            high = min(low + self.config.segment - fill, ids.shape[1])
            targets = ids[:, low:high]
            flags = torch.zeros_like(targets, dtype=torch.bool) if reset is None else reset[:, low:high].clone()
            flags[:, :1] |= state.begins
            inputs = torch.cat([state.last, targets[:, :-1]], 1).masked_fill(flags, self.start_id)
            whole = fill == 0 and high - low == self.config.segment
            if whole:
                nll, hidden, state = self._learn(state.start, inputs, targets, flags)
            else:
                nll, hidden, state = self._read(state, inputs, targets, flags, fill)
            parts.append(nll)
            hiddens.append(hidden)
            low = high
        return Scores(torch.cat(parts, 1), torch.cat(hiddens, 1), state)

    @torch.no_grad()
    def _read(
        self, state: DynamicState, inputs: Tensor, targets: Tensor, flags: Tensor, fill: int
    ) -> tuple[Tensor, Tensor, DynamicState]:
        """Score a part of a segment, and learn from the whole when this completes it."""
        known, self._ahead = self._ahead, None
        if known is not None and known[0] is state and inputs.shape[1] == 1 and not bool(flags.any()):
            out = known[1]
        else:
            out = self.model(inputs, state.here, flags if bool(flags.any()) else None)
        _, nll, head = self._head.loss(out.raw, targets, None, state.here.head, flags)
        part = slice(fill, fill + inputs.shape[1])
        pending = state._replace(
            here=ModelState(out.state.cells, head),
            last=targets[:, -1:],
            inputs=_filled(state.inputs, part, inputs),
            targets=_filled(state.targets, part, targets),
            flags=_filled(state.flags, part, flags),
            fill=state.fill + inputs.shape[1],
            begins=torch.zeros_like(state.begins),
        )
        if part.stop == self.config.segment:
            pending = self._learn(pending.start, pending.inputs, pending.targets, pending.flags)[2]
        return nll, out.raw, pending

    @torch.enable_grad()
    def _learn(
        self, start: ModelState, inputs: Tensor, targets: Tensor, flags: Tensor
    ) -> tuple[Tensor, Tensor, DynamicState]:
        """Score a whole segment, then make one update on its loss."""
        self._ahead = None
        reset = flags if bool(flags.any()) else None
        out = self.model(inputs, start, reset)
        total, nll, head = self._head.loss(out.raw, targets, None, start.head, reset)
        self._rule.update(self._gradients(total, targets), float(total.detach()) / targets.numel())
        state = tree.detach(ModelState(out.state.cells, head))
        fresh = DynamicState(
            state, state, targets[:, -1:], torch.zeros_like(inputs), torch.zeros_like(inputs),
            torch.zeros_like(flags), torch.zeros_like(targets[:, :1]), torch.zeros_like(flags[:, :1]),
        )  # fmt: skip
        return nll.detach(), out.raw.detach(), fresh

    def _gradients(self, total: Tensor, targets: Tensor) -> dict[str, Tensor | None]:
        scale = targets.numel() if self.config.loss == "mean" else len(targets)
        names, values = zip(*self._rule.parameters.items(), strict=True)
        return dict(zip(names, torch.autograd.grad(total / scale, values, allow_unused=True), strict=True))


def _filled(buffer: Tensor, part: slice, values: Tensor) -> Tensor:
    """A copy of the buffer (batch, segment) with some of its columns set."""
    buffer = buffer.clone()
    buffer[:, part] = values
    return buffer


class DynamicAdapterConfig(AdapterConfig, DynamicConfig):
    """Options of dynamic evaluation; besides, the name of a ``preset`` that they begin from."""

    short: ClassVar[str | None] = "preset"

    name: Literal["dynamic"] = "dynamic"

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or "preset" not in value:
            return value
        if not isinstance(value["preset"], str):
            raise ValueError("a preset is given by its name")
        changes = {key: inner for key, inner in value.items() if key != "preset"}
        return {**dynamic_preset(value["preset"]).model_dump(), **changes}


# benkrause/dynamic-evaluation, its defaults being 5e-5 and 2e-3
_LR_FACTORS, _DECAY_FACTORS = (0.6, 0.8, 1.0, 1.2, 1.4, 2.0), (0.5, 1.0, 1.5, 2.5)
# wider, because the plain rules have no published scale
_SGD_FACTORS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


def _grid(config: DynamicAdapterConfig) -> Iterator[tuple[dict[str, float], AdapterConfig]]:
    # the published grid is given for segments of 5 tokens and scales with their length
    scale = config.segment / 5 if config.rule == "rms" else 1.0
    decays = (1.0,) if config.rule == "sgd" else _DECAY_FACTORS
    for decay, lr in itertools.product(decays, _LR_FACTORS if config.rule == "rms" else _SGD_FACTORS):
        values = {"lr": config.lr * lr * scale, "decay": config.decay * decay * scale}
        yield {f"dynamic.{name}": value for name, value in values.items()}, config.model_copy(update=values)


class Dynamic(Adapter):
    """Dynamic evaluation in place of the model that stays as it is."""

    Config = DynamicAdapterConfig
    EXAMPLES = (
        DynamicAdapterConfig(rule="sgd", segment=4, lr=0.1),
        DynamicAdapterConfig(rule="sgd_decay", segment=3, lr=0.1, decay=0.01),
        DynamicAdapterConfig(columns=2, lr=0.01),
        DynamicAdapterConfig(rule="gated", columns=2, segment=3, lr=1.0, decay=0.1, through=2, updates=3, hidden=4),
    )
    title = "dynamic evaluation"
    place = READING
    reads_model = True
    search = Search(_grid, tokens=30_000)

    @classmethod
    def apply(cls, inner: Predictor, config: Any, source: Source | None) -> Predictor:
        """See :meth:`Adapter.apply`; the rule ``rms`` asks the source for statistics of gradients."""
        plain = cls.plain(inner)
        statistics, gates = None, None
        if source and config.rule in ("rms", "gated"):
            statistics = _statistics(plain.model, plain.start_id, config, source)
            gates = gates_of(plain, config, statistics, source) if config.rule == "gated" else None
        return DynamicPredictor(plain.model, plain.start_id, config, statistics, plain.temperature, gates)


def _statistics(model: LanguageModel, start_id: int, config: DynamicConfig, source: Source) -> dict[str, Tensor]:
    """Gradient statistics of all parameters, whichever of them adapt: one file serves every choice."""
    whole = config.model_copy(update={"parameters": ("*",)})
    settings = {name: getattr(whole, name) for name in ("segment", "columns", "batches", "loss", "statistic")}
    shapes = {name: p.shape for name, p in model.named_parameters()}
    return source.stored(
        "statistics",
        settings,
        lambda split: gradient_statistics(model, start_id, split, whole, source.progress),
        lambda found: {name: value.shape for name, value in found.items()} == shapes,
    )
