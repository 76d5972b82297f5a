"""Which runs to merge, and how often each, chosen on validation text."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from unrolled.core.errors import UsageError
from unrolled.evaluate.measure import EvalConfig, evaluate_predictor
from unrolled.predict import NeuralPredictor
from unrolled.runs import Run
from unrolled.runs.merging import add_vectors, check_alike, read_weights

__all__ = ["Soup", "choose_soup", "greedy"]


class Soup(NamedTuple):
    """factors: of each run's vector. nats: per token of the validation text, of the base and after each round."""

    factors: list[float]
    nats: list[float]


def greedy(measure: Callable[[list[float]], float], count: int, rounds: int = 20) -> Soup:
    """Greedy soup (Wortsman et al. 2022), with repetition: in each round the mean of the vectors chosen so far takes in
    the one that lowers the loss most, until none does.

    Args:
        measure: factors -> loss. count: vectors there are. rounds: at most.
    """
    times = [0] * count
    best = [measure([0.0] * count)]
    for _ in range(rounds):
        tried = []
        for i in range(count):
            factors = [(n + (i == k)) / (sum(times) + 1) for k, n in enumerate(times)]
            tried.append(measure(factors))
        found = min(range(count), key=tried.__getitem__)
        if not tried[found] < best[-1]:
            break
        times[found] += 1
        best.append(tried[found])
    return Soup([n / max(1, sum(times)) for n in times], best)


def choose_soup(base: Run, others: Sequence[Run], tokens: int | None = None, rounds: int = 20) -> Soup:
    """:func:`greedy` over the vectors from ``base`` to ``others``, by the base's own validation split.

    Args:
        tokens: of that split, at most.
    Raises:
        UsageError: runs that are not alike; a corpus without a validation split.
    """
    check_alike(base, others)
    _, splits = base.splits()
    if "valid" not in splits:
        raise UsageError(f"the corpus of {base.path} has no validation split; give factors with --add.")
    start, vectors = read_weights(base), [read_weights(run) for run in others]
    model = base.task.build()  # type: ignore[attr-defined]  # check_alike: a task in steps
    model = model.to(base.device)
    predictor = NeuralPredictor(model, base.tokenizer.start_id)
    config = EvalConfig.parse({"split": "valid", "limit": tokens})

    def measure(factors: list[float]) -> float:
        merged = add_vectors(start, vectors, factors)
        with torch.no_grad():
            for name, value in model.named_parameters():
                value.copy_(merged[name])
        return evaluate_predictor(predictor, splits["valid"], config).nats_per_token

    return greedy(measure, len(others), rounds)
