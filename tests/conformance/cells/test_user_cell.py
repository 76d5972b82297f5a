"""A cell in a module outside the package: the one that CONTRIBUTING.md shows, as a reader would copy it."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from unrolled.cells import CELLS, Cell
from unrolled.model import LanguageModel, ModelConfig

from .build import Case, MakeCell
from .checks import CHECKS

GUIDE = Path(__file__).parents[3] / "CONTRIBUTING.md"


@pytest.fixture(scope="module", autouse=True)
def _mgu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    text = GUIDE.read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert '"mgu": "unrolled.cells.gated.mgu:MGU",' in text, "the line for the table"
    folder = tmp_path_factory.mktemp("user")
    (folder / "my_module.py").write_text(code, encoding="utf-8")
    sys.path.insert(0, str(folder))
    CELLS.add("mgu", "my_module:MGU")
    yield
    CELLS.remove("mgu")
    sys.path.remove(str(folder))
    sys.modules.pop("my_module", None)


def _mogrifier_of(cell: dict[str, Any]) -> MakeCell:
    def make(in_width: int, width: int) -> Cell:
        return CELLS["mogrifier"](in_width, width, CELLS.parse({"name": "mogrifier", "rounds": 3, "cell": cell}))

    return make


MAKERS = {
    "first": Case("mgu", 0),
    "second": Case("mgu", 1),
    "in the Mogrifier": _mogrifier_of({"name": "mgu", "forget_bias": 1.0}),
}


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
@pytest.mark.parametrize("make_cell", MAKERS.values(), ids=MAKERS)
def test_check(make_cell: MakeCell, check: Callable[[MakeCell], None]) -> None:
    check(make_cell)


def test_option_acts() -> None:
    first, second = (Case("mgu", index)(3, 4) for index in range(2))
    assert not first.get_parameter("bias").any()
    assert second.get_parameter("bias").sum() == 4


def test_code_of_the_docs_page_runs() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (GUIDE.parent / "docs" / "adding-a-cell.md").read_text(), re.M | re.S)
    names: dict[str, Any] = {"__name__": "docs_page"}
    try:
        for block in blocks:
            exec(block, names)
        model = LanguageModel(ModelConfig.parse({"width": 4, "layers": 2, "cell": ["gru_before", "lstm"]}), 5)
        assert model.stack.cells()[0].config.reset == "before"
        for make_cell in (Case("gru_before", 0), _mogrifier_of({"name": "gru_before"})):
            for check in CHECKS.values():
                check(make_cell)
    finally:
        CELLS.remove("gru_before")


def test_docs_page_names_every_check() -> None:
    text = (GUIDE.parent / "docs" / "adding-a-cell.md").read_text()
    rows = re.findall(r"^\| ([a-z_0-9, ]+) \|", text.partition("## What the suite checks")[2], re.M)
    assert {name for row in rows for name in row.split(", ")} - {"check"} == set(CHECKS)


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
