"""Small models with each memory, and a plain reading of a text with it."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.model import LanguageModel, ModelConfig
from unrolled.model.memory import MEMORIES, Memory, MemoryConfig
from unrolled.model.memory.base import Ended

__all__ = ["BATCH", "CASES", "STACKS", "TIME", "VOCABULARY", "Case", "make", "material", "plain"]

BATCH, TIME, VOCABULARY = 3, 17, 11
STACKS: dict[str, dict[str, Any]] = {
    "attention": {"cell": {"name": "transformer", "heads": 2, "context": 64, "factor": 1.0}},
    "residual": {"cell": "lstm", "stack": {"kind": "residual", "mlp": 1.0}},
}


class Case(NamedTuple):
    """One example of a memory in one stack."""

    cls: type[Memory]
    config: MemoryConfig
    stack: str = "attention"

    def __str__(self) -> str:
        return f"{self.config.name}{self.cls.EXAMPLES.index(self.config)}-{self.stack}"


CASES = [
    Case(MEMORIES[name], config, stack) for name in MEMORIES for config in MEMORIES[name].EXAMPLES for stack in STACKS
]


class registered:
    """A class of one's own in the table for a while."""

    def __init__(self, cls: type[Memory]):
        self.cls, self.name = cls, cls.EXAMPLES[0].name

    def __enter__(self) -> None:
        self.known = self.name in MEMORIES
        if not self.known:
            MEMORIES.add(self.name, self.cls)

    def __exit__(self, *_: object) -> None:
        if not self.known:
            MEMORIES.remove(self.name)


def make(case: Case, seed: int = 0, **changes: Any) -> LanguageModel:
    """A model of two layers in float64, every parameter of its memory drawn at random."""
    torch.manual_seed(seed)
    config = case.config.model_copy(update=changes)
    with registered(case.cls):
        shape = {"width": 8, "layers": 2, **STACKS[case.stack], "memory": config}
        model = LanguageModel(ModelConfig.model_validate(shape), VOCABULARY).double()
    assert model.memory is not None
    with torch.no_grad():
        for parameter in model.memory.parameters():
            parameter.normal_(0, 0.5)
    return model.eval()


def material(seed: int = 1) -> tuple[Tensor, Tensor]:
    """Ids, and resets at other places in each row."""
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, VOCABULARY, (BATCH, TIME), generator=g)
    reset = torch.zeros(BATCH, TIME, dtype=torch.bool)
    reset[0, 7] = reset[1, 5] = reset[1, 6] = reset[2, 13] = True
    return ids, reset


def plain(model: LanguageModel, ids: Tensor, reset: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Outputs and costs of each token, one row, one document, one segment and one token after another, each with calls
    of its own."""
    memory: Any = model.memory
    rows, costs = [], []
    for row in range(len(ids)):
        outputs, cost = [], []
        cells, held = model.initial_state(1).cells[:-1], memory.begin(1, model.device, model.dtype)
        for t in range(ids.shape[1]):
            if reset is not None and reset[row, t]:
                cells, held = model.initial_state(1).cells[:-1], memory.begin(1, model.device, model.dtype)
            around = _Layers(memory, held)
            if int(held.fill) == 0:
                if memory.config.state == "reset":
                    cells = model.initial_state(1).cells[:-1]
                prefix, places = memory.prefix(held), memory.places(held)
                if prefix is not None:
                    prefix = prefix if places is None else prefix[:, prefix.shape[1] - int(places) :]
                for i in range(0 if prefix is None else prefix.shape[1]):
                    _, cells = model.stack(prefix[:, i : i + 1], cells, around=around)
            x = model.embedding(ids[row : row + 1, t : t + 1])
            y, cells = model.stack(x, cells, around=around)
            outputs.append(y)
            cost.append(memory.cost(held) if memory.hands else torch.zeros(1))
            suffix = memory.suffix(held)
            held = memory.observe(held, x, y)
            held = held._replace(fill=held.fill + 1)
            if int(held.fill) == memory.config.segment:
                around.heard, written = [], []
                for i in range(0 if suffix is None else suffix.shape[1]):
                    out, cells = model.stack(suffix[:, i : i + 1], cells, around=around)
                    written.append(out)
                layers = (
                    [torch.cat(around.heard[i :: len(memory.reads)], 1) for i in range(len(memory.reads))]
                    if written
                    else []
                )
                held = memory.update(held, Ended(torch.cat(written, 1) if written else None, layers))
                held = held._replace(fill=torch.zeros_like(held.fill), count=held.count + 1)
        rows.append(torch.cat(outputs, 1))
        costs.append(torch.stack(cost, 1))
    return torch.cat(rows), torch.cat(costs)


class _Layers:
    """What stands around the layers in :func:`plain`."""

    def __init__(self, memory: Any, held: Any):
        self.memory, self.held = memory, held
        self.heard: list[Tensor] = []

    def before(self, layer: int, x: Tensor) -> Tensor:
        return self.memory.before(layer, x, self.held)

    def after(self, layer: int, y: Tensor) -> None:
        self.heard.append(y)
