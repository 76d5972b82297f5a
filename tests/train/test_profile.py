"""Where the time of a step goes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from train.runs import experiment, write_text
from unrolled.core.errors import UsageError
from unrolled.model import LanguageModel
from unrolled.train.profile import profile_steps
from unrolled.train.setup import Parts, set_up

NAMES = ["data", "masks", "forward", "loss", "backward", "clipping", "optimizer", "averaging"]


def parts_of(folder: Path, **changes: Any) -> Parts:
    return set_up(experiment(write_text(folder / "text"), **changes), "cpu")


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_parts_of_a_step(tmp_path: Path, accumulate: int) -> None:
    parts = parts_of(tmp_path, train={"accumulate": accumulate})
    before = [parameter.clone() for parameter in parts.model.parameters()]
    found = profile_steps(parts, 4)
    assert [part.name for part in found.parts] == NAMES
    assert all(part.seconds > 0 for part in found.parts)
    stream = parts.config.stream
    assert isinstance(parts.model, LanguageModel)
    assert found.tokens == accumulate * stream.columns * stream.window
    assert sum(part.operations for part in found.parts) == 3 * found.tokens * parts.model.flops_per_token()
    assert found.seconds == sum(part.seconds for part in found.parts)
    forward, backward = (part for part in found.parts if part.name in ("forward", "backward"))
    assert backward.operations == 2 * forward.operations == 2 * found.tokens * parts.model.stack_flops_per_token()
    assert forward.speed == forward.operations / forward.seconds
    for parameter, value in zip(parts.model.parameters(), before, strict=True):
        assert torch.equal(parameter, value)


def test_no_steps(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least 1 step"):
        profile_steps(parts_of(tmp_path), 0)


def test_a_sampled_softmax_has_no_known_products(tmp_path: Path) -> None:
    parts = parts_of(tmp_path, model={"head": {"name": "softmax", "negatives": 3, "frequent": 4}})
    found = {part.name: part.operations for part in profile_steps(parts, 1).parts}
    assert found["loss"] == 0
    assert found["forward"] > 0
