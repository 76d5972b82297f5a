"""What the first use of torch's counter of operations imports takes seconds; it is done before a test is timed."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode


@pytest.fixture(autouse=True, scope="session")
def _imported() -> None:
    with FlopCounterMode(display=False), torch.no_grad():
        _ = torch.ones(2, 2) @ torch.ones(2, 2)
