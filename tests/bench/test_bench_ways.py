"""Ways of writing: every row of every table is reached by name, and what is timed is what was written."""

import json
from typing import Any

import pytest
import torch

from unrolled.bench import BenchConfig, run_bench
from unrolled.bench.made import MadeSource
from unrolled.bench.material import Material
from unrolled.bench.measure import Work, measure
from unrolled.bench.methods import METHODS, Draw, DrawConfig
from unrolled.bench.plan import PLAIN, Row, Sizes
from unrolled.bench.subjects import case_of
from unrolled.bench.ways import parse_way
from unrolled.cells import CELLS
from unrolled.core.errors import UsageError
from unrolled.generate import SamplerConfig
from unrolled.generate.constraints import CONSTRAINTS
from unrolled.generate.filters import FILTERS
from unrolled.model import LanguageModel, ModelConfig
from unrolled.model.recycler import Recycler
from unrolled.optim.dynamic import DynamicRule
from unrolled.predict import ADAPTERS, NeuralPredictor
from unrolled.predict.datastore import Datastore
from unrolled.train.objectives import OBJECTIVES
from unrolled.train.objectives.phrase import Phrase

OWN = Sizes(width=12, batch=2, window=5)


def case_by(way: str, material: Material | None = None) -> Any:
    row = Row("lstm", CELLS.parse("lstm"), PLAIN, "float32", OWN, "decode", 2, 256, way, text=1_000)
    return case_of(row, OWN, material or Material(torch.float32))


def written(config: Any, prefix: str) -> str:
    """The options of a part as settings of a way."""
    told = config.model_dump(mode="json", exclude_defaults=True, exclude={"name"})
    return ",".join([prefix, *(f"{prefix}.{key}={toml(value)}" for key, value in told.items())])


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


@pytest.mark.parametrize("name", list(ADAPTERS))
def test_every_adapter_is_reached_with_all_of_its_options(name: str) -> None:
    for example in ADAPTERS[name].EXAMPLES:
        prefix = f"predict.{name}" if name in SamplerConfig.model_fields else name
        text = written(example, prefix)
        way = parse_way(text.removeprefix(f"{prefix},") if prefix != name else text)
        assert way.predict.get(name) == (None if example == ADAPTERS[name].neutral else example)
        assert (way.sampler, way.method.name) == (SamplerConfig(), "draw")


@pytest.mark.parametrize("name", list(CONSTRAINTS))
def test_every_constraint_is_reached_with_all_of_its_options(name: str) -> None:
    for example in CONSTRAINTS[name].EXAMPLES:
        told = {key: json.dumps(one) if isinstance(one, dict) else one for key, one in example.model_dump().items()}
        text = ",".join([name, *(f"{name}.{key}={toml(one)}" for key, one in told.items() if one is not None)])
        assert parse_way(text).sampler.constrain == example


@pytest.mark.parametrize("name", list(FILTERS))
def test_every_filter_is_reached(name: str) -> None:
    value = 3 if name == "top_k" else 0.5
    assert getattr(parse_way(f"{name}={value}").sampler, name) == value


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_is_reached(name: str) -> None:
    needed = ".run=x" if "run" in METHODS[name].Config.model_fields else ""
    assert parse_way(f"{name}{needed},no_repeat=2").method.name == name


def test_one_more_method_needs_a_line_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    class TwiceConfig(DrawConfig):
        name: Any = "twice"

    class Twice(Draw):
        Config = TwiceConfig

        def write(self, predictor: Any, sampler: Any, texts: int, tokens: int) -> int:
            return sum(super(Twice, self).write(predictor, sampler, texts, tokens) for _ in range(2))

    METHODS.add("twice", Twice)
    try:
        case = case_by("twice,top_k=3")
        case.forward()
        assert case.done() == 2
    finally:
        METHODS.remove("twice")


def test_settings_with_commas_and_main_options() -> None:
    way = parse_way("regex=[a-c,]{2,3}, cache=50,cache.theta=0.4 ,no_repeat=3,search=7")
    constraint = way.sampler.constrain
    assert constraint is not None
    assert (constraint.model_dump()["pattern"], way.sampler.no_repeat) == ("[a-c,]{2,3}", 3)
    assert way.predict.get("cache").length == 50
    assert way.predict.get("cache").theta == 0.4
    assert way.method.model_dump()["budget"] == 7
    assert parse_way("constrain={name = 'json', spaces = true}").sampler.constrain is not None
    assert parse_way("guidance=0.25,guidance.negative='a, b'").method.model_dump()["negative"] == "a, b"


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("cach=5", "did you mean 'cache'"), ("beams,search", "beams and search are not combined"),
        ("beams,top_k=3", "chosen, not drawn"), ("beams=4", "beams has no main option"), ("top_k=3,,", "unknown way"),
        ("draft", "run"), ("dynamic=sgd,recode", "not combined"), ("cache.thta=1", "theta"),
    ],
)  # fmt: skip
def test_what_is_no_way(way: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_way(way)


def test_texts_that_end_early_are_timed_by_their_tokens() -> None:
    pytest.importorskip("llguidance")
    case = case_by("regex=ab")
    case.forward()
    assert case.done() == 2 / 5
    case = case_by("draw")
    case.forward()
    case.forward()
    assert case.done() == 1
    (samples,) = measure(
        [Work(lambda: None, "read", 1.0, lambda: 0.25)],
        lambda kind: 1.0,
        1,
        1e9,
        1.0,
        0,
        clock=iter(range(99)).__next__,
    )
    assert samples[0].seconds == 4


def test_every_call_begins_as_if_nothing_had_been_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(NeuralPredictor, "forget", lambda self: calls.append("forget"), raising=False)
    case = case_by("cache=4")
    case.forward()
    case.forward()
    assert calls == ["forget"] * 2
    keys = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)).numpy()
    found: list[int] = []

    def finder(queries: torch.Tensor, count: int) -> torch.Tensor:
        found.append(len(queries))
        return torch.arange(count).expand(len(queries), -1)

    store = Datastore(keys, torch.arange(20).numpy(), torch.tensor([0]).numpy(), None, finder)
    query = torch.zeros(2, 3)
    for _ in range(2):
        store.nearest(query, 4)
    store.forget()
    store.nearest(query, 4)
    assert found == [2, 2]


def test_what_cannot_be_written_is_told() -> None:
    config = BenchConfig.parse({
        "cells": ("lstm",), "widths": (12,), "batches": (2,), "windows": (3,), "repeats": 1, "passes": ("decode",),
        "peers": False, "peak_size": 16, "copy_bytes": 400, "read_bytes": 400, "least_seconds": 1e-6,
        "ways": ("neighbours", "cache=3", "draft=nowhere"), "text": 30,
    })  # fmt: skip
    record = run_bench(config)
    status = {row.way: (row.status, row.reason) for row in record.rows}
    assert status["neighbours"] == status["cache=3"] == ("measured", None)
    assert "nowhere is not a run" in str(status["draft=nowhere"][1])


STORED = (
    "dynamic=krause,dynamic.columns=4", "dynamic=gated,dynamic.columns=4,dynamic.updates=2", "recycle",
    "neighbours,neighbours.k=3", "documents,documents.piece=8,documents.stride=2",
)  # fmt: skip


@pytest.mark.parametrize("way", STORED)
def test_ways_that_need_a_training_text_are_timed_with_models_that_have_none(way: str) -> None:
    material = Material(torch.float32)
    case = case_by(way, material)  # which collects what it needs
    model = next(one for key, one in material._made.items() if key[0] == "model")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    case.forward()
    assert case.done() == 1
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()), "it is as it was"


def test_the_rule_of_krause_learns_by_statistics_of_the_made_text(monkeypatch: pytest.MonkeyPatch) -> None:
    rules: list[Any] = []
    monkeypatch.setattr(DynamicRule, "update", lambda self, gradients, loss: rules.append(self))
    case = case_by("dynamic=krause,dynamic.columns=4,dynamic.segment=4")
    case.forward()
    assert [rule._config.rule for rule in rules] == ["rms"], "of five bytes four are read"
    assert all(bool((step > 0).all()) and len(step.unique()) > 1 for step in rules[0]._step.values())


def test_recycled_steps_are_half_as_many_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    guess = Recycler.forward
    monkeypatch.setattr(Recycler, "forward", lambda self, h, e: (calls.append(len(h)), guess(self, h, e))[1])
    case_by("recycle").forward()
    assert calls == [OWN.batch] * 2, "of five bytes the second and the fourth"


def test_a_further_module_beside_the_model_needs_no_edit() -> None:
    class Beside(Phrase):
        exported = "beside"

    source = MadeSource(LanguageModel(ModelConfig.parse({"width": 8}), 256), 10)
    OBJECTIVES.add("beside", Beside)
    try:
        side = source.side("beside")
        assert side
        assert all(bool(value.isfinite().all()) for value in side.values())
    finally:
        OBJECTIVES.remove("beside")
    assert source.side("beside") is None
