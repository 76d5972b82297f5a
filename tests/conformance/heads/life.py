"""A head in a model that is trained, saved, opened, evaluated in windows of several lengths, and generates."""

import json
import math
import tempfile
from functools import cache
from pathlib import Path

import pytest

import unrolled as ur
from unrolled.evaluate import EvalConfig, evaluate_predictor
from unrolled.model import LanguageModel
from unrolled.predict import NeuralPredictor
from unrolled.runs import Run

from .build import SIZE, Case, cell_for, registered, ties

__all__ = ["check_life"]


@cache
def _lines(count: int) -> str:
    """Sentences of 30 words, the first ones often."""
    words = [f"w{i}" for i in range(30)]
    rows = (
        " ".join(words[(i * 7 + j * j) % (30 if j % 3 == 2 else 8)] for j in range(5 + i % 4)) for i in range(count)
    )
    return "\n".join(rows) + "\n"


def check_life(case: Case) -> None:
    """It learns, is evaluated to the same nats whatever the window, and generates."""
    with registered(case), tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNROLLED_CACHE", folder + "/cache")
        text = Path(folder, "text")
        text.mkdir()
        for split, lines in (("train", 60), ("valid", 6), ("test", 1)):
            (text / f"{split}.txt").write_text(_lines(lines))
        embedding = {"size": SIZE, "tied": True in ties(case)}
        config = ur.ExperimentConfig.parse(
            {
                "corpus": {"path": str(text)},
                "tokenizer": {"name": "word", "order": "frequency"},
                "stream": {"columns": 4, "window": 12},
                "model": {
                    "width": 12,
                    "cell": cell_for(case),
                    "embedding": embedding,
                    "head": case.config,
                    "dropout": {"projected": 0.2, "output": 0.1},
                },
                "train": {
                    "steps": 20, "validations": 1, "final_eval": False, "optimizer": {"name": "adam", "lr": 0.05},
                },
            }
        )  # fmt: skip
        run = ur.train(config, Path(folder, "run"), device="cpu")
        metrics = (run / "metrics.jsonl").read_text().splitlines()
        found = [json.loads(line)["nats"] for line in metrics if '"valid"' in line]
        opened = Run(run, "cpu")
        model = ur.load(run, device="cpu").double()
        assert isinstance(model, LanguageModel)
        assert type(model.head) is case.cls
        assert found[-1] < 0.95 * math.log(model.vocab_size), "it does not learn"
        _, splits = opened.splits()
        predictor = NeuralPredictor(model, opened.tokenizer.start_id)
        figures = [
            evaluate_predictor(predictor, splits["valid"], EvalConfig.parse({"split": "valid", "window": window})).nats
            for window in (1, 5, 50)
        ]
        assert figures[1] == pytest.approx(figures[0], rel=1e-12), "the window matters"
        assert figures[2] == pytest.approx(figures[0], rel=1e-12), "the window matters"
        assert ur.generate(run, "w1 w2", tokens=6)[0].text
