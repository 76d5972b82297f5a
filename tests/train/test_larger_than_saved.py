"""A model far larger than its file is refused before its memory is taken."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from unrolled.core.errors import UnrolledError
from unrolled.runs.weights import refuse_larger


def test_only_its_shape_is_made(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(3, 4)}, path)
    made: list[str] = []

    def build() -> nn.Module:
        layer = nn.Linear(10**6, 10**6, bias=False)
        made.append(layer.weight.device.type)
        return layer

    with pytest.raises(UnrolledError, match=r"does not fit the run's config \(parameter 'weight'\)"):
        refuse_larger(path, "", 10**12, build)
    assert made == ["meta"]
    refuse_larger(path, "", 500, build)  # what is small is not looked at
    refuse_larger(tmp_path / "none", "", 10**12, build)  # told by who reads it
    assert made == ["meta"]


def test_one_that_only_looks_larger(tmp_path: Path) -> None:
    save_file({"model.weight": torch.zeros(4, 3), "other": torch.zeros(2)}, tmp_path / "tensors.safetensors")
    refuse_larger(tmp_path / "tensors.safetensors", "model.", 10**9, lambda: nn.Linear(3, 4, bias=False))
