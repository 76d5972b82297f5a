"""The pages of results, and the picture of the README, are what their records render to."""

import importlib.util
import json
import re
import shutil
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def loaded(name: str) -> ModuleType:
    """A script of docs as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    return loaded("tables")


@pytest.fixture(scope="module")
def picture() -> ModuleType:
    return loaded("picture")


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    for name in ("records", "results"):
        shutil.copytree(DOCS / name, tmp_path / name)
    shutil.copy(DOCS / "results.md", tmp_path)
    return tmp_path


def stale(tables: ModuleType, docs: Path) -> list[str]:
    return [path.name for path, text in tables.pages(docs).items() if path.read_text(encoding="utf-8") != text]


def test_the_pages_are_what_the_records_render_to(tables: ModuleType):
    assert stale(tables, DOCS) == []


def test_every_page_has_records_and_every_record_a_page(tables: ModuleType):
    assert {path.stem for path in (DOCS / "results").glob("*.md")} == set(tables.ORDER)
    assert {path.stem for path in (DOCS / "records").glob("*.toml")} == set(tables.ORDER)


def test_a_changed_number_is_noticed(tables: ModuleType, copied: Path):
    page = copied / "results" / "training.md"
    page.write_text(page.read_text(encoding="utf-8").replace("| **1.4909** |", "| **1.4809** |"), encoding="utf-8")
    assert stale(tables, copied) == ["training.md"]
    record = copied / "records" / "compression.toml"
    record.write_text(record.read_text(encoding="utf-8").replace('"157,559"', '"157,558"'), encoding="utf-8")
    assert sorted(stale(tables, copied)) == ["compression.md", "training.md"]


def test_rendering_twice_changes_nothing(tables: ModuleType, copied: Path):
    page = copied / "results" / "test-time.md"
    emptied = re.sub(r"(<!-- table \w+ -->).*?(<!-- end -->)", r"\1\n\2", page.read_text(encoding="utf-8"), flags=re.S)
    page.write_text(emptied, encoding="utf-8")
    page.write_text(tables.pages(copied)[page], encoding="utf-8")
    assert page.read_text(encoding="utf-8") == (DOCS / "results" / "test-time.md").read_text(encoding="utf-8")


def test_what_does_not_fit_is_refused(tables: ModuleType):
    with pytest.raises(ValueError, match="columns"):
        tables.table(["a", "b"], "lr", [["1"]])
    with pytest.raises(ValueError, match="no place for x"):
        tables.filled("# A page\n", {"x": "| a |"})
    with pytest.raises(KeyError):
        tables.filled("<!-- table y -->\n<!-- end -->\n", {})


def test_figures_of_the_summary_stand_on_the_page_that_it_names(tables: ModuleType):
    for name in tables.ORDER:
        page = (DOCS / "results" / f"{name}.md").read_text(encoding="utf-8")
        numbers = set(re.findall(r"\d[\d.,]*(?:e-\d+)?(?<![.,])", page))
        record = tomllib.loads((DOCS / "records" / f"{name}.toml").read_text(encoding="utf-8"))
        for entry in record["summary"]:
            missing = set(re.findall(r"\d[\d.,]*(?:e-\d+)?(?<![.,])", entry["figure"])) - numbers
            assert not missing, f"{name}: {missing} of {entry['figure']!r}"


def test_the_picture_is_what_its_record_draws(picture: ModuleType):
    record = json.loads(picture.RECORD.read_text(encoding="utf-8"))
    assert picture.drawn(record) == picture.PICTURE.read_text(encoding="utf-8")
    assert picture.PICTURE.stat().st_size < 60_000
    record[0]["points"][-1][2] -= 0.1
    assert picture.drawn(record) != picture.PICTURE.read_text(encoding="utf-8")


def test_the_record_of_the_picture_is_gathered_from_runs(picture: ModuleType, tmp_path: Path):
    import unrolled as ur

    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat\n" * 60, encoding="utf-8")
    few = ["tokenizer.name=char", "model.width=8", "model.cell.factor=4", "train.steps=2", "train.final_eval=false"]
    run = ur.train(ur.experiment(corpus=str(text), settings=few), tmp_path / "run")
    (found,) = picture.collected([run])
    assert (found["cell"], found["width"]) == ("mlstm", 8)
    assert found["points"][-1][1] == found["tokens"]
    assert found["points"][-1][2] == pytest.approx(ur.Run(run).record["valid"]["figures"]["bits_per_token"], abs=1e-4)
