"""The page as a file: self-contained, and safe whatever the text, the tokens and the names are."""

import base64
import hashlib
import html.parser
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest

from train.runs import experiment, write_text
from unrolled.analyse import PageConfig, page_html, page_of_runs, write_page
from unrolled.analyse.page.write import SCRIPTS
from unrolled.core.errors import UsageError
from unrolled.runs import Run
from unrolled.serve.page.pages import READER, RUNS
from unrolled.train import train

HOSTILE = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)> &lt; {{style}} \\u003c\u2028]]> \"'`"


class Reader(html.parser.HTMLParser):
    """Elements, attributes, and what stands inside scripts and styles."""

    def __init__(self, page: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] in ("script", "style") and data.strip():
            self.inside.append(data)


def model(**changes: Any) -> dict[str, Any]:
    return {"name": "a", "vocabulary": ["x"], **changes}


def test_nothing_breaks_out() -> None:
    plain = Reader(page_html("text", [model()], "title"))
    odd = Reader(page_html(HOSTILE, [model(name=HOSTILE, vocabulary=[HOSTILE])], HOSTILE))
    assert odd.elements == plain.elements, "the skeleton does not depend on the data"
    style, data, script = odd.inside
    assert json.loads(data) == {
        "version": 1, "title": HOSTILE, "text": HOSTILE, "models": [{"name": HOSTILE, "vocabulary": [HOSTILE]}]
    }  # fmt: skip
    assert not re.search("[<>&\u2028]", data)
    assert (style, script) == (plain.inside[0], plain.inside[2])


def test_the_policy_allows_this_script_and_no_network() -> None:
    reader = Reader(page_html(HOSTILE, [model()], "title"))
    policy = next(found["content"] for tag, found in reader.elements if found.get("http-equiv"))
    assert policy is not None
    style, _, script = reader.inside
    for kind, source in (("script", script), ("style", style)):
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    handlers = [name for _, found in reader.elements for name in found if name.startswith("on")]
    sources = [name for _, found in reader.elements for name in found if name in ("src", "href")]
    assert handlers == sources == []
    assert "http" not in script + style
    assert "innerHTML" not in script


def test_braces_of_the_data_are_data() -> None:
    assert page_html("{{data}} {{script}}", [model()], "{{policy}}").count('"{{policy}}"') == 1


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    home = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNROLLED_CACHE", str(home / "cache"))
        config = experiment(write_text(home / "text"), train={"steps": 4, "validations": 1, "save_minutes": 9.0})
        return Run(train(config, home / "run", "cpu"), "cpu", "auto")


def test_two_runs_share_the_page(run: Run, tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("the cat sleeps\n" * 200)
    heard: list[tuple[int, int]] = []
    found = page_of_runs([run, run], text, PageConfig(), lambda done, total, _: heard.append((done, total)))
    content, models, title = found
    assert (content, title) == (text.read_text(), "a.txt")
    assert [one.value["name"] for one in models] == [str(run.path)] * 2, "two folders of one name are told apart"
    assert [one.tokens for one in models] == [3000, 3000]
    assert heard[-1] == (3000, 3000)
    values = [one.value for one in models]
    size = write_page(tmp_path / "new" / "page.html", content, values, title)
    assert (tmp_path / "new" / "page.html").stat().st_size == size < 20e6


@pytest.mark.parametrize("megabytes", [0.3, 0.5, 1.0])
def test_the_page_stays_below_its_cap(run: Run, tmp_path: Path, megabytes: float) -> None:
    text = tmp_path / "a.txt"
    text.write_text("under the green hill a small dog runs\n" * 150)
    content, models, title = page_of_runs([run], text, PageConfig(megabytes=megabytes))
    size = write_page(tmp_path / "page.html", content, [one.value for one in models], title)
    assert size <= megabytes * 1e6
    assert (models[0].kept < models[0].total) == (models[0].note is not None) == (megabytes < 1)
    with pytest.raises(UsageError, match="raise --megabytes"):
        page_of_runs([run], text, PageConfig(megabytes=0.1))


@pytest.mark.slow
def test_the_wheel_has_the_files_of_the_page(tmp_path: Path) -> None:
    builders = pytest.importorskip("hatchling.builders.wheel", reason="hatchling is not installed")
    root = Path(__file__).parents[2]
    (built,) = builders.WheelBuilder(str(root)).build(directory=str(tmp_path), versions=["standard"])
    names = set(zipfile.ZipFile(built).namelist())
    assert {f"unrolled/analyse/page/{name}" for name in ("page.html", "page.css", *SCRIPTS)} <= names
    # and those of the pages of a server
    own = ("page.html", "page.css", "runs.html", "runs.css", *READER, *RUNS)
    assert {f"unrolled/serve/page/{name}" for name in own} <= names
    assert {f"unrolled/core/page/{name}" for name in ("base.css", "base.js", "tokens.css", "tokens.js")} <= names
