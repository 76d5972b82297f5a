"""Saved numbers still come out."""

import pytest

from . import golden


def _agree(found: dict[str, float], kept: dict[str, float]) -> None:
    assert set(found) == set(kept)
    for name, value in kept.items():
        assert found[name] == pytest.approx(value, rel=1e-9, abs=1e-9), name


@pytest.mark.parametrize("key", golden.read())
def test_kept_numbers(key: str) -> None:
    _agree(golden.numbers(key), golden.read()[key])


@pytest.mark.parametrize("key", golden.cases())
def test_every_example_has_kept_numbers(key: str) -> None:
    if key not in golden.read():
        pytest.skip("no kept numbers for this example yet: `python -m conformance.cells.golden` in tests/ adds them")


def test_another_number_is_noticed() -> None:
    kept = golden.read()[golden.cases()[0]]
    for name in kept:
        with pytest.raises(AssertionError):
            _agree(kept | {name: kept[name] + 1e-6}, kept)
    with pytest.raises(AssertionError):
        _agree({**kept, "more": 1.0}, kept)
