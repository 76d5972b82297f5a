"""From settings to predictors, on a trained run: statistics that are kept, searches, and refusals."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import unrolled as ur
from train.runs import experiment, make_text
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.evaluate import EvalConfig, evaluate_run, open_predictor
from unrolled.evaluate.search import search
from unrolled.predict import PredictorConfig
from unrolled.runs import Run
from unrolled.train import train

SMALL = {"dynamic": {"preset": "krause", "columns": 4, "lr": 1e-3}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapt")
    text = folder / "text"
    text.mkdir()
    for seed, (split, lines) in enumerate((("train", 40), ("valid", 12), ("test", 6))):
        (text / f"{split}.txt").write_bytes(make_text(lines, seed))
    phase = {"steps": 30, "validations": 2, "final_eval": False, "averaging": "uniform"}
    model = {"width": 12, "cell": "lstm", "dropout": {"input": 0.2}}
    return train(experiment(text, train=phase, model=model), folder / "run", "cpu")


@pytest.fixture(autouse=True)
def _fresh(run: Path) -> None:
    for path in (run / "statistics").glob("*"):
        path.unlink()


def test_presets_and_settings() -> None:
    config = PredictorConfig.parse({"dynamic": "lamb"})
    assert (config.get("dynamic").loss, config.get("dynamic").normalize) == ("sum", "scalars")
    changed = PredictorConfig.parse({"dynamic": {"preset": "lamb", "segment": 9}})
    assert changed.get("dynamic") == config.get("dynamic").model_copy(update={"segment": 9})
    assert PredictorConfig.parse({"dynamic": {"lr": 0.5}}).get("dynamic").lr == 0.5
    with pytest.raises(UsageError, match="did you mean 'krause'"):
        PredictorConfig.parse({"dynamic": "kruase"})
    with pytest.raises(UsageError, match="not combined"):
        PredictorConfig.parse({"dynamic": "sgd", "dropout": {"samples": 2}})


def test_statistics_are_kept_with_the_run(run: Path) -> None:
    seen: list[int] = []
    first = evaluate_run(Run(run), predict=PredictorConfig.parse(SMALL), progress=lambda done, *_: seen.append(done))
    kept = list((run / "statistics").glob("*.safetensors"))
    assert len(kept) == 1
    before, stamp, batches = first.nats, kept[0].stat().st_mtime_ns, len(seen)
    seen.clear()
    again = evaluate_run(Run(run), predict=PredictorConfig.parse(SMALL), progress=lambda done, *_: seen.append(done))
    assert again.nats == before
    assert kept[0].stat().st_mtime_ns == stamp
    assert len(seen) < batches
    subset = {"dynamic": {**SMALL["dynamic"], "parameters": ("head.*",)}}
    assert evaluate_run(Run(run), predict=PredictorConfig.parse(subset)).nats != before
    assert list((run / "statistics").glob("*.safetensors")) == kept
    other = {"dynamic": {**SMALL["dynamic"], "segment": 7}}
    evaluate_run(Run(run), predict=PredictorConfig.parse(other))
    evaluate_run(Run(run, weights="raw"), predict=PredictorConfig.parse(SMALL))
    assert len(list((run / "statistics").glob("*.safetensors"))) == 3


def test_raw_weights_are_those_before_averaging(run: Path) -> None:
    saved, raw = Run(run).model, Run(run, weights="raw").model
    assert any(not torch.equal(a, b) for a, b in zip(saved.parameters(), raw.parameters(), strict=True))
    one, other = ur.evaluate(run), ur.evaluate(Run(run, weights="raw"))
    assert one.nats != other.nats
    assert (one.provenance["weights"], other.provenance["weights"]) == ("saved", "raw")


@pytest.mark.parametrize(
    "options",
    [{"cache": {"length": 50}}, SMALL, {"temperature": 1.3}, {"dropout": {"samples": 3}}, {**SMALL, "cache": {}}],
)
def test_options_reach_the_record(run: Path, options: dict[str, Any]) -> None:
    static, result = ur.evaluate(run), ur.evaluate(run, **options)
    assert result.protocol.comparable_key != static.protocol.comparable_key
    assert set(options) == set(result.protocol.options)
    with open_predictor(Run(run), PredictorConfig.parse(options)) as predictor:
        assert predictor.kind == result.protocol.kind


def test_a_search_takes_the_best_on_validation_text(run: Path) -> None:
    config = PredictorConfig.parse({**SMALL, "cache": {"length": 20}})
    result = evaluate_run(Run(run), predict=config, searches=("cache", "dynamic", "temperature"), search_tokens=60)
    found = result.provenance["search"]
    assert list(found) == ["cache", "dynamic", "temperature"]
    for part, one in found.items():
        assert one["valid_tokens"] == 60
        best = min(one["tried"], key=lambda row: row["nats_per_token"])
        options = result.protocol.options
        for name, value in best.items():
            if name != "nats_per_token":
                inner = options[part] if part != "temperature" else options
                assert inner[name.split(".")[-1]] == pytest.approx(value)
    assert len(found["cache"]["tried"]) == 16
    assert len(found["dynamic"]["tried"]) == 24


def _measured(nats: Callable[[PredictorConfig], float]) -> tuple[PredictorConfig, int]:
    best, tried = search("temperature", PredictorConfig(), nats)
    return best, len(tried)


def _temperature(config: PredictorConfig) -> float:
    given = config.get("temperature")
    return 1.0 if given is None else given.value


def test_the_temperature_search_stops_after_two_steps_without_gain() -> None:
    best, count = _measured(lambda config: abs(1 / _temperature(config) - 1.0))
    assert 1 / _temperature(best) == pytest.approx(1.0)
    assert count == 6
    assert _measured(lambda config: -_temperature(config))[1] == 14


def test_a_setting_that_diverges_loses() -> None:
    def nats(config: PredictorConfig) -> float:
        if config.get("dynamic").lr > 0.02:
            raise UnrolledError("diverged")
        return -config.get("dynamic").lr

    best, tried = search("dynamic", PredictorConfig.parse({"dynamic": "sgd"}), nats)
    assert best.get("dynamic").lr == pytest.approx(0.01)
    assert sum(one.nats_per_token == float("inf") for one in tried) == 4

    def never(config: PredictorConfig) -> float:
        raise UnrolledError("diverged")

    with pytest.raises(UnrolledError, match="every setting of dynamic"):
        search("dynamic", PredictorConfig.parse({"dynamic": "sgd"}), never)


def test_refusals(run: Path) -> None:
    with pytest.raises(UsageError, match="no dynamic to search"):
        ur.evaluate(run, search=("dynamic",))
    with pytest.raises(UsageError, match="unknown search 'tmperature'"):
        ur.evaluate(run, search=("tmperature",))
    with pytest.raises(UsageError, match="unknown weights 'rwa'"):
        Run(run, weights="rwa")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="'clamp'; known: cache, dynamic, neighbours, recode, temperature"):
        ur.evaluate(run, search=("clamp",))
    assert EvalConfig().reset == "corpus"


def test_prompts_of_rows_that_go_in_step(run: Path) -> None:
    for one in ({"dropout": 2}, {"dynamic": "sgd"}):
        assert len(ur.generate(run, ["the", "cat"], 3, predict=one)) == 2
        with pytest.raises(UsageError, match="all prompts must have as many tokens; give them one at a time"):
            ur.generate(run, ["the", "cats"], 3, predict=one)
    assert len(ur.generate(run, ["the", "cats"], 3, predict={"cache": 5, "temperature": 0.5})) == 2


def test_settings_in_every_form() -> None:
    wanted = PredictorConfig.parse({"cache": {"length": 7}, "temperature": 0.5})
    assert [one.name for one in wanted.adapters] == ["temperature", "cache"], "in the order in which they are applied"
    for given in (
        {"temperature": 0.5, "cache": 7, "quantize": None},
        {"adapters": [{"name": "cache", "length": 7}, {"name": "temperature", "value": 0.5}]},
        {"adapters": [{"name": "cache", "length": 7}], "temperature": {"value": 0.5}},
        wanted.model_dump(),
    ):
        assert PredictorConfig.parse(given) == wanted
    assert PredictorConfig.parse({"temperature": 1.0}) == PredictorConfig()
    assert PredictorConfig.parse({"adapters": ["cache"]}) == PredictorConfig.parse({"cache": {}})
    for given, says in (
        ({"cahce": 5}, "unknown setting at test time 'cahce'; did you mean 'cache'"),
        ({"cache": 5, "adapters": ["cache"]}, "cache is given twice"),
        ({"cache": 0}, "config key 'cache': input should be greater than or equal to 1"),
        ({"cache": {"lenght": 5}}, "unknown config key 'cache.lenght'; did you mean 'length'"),
        ({"cache": "cache"}, "config key 'cache': input should be a valid integer"),
        ({"dynamic": ["krause"]}, "config key 'dynamic': a preset is given by its name"),
        ({"dynamic": {"preset": {}}}, "config key 'dynamic': a preset is given by its name"),
        ({"quantize": "int4"}, "config key 'quantize': input should be 'bf16' or 'int8'"),
        ({"adapters": 3}, "the adapters are a list of tables"),
        ({"adapters": [{"length": 3}]}, "needs the key 'name', one of: .*cache"),
    ):
        with pytest.raises(UsageError, match=says):
            PredictorConfig.parse(given)


def test_all_of_a_text_of_ones_own_is_a_split(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_text("the cat sat on the mat\n")
    opened = Run(run)
    result = evaluate_run(opened, str(path), EvalConfig(split="whole"))
    assert result.bytes == 23
    assert result.provenance["split"] == "whole"
    with pytest.raises(UsageError, match="'whole' is all of a text of your own; name its path"):
        evaluate_run(opened, "pydoc", EvalConfig(split="whole"))
    with pytest.raises(UsageError, match="too short to be cut"):
        evaluate_run(opened, str(path), EvalConfig(split="test"))
