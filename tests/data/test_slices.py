"""Documents with a date, in slices."""

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unrolled.core.errors import UsageError
from unrolled.data import CorpusConfig, open_corpus
from unrolled.data.slices import slice_names, slice_of
from unrolled.data.spec import SPLITS

DAYS = st.dates(date(2018, 11, 1), date(2021, 2, 1))


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def numbered(days: list[date]) -> list[dict[str, Any]]:
    return [{"date": day.isoformat(), "text": f"document {i} of {day}"} for i, day in enumerate(days)]


def documents(config: dict[str, Any], split: str) -> list[str]:
    corpus = open_corpus(CorpusConfig.parse(config))
    return [b"".join(part.chunks()).decode().strip() for part in corpus.parts(split)] if split in corpus.splits else []


@settings(max_examples=25, deadline=None)
@given(
    days=st.lists(DAYS, min_size=40, max_size=80),
    slices=st.sampled_from(["year", ["2019-06-15", "2020-02-29"]]),
)
def test_a_document_is_in_one_slice_and_one_split(days: list[date], slices: Any, tmp_path_factory: Any):
    """A partition: in the order of time, borders to the later slice, no document twice, none lost."""
    path = write(tmp_path_factory.mktemp("text") / "news.jsonl", numbered(days))
    config = {"path": str(path), "time": "date", "slices": slices, "fractions": (0.5, 0.25, 0.25)}
    names = slice_names(CorpusConfig.parse(config))
    kept, first = [], []
    for name in names:
        own = [day for day in days if slice_of(day, slices) == name]
        if len(own) < 4:  # perhaps too few to be cut
            continue
        found = every({**config, "slice": name})
        for split in SPLITS:
            dates = [date.fromisoformat(text[-10:]) for text in documents({**config, "slice": name}, split)]
            assert dates
            assert dates == sorted(dates)
        assert sorted(text[-10:] for text in found) == sorted(day.isoformat() for day in own)
        kept += found
        first.append(min(own))
    assert len(kept) == len(set(kept))
    assert first == sorted(first)


def every(config: dict[str, Any]) -> list[str]:
    return [text for split in SPLITS for text in documents(config, split)]


def test_borders_are_of_the_later_slice():
    assert slice_of(date(2019, 6, 14), ["2019-06-15", "2020-02-29"]) == "begin"
    assert slice_of(date(2019, 6, 15), ["2019-06-15", "2020-02-29"]) == "2019-06-15"
    assert slice_of(date(2020, 2, 29), ["2019-06-15", "2020-02-29"]) == "2020-02-29"
    assert [slice_of(date(2019, month, 1), "quarter") for month in (3, 4, 12)] == ["2019-Q1", "2019-Q2", "2019-Q4"]
    assert slice_of(date(2019, 12, 31), "month") == "2019-12"
    assert slice_of(date(2019, 12, 31) + timedelta(1), "year") == "2020"


def test_equal_texts_are_there_once_the_earliest(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    rows = [
        *numbered([date(2019, 1, day) for day in range(1, 9)]),
        *numbered([date(2020, 1, day) for day in range(1, 9)]),
    ]
    rows += [{"date": "2020-05-01", "text": rows[0]["text"]}, {"date": "2020-05-01", "text": "  "}]
    path = write(tmp_path / "news.jsonl", rows)
    config = {"path": str(path), "time": "date", "fractions": (0.5, 0.25, 0.25)}
    assert slice_names(CorpusConfig.parse(config)) == ["2019", "2020"]
    late = every({**config, "slice": "2020"})
    assert len(late) == 8
    assert rows[0]["text"] not in late
    assert "left out 2 of 18 documents" in caplog.text


def test_a_slice_does_not_depend_on_the_others(tmp_path: Path):
    early, late = numbered([date(2019, 1, d) for d in range(1, 25)]), numbered([date(2020, 1, d) for d in range(1, 25)])
    settings = {"time": "date", "slice": "2020", "fractions": (0.5, 0.25, 0.25)}
    alone, both = write(tmp_path / "a.jsonl", late), write(tmp_path / "b.jsonl", [*late, *early])
    for split in SPLITS:
        assert documents({"path": str(alone), **settings}, split) == documents({"path": str(both), **settings}, split)
    config = {"path": str(both), **settings, "slice": None}
    for split in SPLITS:
        years = [documents({**config, "slice": name}, split) for name in ("2019", "2020")]
        assert documents(config, split) == years[0] + years[1]


def test_dates_of_file_names(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    for month in range(1, 13):
        (tmp_path / f"news-2019-{month:02}.txt").write_text(f"month {month}\nof the year\n")
    (tmp_path / "about.txt").write_text("about\n")
    config = {"path": str(tmp_path), "time": "news-%Y-%m", "slices": "quarter", "fractions": (0.34, 0.33, 0.33)}
    assert slice_names(CorpusConfig.parse(config)) == [f"2019-Q{i}" for i in range(1, 5)]
    found = every({**config, "slice": "2019-Q2"})
    assert sorted(found) == [f"month {i}\nof the year" for i in (4, 5, 6)]
    assert "about.txt" in caplog.text
    corpus = open_corpus(CorpusConfig.parse({**config, "slice": "2019-Q2"}))
    assert (corpus.reset, corpus.name) == ("document", f"{tmp_path.name} 2019-Q2")
    assert CorpusConfig.parse({**config, "slice": 2019}).slice == "2019"
    assert CorpusConfig.parse({**config, "slices": [date(2019, 7, 1)]}).slices == ("2019-07-01",)


@pytest.mark.parametrize(
    ("changes", "rows", "message"),
    [
        ({"time": None, "slice": "2019"}, [], "say where it is with corpus.time"),
        ({"slice": "2018"}, [], "unknown slice in time '2018'"),
        ({"slices": []}, [], "one or more days"),
        ({"slices": ["2020", "2019"]}, [], "each later than the one before"),
        ({"slices": ["soon"]}, [], "has the date 'soon', which is no year"),
        ({"time": "when"}, [], "unknown field of line 1 of"),
        ({"field": "body"}, [], "unknown field of line 1 of"),
        ({"reading": "exact"}, [], "leave out corpus.reading"),
        ({"time": "%Y-%q"}, [], "takes %Y, %m and %d"),
        ({"time": "%Y-%d"}, [], "needs %Y, perhaps %m"),
        ({}, [{"date": "2019-13-01", "text": "a"}], "has the date '2019-13-01', which is no year"),
        ({}, [{"date": None, "text": "a"}], "which is no year"),
        ({}, [{"date": "2019-01-01", "text": 3}], "has no text in 'text'"),
        ({}, [[1]], "is no JSON object"),
        ({"slices": "quarter"}, [{"date": "2019", "text": "a"}], "lies in several slices"),
        ({}, [{"date": "2021-01-01", "text": "a"}], "the slice 2021 has 1 document.*too few to be cut"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], rows: list[Any], message: str, tmp_path: Path):
    path = write(tmp_path / "news.jsonl", [*numbered([date(2019, 1, d) for d in range(1, 30)]), *rows])
    with pytest.raises(UsageError, match=message):
        open_corpus(CorpusConfig.parse({"path": str(path), "time": "date", **changes}))
