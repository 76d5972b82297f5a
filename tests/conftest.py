"""One thread, poisoned memory for kernels, shapes checked at every call of a cell or model, no slow test, a browser."""

import importlib
from collections.abc import Iterator

import pytest
import torch

from analyse.chromium import Browser, find_chromium
from conformance.shapes import checked_shapes
from effort import Rule

torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Rule())


@pytest.fixture(autouse=True, scope="session")
def _imported() -> None:
    """What torch imports when an optimiser is first used takes seconds, which belong to no test."""
    importlib.import_module("torch._dynamo")


@pytest.fixture(autouse=True, scope="session")
def _shapes() -> Iterator[None]:
    with checked_shapes():
        yield


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """Commands that run in this process flush small numbers to zero and set threads; the next test finds neither."""
    yield
    torch.set_flush_denormal(False)
    torch.set_num_threads(1)


@pytest.fixture
def collecting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weight gradients are collected for matrices of any size, also for those of tests, too small to be worth it."""
    monkeypatch.setattr("unrolled.kernels.cell_loop.weights._WORTH_COLLECTING", 0)


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Memory that torch hands out uninitialised is NaN, so that reading it cannot go unnoticed."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    find_chromium()
    opened = Browser(tmp_path_factory.mktemp("chromium"))
    yield opened
    opened.close()
