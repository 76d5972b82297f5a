"""A test-time method of one file (tests/predict/nearby.py) and one line: every verb has it."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import unrolled as ur
from cli.conftest import Command
from conformance.predictors.build import Case
from conformance.predictors.checks import CHECKS
from predict.nearby import Nearby
from unrolled.predict import ADAPTERS, NeuralPredictor
from unrolled.runs import Run


@pytest.fixture(autouse=True)
def _one_line() -> Iterator[None]:
    ADAPTERS.add("nearby", "predict.nearby:Nearby")
    yield
    ADAPTERS.remove("nearby")


ON = ["--predict", "nearby=4", "--set", "nearby.weight=0.5"]
SETTINGS = {"count": 4, "weight": 0.5, "temperature": 1.0, "limit": None}


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
@pytest.mark.parametrize("config", Nearby.EXAMPLES, ids=range(2))
def test_the_suite(check: Callable[[Case], None], config: object) -> None:
    check(Case(Nearby, config))  # type: ignore[arg-type]


def by_hand(run: Run, count: int) -> list[float]:
    """Nats of the first tokens of the test split: probabilities, one neighbour after another."""
    model, (_, splits) = NeuralPredictor(run.model, run.tokenizer.start_id), run.splits()
    text = torch.from_numpy(splits["train"].ids(0, len(splits["train"])))
    with torch.no_grad():
        hidden = model.window(model.begin(1), text.unsqueeze(0)).hidden
    assert hidden is not None
    store, state, nats = list(zip(hidden[0], text.tolist(), strict=True)), model.begin(1), []
    for token in splits["test"].ids(0, count).tolist():
        near = sorted((float((key - state.hidden[0]).square().sum()), value) for key, value in store)[:4]
        shares = [math.exp(-distance) for distance, _ in near]
        found = sum(share for share, (_, value) in zip(shares, near, strict=True) if value == token) / sum(shares)
        nats.append(-math.log(0.5 * float(model.predict(state).log_prob[0, token].exp()) + 0.5 * found))
        state = model.observe(state, torch.tensor([token]))
    return nats


def test_eval(unrolled: Command, trained: Path) -> None:
    code, out, err = unrolled("eval", trained, *ON, "--limit", 12, "--per-token", "n.tsv", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["protocol"]["kind"] == "nearby"
    assert found["protocol"]["options"] == {"nearby": SETTINGS}
    assert found["nats"] == pytest.approx(sum(by_hand(Run(trained, "cpu"), 12)), rel=1e-4)
    assert len(list((trained / "nearby").glob("*.safetensors"))) == 1
    code, out, _ = unrolled("eval", trained, *ON, "--limit", 12, "--cache", 20, "--dynamic", "sgd", "--json")
    assert json.loads(out)["protocol"]["kind"] == "dynamic + nearby + cache"
    code, out, _ = unrolled("eval", trained, *ON, "--limit", 12, "--search", "nearby", "--search-tokens", 20, "--json")
    assert len(json.loads(out)["provenance"]["search"]["nearby"]["tried"]) == 4
    assert ur.evaluate(trained, limit=12, nearby=SETTINGS).nats == found["nats"]
    assert ur.evaluate(trained, limit=12, predict={"nearby": SETTINGS}).nats == found["nats"]


def test_score_generate_and_pairs(unrolled: Command, refused: Callable[..., str], trained: Path) -> None:
    Path("t.txt").write_text("the green cat sleeps\n")
    plain, mixed = unrolled("score", trained, "t.txt"), unrolled("score", trained, "t.txt", *ON)
    assert (plain.code, mixed.code) == (0, 0)
    assert len(plain.out.splitlines()) == len(mixed.out.splitlines())
    assert plain.out != mixed.out
    code, out, err = unrolled("generate", trained, *ON, "--tokens", 5, "--prompt", "the", "--json")
    assert (code, err) == (0, "")
    assert len(json.loads(out)[0]["tokens"]) == 5
    assert len(ur.generate(trained, "the", 5, predict={"nearby": 4})[0].tokens) == 5
    Path("p.jsonl").write_text(json.dumps({"sentence_good": "the cat", "sentence_bad": "cat the"}) + "\n")
    assert "which leaves nothing to nearby" in refused("pairs", trained, "p.jsonl", *ON)
    assert "did you mean 'nearby'" in refused("eval", trained, "--predict", "neaby")
    assert "config key 'nearby.weight'" in refused("eval", trained, "--set", "nearby.weight=2")
    assert "leave out dropout or nearby" in refused("eval", trained, *ON, "--samples", 3)


def test_compress_and_back(unrolled: Command, trained: Path) -> None:
    Path("t.txt").write_text("the green cat sleeps under the hill\n" * 3)
    code, _, err = unrolled("compress", trained, "t.txt", *ON, "--lanes", 2)
    assert code == 0, err
    assert unrolled("decompress", trained, "t.txt.unr", "--out", "back.txt").code == 0
    assert Path("back.txt").read_bytes() == Path("t.txt").read_bytes()
