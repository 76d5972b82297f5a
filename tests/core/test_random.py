"""Named random streams."""

import itertools

import torch

from unrolled.core.random import RandomStreams


def draw(streams: RandomStreams, name: str, *keys: int) -> list[float]:
    return torch.rand(4, generator=streams.generator(name, *keys)).tolist()


def test_equal_names_give_equal_numbers_in_any_order() -> None:
    one, other = RandomStreams(5), RandomStreams(5)
    names = [("a", 0), ("a", 1), ("b", 0)]
    first = {name: draw(one, *name) for name in names}
    assert {name: draw(other, *name) for name in reversed(names)} == first
    torch.manual_seed(1)
    assert draw(one, "a", 0) == first["a", 0], "the global generator has no part in it"


def test_seed_shard_name_and_keys_all_count() -> None:
    streams = [
        (RandomStreams(seed, shard), name, keys)
        for seed, shard, name, keys in itertools.product(
            (0, 1, 11), (0, 1), ("a", "b"), ((), (0,), (1,), (0, 1), (11,))
        )
    ]
    assert len({stream.key(name, *keys) for stream, name, keys in streams}) == len(streams)
    assert len({tuple(draw(stream, name, *keys)) for stream, name, keys in streams}) == len(streams)


def test_keys_fit_every_generator() -> None:
    assert all(0 <= RandomStreams(seed).key("x", seed) < 2**63 for seed in range(200))


def test_the_numbers_are_kept() -> None:
    """Saved runs resume with these keys: they may not change from release to release."""
    assert RandomStreams(1).key("init") == 5793995698665824246
    assert RandomStreams(1, shard=2).key("dropout.input", 7) == 4582631113561190326
