"""Result records: figures, names, and the way to disk and back."""

import json
import math

import pytest

from unrolled.core.errors import UnrolledError
from unrolled.evaluate import EvalResult, Protocol


def record(**fields) -> EvalResult:
    values = {"nats": 100.0, "tokens": 40, "words": 20, "characters": 110, "bytes": 125, "protocol": {}}
    return EvalResult.parse({**values, **fields})


def test_figures_follow_from_the_totals():
    assert record().figures() == pytest.approx(
        {
            "nats_per_token": 2.5,
            "bits_per_token": 2.5 / math.log(2),
            "perplexity_per_token": math.exp(2.5),
            "perplexity_per_word": math.exp(5),
            "bits_per_character": 100 / 110 / math.log(2),
            "bits_per_byte": 0.8 / math.log(2),
        }
    )


def test_figures_that_do_not_exist_are_null():
    huge = record(nats=1e6, words=0, characters=0)
    figures = json.loads(json.dumps(huge.to_json(), allow_nan=False))["figures"]
    assert figures["perplexity_per_token"] is None
    assert figures["perplexity_per_word"] is None
    assert figures["bits_per_character"] is None
    assert figures["nats_per_token"] == 25000.0
    assert ("perplexity per token", "too large or undefined") in huge.rows()


def test_what_adapters_counted_is_in_the_table_part_by_part():
    told = {
        "neighbours": {"tokens": 1200, "saved": 0.593194},
        "recycle": {"full": {"tokens": 6, "nats": 12.34567}, "recycled": {"tokens": 5, "nats": 10.0}},
        "cache": {"kind": "words"},
    }
    rows = record(provenance={"told": told}).rows()
    assert rows[-7:] == [
        ("neighbours tokens", "1,200"),
        ("neighbours saved", "0.5932"),
        ("recycle full tokens", "6"),
        ("recycle full nats", "12.35"),
        ("recycle recycled tokens", "5"),
        ("recycle recycled nats", "10"),
        ("cache kind", "words"),
    ]


def test_round_trip(tmp_path):
    one = record(provenance={"corpus": "x", "step": 3}, protocol={"columns": 10, "first": "context"})
    path = tmp_path / "result.json"
    one.save(path)
    assert EvalResult.load(path) == one
    saved = json.loads(path.read_text())
    assert saved["protocol"]["name"] == "static, 10 columns, first token is context"
    assert saved["protocol"]["comparable_key"] == one.protocol.comparable_key
    assert saved["figures"]["nats_per_token"] == 2.5
    assert (saved["kind"], saved["version"]) == ("evaluation", 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "other"}, "not an evaluation record"),
        ({"version": 2}, "format 2"),
        ({"tokens": "many"}, "damaged"),
        ({"surprise": 1}, "damaged"),
        ({"nats": None}, "damaged"),
    ],
)
def test_foreign_and_damaged_records_are_refused(tmp_path, change, message):
    path = tmp_path / "result.json"
    path.write_text(json.dumps({**record().to_json(), **change}))
    with pytest.raises(UnrolledError, match=message):
        EvalResult.load(path)
    path.write_text("[1]")
    with pytest.raises(UnrolledError, match="not an evaluation record"):
        EvalResult.load(path)


def test_protocols_that_differ_in_figure_differ_in_key():
    base = Protocol.parse({})
    same = [Protocol.parse({"window": 35}), Protocol.parse({"precision": "bf16"})]
    other = [
        {"kind": "cache"},
        {"columns": 10},
        {"first": "context"},
        {"reset": "starts"},
        {"limit": 30_000},
        {"options": {"theta": 0.3}},
    ]
    assert {protocol.comparable_key for protocol in same} == {base.comparable_key}
    keys = {Protocol.parse(fields).comparable_key for fields in other}
    assert len(keys) == len(other)
    assert base.comparable_key not in keys
    assert base.name == "static"
    assert Protocol.parse({"limit": 5, "reset": "starts"}).name == "static, state reset at each start, first 5 tokens"
