"""Every conformance test runs with poisoned memory."""

import pytest


@pytest.fixture(autouse=True)
def _poison(poisoned: None) -> None:
    pass
