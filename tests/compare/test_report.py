"""What a comparison writes: the same bytes twice, everything in its order, and little where there is little."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compare.made import BLOCK_SD, BLOCKS, contrast, crossed, diverged, found, system
from unrolled.analyse.plots import plots_wanted
from unrolled.compare.answer import analyse
from unrolled.compare.report import write as writing
from unrolled.compare.report import write_report
from unrolled.compare.report.figures import draw_figures
from unrolled.compare.report.page import inline_svg
from unrolled.compare.report.tables import results_tsv
from unrolled.compare.results import Found, SearchFound

pytest.importorskip("matplotlib", reason="matplotlib is not installed (the extra report)")
pytest.importorskip("scipy", reason="scipy is not installed (the extra report)")

ORDER = [
    "Answer", "What was held equal", "Systems", "Contrasts", "Not planned", "Amendments", "Provenance",
    "What the intervals do not cover", "For the next plan",
]  # fmt: skip
FIGURES = ["contrasts", "curves", "pairs", "search", "seeds", "training"]


def whole() -> Found:
    rng = np.random.default_rng(3)
    blocks = BLOCK_SD * rng.standard_normal(BLOCKS)
    a, b, c = (
        system(name, crossed(rng, 10, shift, blocks), searched=True)
        for name, shift in (("a", 0.0), ("b", 0.03), ("c<i> | $x$", 0.03))
    )
    c = replace(c, runs=(*c.runs[:9], diverged(10, 0.002)), set_aside=(diverged(1, 0.008),), at_edge=True)
    return found(
        [a, b, c], [contrast(), contrast("b - c", "b", c.name, smallest=0.02)],
        {"a is better": {"a - b": ["better"]}}, search_setting="train.optimizer.lr",
        amendments=({"utc": "2026-12-01T10:00:00Z", "what": "seeds 9-10 added", "reason": "power"},),
        free=("U may set stream.columns.",),
    )  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_report(whole(), folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_equal_results_give_equal_bytes(written: Path, tmp_path: Path) -> None:
    write_report(whole(), tmp_path)
    assert contents(tmp_path) == contents(written)


def test_the_files(written: Path) -> None:
    named = [f"figures/{name}.svg" for name in FIGURES]
    assert list(contents(written)) == sorted(
        ["contrasts.tsv", *named, "record.json", "report.html", "report.md", "results.tsv"]
    )


def test_the_order_and_what_is_said(written: Path) -> None:
    text = (written / "report.md").read_text()
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == ORDER
    assert text.startswith(
        "# Is a better than b?\n\n## Answer\n\n"
        "Not everything was held equal: U may set stream.columns.\n\na is better\n"
    )
    for told in (
        "\n- b - c: 1 of 10 runs of c",
        "- Equal: tokens: 6,000.", "- Free: U may set stream.columns.", "0.002 (edge)", "| 1 (1 set aside) |",
        "- a - b: a is better than b on letters: ", "1 of 10 runs of c\\<i\\> \\| $x$ diverged and is left out.",
        "| a against c\\<i\\> \\| $x$ | letters | better |",
        "- 2026-12-01T10:00:00Z: seeds 9-10 added (reason: power)", "- sha256 of the registered plan: 000",
        "- backends of the runs: cell\\_loop by native", "It says nothing of other corpora",
        "On letters the standard deviation over seeds, pooled over systems, is 0.00", "correlation at equal seeds",
        "![The two systems of each contrast, a line a seed.](figures/pairs.svg)",
    ):  # fmt: skip
        assert told in text, told


def test_the_tables_hold_what_was_found(written: Path) -> None:
    with (written / "results.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert len(rows) == 31
    assert [row["set_aside"] for row in rows].count("1") == 1
    first, told = rows[0], whole().systems[0].runs[0]
    assert float(first["nats_per_token"]) == pytest.approx(told.nats_per_token, rel=1e-8)
    assert (first["system"], first["seed"], first["status"]) == ("a", "1", "finished")
    assert rows[-2]["nats_per_token"] == ""
    with (written / "contrasts.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [(row["contrast"], row["registered"]) for row in rows] == [
        ("a - b", "1"), ("b - c", "1"), ("a against c<i> | $x$", "0"),
    ]  # fmt: skip
    assert rows[0]["verdict"] == "better"


def test_results_know_no_clock_and_no_machine() -> None:
    told = whole()
    other = [
        replace(one, runs=tuple(replace(run, cpu_seconds=9.0, wall_seconds=9.0, machine="x") for run in one.runs))
        for one in told.systems
    ]
    assert results_tsv(replace(told, systems=tuple(other))) == results_tsv(told)


def test_the_record(written: Path) -> None:
    record = json.loads((written / "record.json").read_text())
    assert (record["kind"], record["version"], record["complete"]) == ("unrolled comparison", 1, True)
    assert record["answer"] == "a is better"
    one = record["systems"][0]
    assert one["search"][-1] == {"value": 0.008, "nats": None, "diverged": True, "seeds": 2, "edge": False}
    assert {
        "seed",
        "status",
        "nats_per_token",
        "bits_per_character",
        "train_nats",
        "cpu_seconds",
        "wall_seconds",
    } <= set(one["runs"][0])
    row = record["contrasts"][0]
    assert row["interval"][0] < row["difference"] < row["interval"][1] < 0
    for key in ("t", "df", "p", "p_holm", "verdict", "seeds_better", "sd_seeds", "correlation", "power_at_smallest"):
        assert row[key] is not None, key
    assert len(record["not_planned"]) == 1


def test_figures_are_text_and_go_into_pages_without_styles(written: Path) -> None:
    for name in FIGURES:
        svg = (written / "figures" / f"{name}.svg").read_text()
        assert "<text" in svg, "text is text"
        inside = inline_svg(svg, name, "a <caption>")
        assert "style=" not in inside
        assert "<style" not in inside
        assert "#000000" not in inside
        assert 'aria-label="a &lt;caption&gt;"' in inside
    assert "c&lt;i&gt; | $x$" in (written / "figures" / "seeds.svg").read_text()
    page = (written / "report.html").read_text()
    assert "<script" not in page
    assert "c&lt;i&gt; | $x$" in page


SMALL = {
    "nothing": found([]),
    "no run": found([system("a", [])], seeds=3),
    "one system, one seed": found([system("a", crossed(np.random.default_rng(0), 1))]),
    "two systems, one seed": found(
        [system(name, crossed(np.random.default_rng(i), 1)) for i, name in enumerate("ab")], [contrast()], seeds=2
    ),
    "all diverged": found([system("a", [], runs=(diverged(1),)), system("b", [], runs=(diverged(1),))], [contrast()]),
}


@pytest.mark.parametrize("name", SMALL)
def test_little_is_enough(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "draw_figures", lambda *_: [])  # drawn below
    analysis = write_report(SMALL[name], tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == ORDER
    assert ("Not complete: " in text) == (not analysis.complete) == (name in ("no run", "two systems, one seed"))
    json.loads((tmp_path / "record.json").read_text())


@pytest.mark.parametrize("name", SMALL)
def test_figures_of_little(name: str, tmp_path: Path) -> None:
    write_report(SMALL[name], tmp_path, png=True)
    drawn = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert drawn == {
        "nothing": set(), "no run": set(), "one system, one seed": {"seeds", "curves", "training"},
        "two systems, one seed": {"seeds", "curves", "training", "contrasts", "pairs"}, "all diverged": set(),
    }[name]  # fmt: skip
    assert {path.suffix for path in (tmp_path / "figures").iterdir()} <= {".png", ".svg"}


@pytest.mark.parametrize("values", [("adam", "sgd", "rmsprop"), (0.0, 0.1, 0.2), (0.002, 0.001, 0.0005)])
def test_searches_of_any_value_are_drawn(values: tuple[float | str, ...], tmp_path: Path) -> None:
    tried = tuple(SearchFound(v, 1.4 + 0.1 * i, 2, edge=i == 2) for i, v in enumerate(values))
    lost = (SearchFound(values[0], math.inf, 2),)
    systems = [system("a", [], search=tried, chosen=values[2], at_edge=True), system("b", [], search=lost)]
    told = found(systems, search_setting="train.optimizer.lr")
    assert [one.name for one in draw_figures(told, analyse(told), tmp_path)] == ["search"]
    svg = (tmp_path / "search.svg").read_text()
    assert "a (at the edge)" in svg
    for value in values:
        assert f">{value if isinstance(value, str) else f'{value:g}'}</text>" in svg


def test_not_complete_is_said_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "draw_figures", lambda *_: [])
    write_report(replace(whole(), wanted=tuple(range(1, 13))), tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert text.splitlines()[4] == "Not complete: 6 of 36 runs have not ended, and all below may change."
    assert "Not final, since 6 runs have not ended: a is better" in text
    assert json.loads((tmp_path / "record.json").read_text())["complete"] is False


def test_runs_that_were_not_made_alike_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "draw_figures", lambda *_: [])
    told = whole()
    runs = list(told.systems[0].runs)
    runs[2] = replace(runs[2], machine="another CPU", backends={"cell_loop": "generic", "linear": "window"})
    write_report(replace(told, systems=(replace(told.systems[0], runs=tuple(runs)), *told.systems[1:])), tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "- the runs of 'a - b' on letters were made on different machines: a quiet CPU, another CPU\n" in text
    assert "- the runs of 'a - b' on letters used different backends for cell\\_loop: generic, native\n" in text
    assert "the runs of 'b - c'" not in text


def test_the_test_split_comes_with_its_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "draw_figures", lambda *_: [])
    told = whole()
    scores = {(s.name, s.corpus, r.seed): 1.3 + 0.01 * r.seed for s in told.systems for r in s.runs}
    write_report(replace(told, test=scores, test_reasons=("a tokenizer was wrong",)), tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "The test split was scored again: a tokenizer was wrong" in text
    assert "| a - b | letters, test | undecided |" in text
    assert f"| {(1.3 + 0.055) / math.log(2):.4f} |" in text, "the mean of a on the test split"


def test_without_matplotlib_the_figures_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "plots_wanted", lambda: "the plot needs matplotlib")
    write_report(whole(), tmp_path)
    assert not (tmp_path / "figures").exists()
    assert "The figures are left out, since matplotlib is not installed." in (tmp_path / "report.md").read_text()
    assert plots_wanted() is None
