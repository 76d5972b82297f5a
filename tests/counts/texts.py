"""A small text with enough counts of counts, and models of it."""

import numpy as np

from unrolled.counts import KneserNeyConfig, NgramModel, estimate_kneser_ney

V, START = 12, 3
WORDS = ["the", "<unk>", "né", "<eos>", *(f"w{i}" for i in range(4, V))]


def make_text(length: int, seed: int = 0) -> np.ndarray:
    """Ids with a falling distribution and dependence on the token before; id 11 never appears."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, V)
    ids = [START]
    for _ in range(length):
        turned = np.roll(weights, ids[-1] % 3) + 0.3 * weights
        ids.append(int(rng.choice(V - 1, p=turned / turned.sum())))
    return np.array(ids[1:])


def estimate(ids: np.ndarray, starts: np.ndarray | None = None, **options: object) -> NgramModel:
    return estimate_kneser_ney(ids, V, START, KneserNeyConfig.parse(options), starts)
