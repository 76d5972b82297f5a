"""A model trained on a text with a hidden sign: a unit that has it is found, and clamping it steers the text."""

import sys
from pathlib import Path

import numpy as np
import pytest

from analyse.hidden_sign import make_lines, sign_of
from train.runs import experiment
from unrolled.analyse import FeaturesConfig, Labelled, features_of_run, sentence_states
from unrolled.analyse.features.make import hold_out
from unrolled.core.errors import UsageError
from unrolled.generate import SamplerConfig, generate
from unrolled.predict import Clamp, ClampedPredictor, NeuralPredictor
from unrolled.runs import Run
from unrolled.train import train


def labelled(count: int, seed: int) -> Labelled:
    lines, signs = make_lines(count, seed)
    return Labelled("lines", tuple(lines), np.array(signs), ("bad", "good"))


def trained_on_signs(folder: Path) -> Run:
    """A byte-level mLSTM of 24 units that has read 820,000 bytes."""
    (folder / "text").mkdir()
    for seed, (split, count) in enumerate((("train", 8000), ("valid", 200), ("test", 200))):
        (folder / "text" / f"{split}.txt").write_text("\n".join(make_lines(count, seed)[0]) + "\n")
    cell = {"name": "mlstm", "coupled": True, "factor_bias": 1.0, "forget_bias": 1.0, "init": "orthogonal"}
    config = experiment(
        folder / "text",
        tokenizer={"name": "byte"},
        stream={"columns": 32, "window": 32},
        model={
            "width": 24, "cell": cell, "embedding": {"size": 16, "init": "normal", "scale": 0.1},
            "stack": {"output_norm": "rms"}, "head": {"name": "softmax", "bias_init": "unigram"},
            "compute": {"backend": "auto"},
        },
        train={
            "steps": 800, "validations": 2, "save_minutes": 9.0, "clip": 1.0,
            "optimizer": {"name": "adam", "lr": 0.008, "betas": [0.9, 0.99]},
            "schedule": {"name": "linear", "warmup": 0.0125},
        },
    )  # fmt: skip
    return Run(train(config, folder / "run", "cpu"), "cpu")


@pytest.mark.slow
def test_the_unit_of_the_hidden_sign(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed (the extra probe)")
    run = trained_on_signs(tmp_path)
    learnt, measured = labelled(400, 11), labelled(400, 12)
    found = features_of_run(run, learnt, measured, config=FeaturesConfig.parse({"states": {"state": "c"}}))
    assert found.best.test.auc > 0.9
    assert found.best.test.accuracy > 0.9
    assert found.regression.test.accuracy > 0.9
    assert found.words is not None
    assert found.words.test.accuracy > 0.9, "the words alone tell the sign"

    predictor = NeuralPredictor(run.model, run.tokenizer.start_id)
    values = sentence_states(predictor, run.tokenizer, learnt.texts)[:, found.best.unit]
    means = [float(values[learnt.positive == sign].mean()) for sign in (False, True)]
    middle, half = (means[1] + means[0]) / 2, (means[1] - means[0]) / 2

    def share(by: float | None) -> float:
        """Of good words in 100 lines, with the unit held so far from the middle."""
        clamps = [] if by is None else [Clamp(0, "c", found.best.unit, middle + by * half)]
        made = generate(
            ClampedPredictor(predictor, clamps), run.tokenizer, ("\n",), 100, SamplerConfig(seed=3), ("\n",), 100
        )
        return float(np.mean([sign_of(one.text) for one in made]))

    good, free, bad = share(2), share(None), share(-2)
    sys.stdout.write(
        f"unit {found.best.unit}: AUC {found.best.test.auc:.3f}; good {good:.3f}, free {free:.3f}, bad {bad:.3f}\n"
    )
    assert good - bad > 0.3
    assert bad < free < good


def test_a_part_is_held_out() -> None:
    data = labelled(100, 1)
    kept, held = hold_out(data, 0.2, 1)
    assert (len(kept.texts), len(held.texts)) == (80, 20)
    assert sorted([*kept.texts, *held.texts]) == sorted(data.texts)
    again, other = hold_out(data, 0.2, 1)[1], hold_out(data, 0.2, 2)[1]
    assert held.texts == again.texts != other.texts
    for part in (kept, held):
        assert [sign_of(text) == 1 for text in part.texts] == part.positive.tolist(), "labels stay with their texts"
    with pytest.raises(UsageError, match="give a dev file"):
        hold_out(data, 0.001, 1)
