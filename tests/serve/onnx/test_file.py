"""The file that ``unrolled export RUN step.onnx`` writes."""

import json
from pathlib import Path

import numpy as np
import pytest

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.runs import Run
from unrolled.serve.export import export_run
from unrolled.serve.onnx import verify
from unrolled.serve.onnx.session import OnnxStep
from unrolled.tokenizer import load_tokenizer

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _cache(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNROLLED_CACHE", str(tiny_run.parent / "cache"))


def test_it_says_all_that_a_program_needs(tiny_run: Path, exported: tuple[Path, dict], tmp_path: Path) -> None:
    file, record = exported
    step, run = OnnxStep(file), Run(tiny_run, "cpu")
    assert record["verified"]["on"] == "validation text"
    assert 100 < record["verified"]["steps"] <= 200
    assert 0 < record["verified"]["error"] < 1e-4
    assert step.metadata["model_id"] == record["model_id"]
    assert (step.start_id, step.metadata["end_id"]) == (run.tokenizer.start_id, "-1")
    assert list(step.initial(2)) == step.metadata["state"].split() == list(record["state"])
    graph = pytest.importorskip("onnx").load(file).graph
    sizes = [[one.dim_param or one.dim_value for one in value.type.tensor_type.shape.dim] for value in graph.input]
    assert sizes == [["batch", 1], *(["batch", *shape] for shape in record["state"].values())]
    assert [value.name for value in graph.output] == ["log_prob", *(f"{name}.next" for name in step.state)]
    (tmp_path / "tokenizer.json").write_text(json.dumps(step.tokenizer))
    assert load_tokenizer(tmp_path / "tokenizer.json").fingerprint() == run.tokenizer.fingerprint()
    assert json.loads(step.metadata["protocol"])["precision"] == "float32"


def test_greedy_text_from_the_file_alone_is_that_of_generate(tiny_run: Path, exported: tuple[Path, dict]) -> None:
    from unrolled.generate import SamplerConfig, generate
    from unrolled.predict import NeuralPredictor

    run, step = Run(tiny_run, "cpu"), OnnxStep(exported[0])
    predictor = NeuralPredictor(run.model, run.tokenizer.start_id)
    wanted = generate(predictor, run.tokenizer, [""], 40, SamplerConfig(temperature=0.0))[0].tokens
    token, state, found = step.start_id, step.initial(), []
    for _ in range(40):
        scores, state = step.step(np.array([token]), state)
        token = int(scores[0].argmax())
        found.append(token)
    assert found == wanted


def test_integers_make_a_smaller_file(tiny_run: Path, exported: tuple[Path, dict], tmp_path: Path) -> None:
    done = export_run(Run(tiny_run, "cpu"), tmp_path / "int8.onnx", options={"int8": True, "verify": 60})
    assert done.record["precision"] == OnnxStep(tmp_path / "int8.onnx").metadata["protocol"][15:19] == "int8"
    assert 1e-5 < done.record["verified"]["error"] < 0.2
    assert "60 tokens" in done.sentence


def test_a_step_that_is_not_the_model_is_not_written(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "MOST_ERROR", 1e-12)
    with pytest.raises(UnrolledError, match=r"nothing was written: over 20 tokens the exported step is \d\.\de-0\d in"):
        export_run(Run(tiny_run, "cpu"), tmp_path / "step.onnx", options={"verify": 20})
    monkeypatch.setattr(verify, "MOST_NATS", 0.0)
    with pytest.raises(UnrolledError, match="nats per token away from the model"):
        export_run(Run(tiny_run, "cpu"), tmp_path / "step.onnx", options={"verify": 20, "int8": True})
    assert not list(tmp_path.iterdir())


def test_equal_runs_give_equal_bytes(tiny_run: Path, exported: tuple[Path, dict], tmp_path: Path) -> None:
    export_run(Run(tiny_run, "cpu"), tmp_path / "again.onnx", options={"verify": 0})
    assert (tmp_path / "again.onnx").read_bytes() == exported[0].read_bytes()


def test_a_file_that_was_changed_is_refused(exported: tuple[Path, dict]) -> None:
    onnx = pytest.importorskip("onnx")

    def changed(name: str, value: str) -> bytes:
        model = onnx.load(exported[0])
        for entry in model.metadata_props:
            entry.value = value if entry.key == name else entry.value
        return model.SerializeToString()

    for name, value, sentence in (
        ("format", "another", "is no step of unrolled"),
        ("format_version", "99", "is of a newer format"),
        ("format_version", "new", "says about itself is damaged"),
        ("state", "0.h 0.q", "says about itself is damaged"),
        ("initial.0.h", "0 0", "says about itself is damaged"),
    ):
        with pytest.raises(UnrolledError, match=sentence):
            OnnxStep(changed(name, value))


def test_refusals(tiny_run: Path, tmp_path: Path) -> None:
    run, out = Run(tiny_run, "cpu"), tmp_path / "x.onnx"
    with pytest.raises(UsageError, match="two forms of one output"):
        export_run(run, out, options={"logits": True, "log_prob": True})
    with pytest.raises(UsageError, match="--batch is a number of rows or dynamic, not 'many'"):
        export_run(run, out, options={"batch": "many"})
    (tmp_path / "note.onnx").write_text("no model")
    with pytest.raises(UnrolledError, match="no model that ONNX Runtime can read"):
        OnnxStep(tmp_path / "note.onnx")
