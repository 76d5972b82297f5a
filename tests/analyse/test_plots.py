"""The look that all plots share."""

import re
from pathlib import Path
from typing import Any

import pytest

from unrolled.analyse.plots import draw


def test_powers_are_plain_and_dollars_stay(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (the extra report)")

    def fill(figure: Any) -> None:
        axes = figure.subplots()
        axes.plot([1, 10, 100], [-0.1, 0.0, 1.0], label="a $run$")
        axes.set_xscale("log", base=2)
        axes.set_yscale("symlog", linthresh=0.01)
        axes.legend()

    draw(tmp_path / "plot", (4, 3), fill)
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    shown = re.findall(r">([^<>]+)</text>", (tmp_path / "plot.svg").read_text())
    assert "a $run$" in shown
    assert {"1", "4", "64", "0.01", "-0.1"} <= {text.replace("−", "-") for text in shown}
    assert not any("{" in text for text in shown)
