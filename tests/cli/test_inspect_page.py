"""``unrolled inspect page``: the file, what is said of it, refusals."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Command

LINE = "the cat sleeps under the green hill\n"


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    (tmp_path / "lines.txt").write_text(LINE * 10)
    return tmp_path / "lines.txt"


def held(page: str = "page.html") -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', Path(page).read_text(), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_one_and_two(unrolled: Command, trained: Path, lines: Path) -> None:
    code, out, err = unrolled("inspect", "page", trained, lines)
    assert (code, err) == (0, "")
    size = Path("page.html").stat().st_size
    assert out == f"trained: 360 tokens, 8 of 8 units\npage.html, {size / 1e6:.1f} MB\n"
    assert held()["text"] == LINE * 10
    assert held()["title"] == "lines.txt"
    shutil.copytree(trained, "again")
    code, out, err = unrolled("inspect", "page", trained, "again", lines, "--out", "made/two.html", "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["bytes"] == Path("made/two.html").stat().st_size
    assert told["runs"][1] == {"name": "again", "tokens": 360, "units": 8, "units_in_all": 8}
    assert told["left_out"] == []
    assert [model["name"] for model in held("made/two.html")["models"]] == ["trained", "again"]


def test_the_settings_arrive(unrolled: Command, trained: Path, lines: Path) -> None:
    def model(*options: object) -> dict[str, Any]:
        code, _, err = unrolled("inspect", "page", trained, lines, *options)
        assert code == 0, err
        return held()["models"][0]

    assert list(model()["groups"][0]["series"]) == ["i", "f", "g", "o", "c", "h"]
    assert list(model("--internals", "0.c", "--internals", "0.h")["groups"][0]["series"]) == ["c", "h"]
    assert len(model("--units", 3)["groups"][0]["units"]) == 3
    assert model("--units", 0, "--unit", "0.5")["groups"][0]["units"] == [5]
    assert model("--alternatives", 2)["alternatives"] == 2
    code, _, err = unrolled("inspect", "page", trained, lines, "--megabytes", 0.08)
    assert code == 0
    assert re.fullmatch(
        r"the page holds \d of the 8 units of trained, those that vary most; raise --megabytes \(now 0.08\) or name "
        r"--internals to see more\.\n",
        err,
    )
    assert Path("page.html").stat().st_size <= 80_000


def test_refusals(refused: Callable[..., str], unrolled: Command, trained: Path, lines: Path, text: Path) -> None:
    page = ["inspect", "page"]
    assert "a page shows one or two runs, not 3" in refused(*page, trained, trained, trained, lines)
    assert "there is no text at none.txt" in refused(*page, trained, "none.txt")
    assert "is not a run" in refused(*page, "no/run", lines)
    assert "unknown internal '0.q'" in refused(*page, trained, lines, "--internals", "0.q")
    assert "there is no unit '0.8'" in refused(*page, trained, lines, "--unit", "0.8")
    assert "raise --megabytes, or give a shorter text" in refused(*page, trained, lines, "--megabytes", 0.01)
    assert "ask for fewer --units" in refused(*page, trained, lines, "--megabytes", 0.08, "--units", 8)
    Path("empty.txt").write_text("")
    assert "empty.txt is empty" in refused(*page, trained, "empty.txt")
    Path("odd.txt").write_bytes(b"the \xff cat\n")
    assert "is not UTF-8 at byte 4" in refused(*page, trained, "odd.txt")
    Path("counts.toml").write_text('corpus.name = "pydoc"\ntokenizer.name = "word"\n[counts]\norder = 2\n')
    assert unrolled("train", "counts.toml", "--corpus", text, "--out", "counted", "--sample", 0).code == 0
    assert "is a count model, which has no neural weights" in refused(*page, "counted", lines)
    assert not Path("page.html").exists()
    assert unrolled(*page, trained).code == 2
