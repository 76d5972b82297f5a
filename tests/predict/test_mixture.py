"""Several predictors as one."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from unrolled.core.errors import UsageError
from unrolled.counts import KneserNeyConfig, estimate_kneser_ney
from unrolled.predict import KneserNeyPredictor, NeuralPredictor, StateForm
from unrolled.predict.mixture import Mixture

from .tiny import *  # noqa: F403

Make = Callable[..., NeuralPredictor]


def counts(like: NeuralPredictor) -> KneserNeyPredictor:
    drawn = np.random.default_rng(1).integers(0, like.vocab_size, 300)
    return KneserNeyPredictor(
        estimate_kneser_ney(drawn, like.vocab_size, like.start_id, KneserNeyConfig.parse({"order": 3}))
    )


def test_distributions_are_the_mean(predictor: Make) -> None:
    parts = [predictor(), predictor("gru"), counts(predictor())]
    mixture = Mixture(parts, [2, 1, 1])
    ids = torch.randint(0, mixture.vocab_size, (3, 7), generator=torch.Generator().manual_seed(2))
    reset = torch.zeros(3, 7, dtype=torch.bool)
    reset[1, 4] = True
    log_prob, state = mixture.distributions(mixture.begin(3), ids, reset)
    each = [one.distributions(one.begin(3), ids, reset)[0].exp() for one in parts]
    assert torch.allclose(log_prob.exp(), 0.5 * each[0] + 0.25 * each[1] + 0.25 * each[2])
    assert torch.allclose(log_prob.exp().sum(-1), torch.ones(3, 7, dtype=torch.float64))
    scores = mixture.window(mixture.begin(3), ids, reset)
    assert torch.allclose(-scores.nll, log_prob.gather(2, ids.unsqueeze(2)).squeeze(2))
    stepped = mixture.begin(3)
    for t in range(7):
        if reset[:, t].any():
            stepped = mixture.restarted(stepped, reset[:, t])
        assert torch.allclose(mixture.predict(stepped).log_prob, log_prob[:, t])
        stepped = mixture.observe(stepped, ids[:, t])
    for after in (state, scores.state):
        assert torch.allclose(mixture.predict(after).log_prob, mixture.predict(stepped).log_prob)


def test_its_state_travels(predictor: Make) -> None:
    mixture = Mixture([predictor(), counts(predictor())])
    form = StateForm("m@1", mixture)
    begun = form.begin()
    state = mixture.own_form(form.unpack(form.pack(begun)).tree)
    assert torch.equal(mixture.predict(state).log_prob, mixture.predict(mixture.begin(1)).log_prob)
    twin = mixture.twin()
    assert isinstance(twin, Mixture)
    assert twin.weights == mixture.weights == [0.5, 0.5]


def test_identity(predictor: Make) -> None:
    mixture, other = Mixture([predictor(), predictor("gru")], [2, 1]), Mixture([predictor(), predictor("gru")], [1, 1])
    ids = ["a@1", "b@2"]
    assert mixture.identity("m", ids).startswith("m@")
    assert mixture.identity("m", ids) == mixture.identity("m", ["z@1", "y@2"]), "names of folders say nothing"
    assert len({mixture.identity("m", ids), other.identity("m", ids), mixture.identity("m", ids[::-1])}) == 3


def test_refused(predictor: Make) -> None:
    for parts, weights in (
        ([], None),
        ([predictor()], [0.0]),
        ([predictor()], [1, 2]),
        ([predictor()], [float("inf")]),
    ):
        with pytest.raises(UsageError, match="positive weight"):
            Mixture(parts, weights)
    small = counts(predictor())
    small.vocab_size -= 1
    with pytest.raises(UsageError, match="one vocabulary"):
        Mixture([predictor(), small])
