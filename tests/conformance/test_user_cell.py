"""A cell in a module outside the package: the one that CONTRIBUTING.md shows, as a reader would copy it."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from unrolled.cells import CELLS
from unrolled.model import LanguageModel, ModelConfig

from .build import Case, MakeCell
from .checks import CHECKS

GUIDE = Path(__file__).parents[2] / "CONTRIBUTING.md"


@pytest.fixture(scope="module", autouse=True)
def _mgu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    text = GUIDE.read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert '"mgu": "unrolled.cells.mgu:MGU",' in text, "the line for the table"
    folder = tmp_path_factory.mktemp("user")
    (folder / "my_module.py").write_text(code, encoding="utf-8")
    sys.path.insert(0, str(folder))
    CELLS.add("mgu", "my_module:MGU")
    yield
    CELLS.remove("mgu")
    sys.path.remove(str(folder))
    del sys.modules["my_module"]


def _mogrified(in_width: int, width: int):
    config = CELLS.parse({"name": "mogrifier", "rounds": 3, "cell": {"name": "mgu", "forget_bias": 1.0}})
    return CELLS["mogrifier"](in_width, width, config)


MAKERS = {"first": Case("mgu", 0), "second": Case("mgu", 1), "in the Mogrifier": _mogrified}


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
@pytest.mark.parametrize("make_cell", MAKERS.values(), ids=MAKERS)
def test_check(make_cell: MakeCell, check: Callable[[MakeCell], None]) -> None:
    check(make_cell)


def test_option_acts() -> None:
    first, second = (Case("mgu", index)(3, 4) for index in range(2))
    assert not first.get_parameter("bias").any()
    assert second.get_parameter("bias").sum() == 4


@pytest.mark.parametrize("cell", ["mgu", {"name": "mogrifier", "rounds": 2, "cell": "mgu"}], ids=str)
def test_trains(cell: object) -> None:
    torch.manual_seed(0)
    model = LanguageModel(ModelConfig.parse({"width": 12, "layers": 2, "cell": cell}), 5)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    tokens = torch.tensor([[0, 1, 2, 3, 4, 3, 2, 1] * 3])
    nats = []
    for _ in range(40):
        total, _, _ = model.loss(tokens[:, :-1], tokens[:, 1:])
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        nats.append(total.item() / (tokens.shape[1] - 1))
    assert nats[0] > 1.4
    assert nats[-1] < 0.7
