"""``/v1/score``: the rows of ``unrolled score``."""

from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from serve.engine.tiny import chars, served
from unrolled.data.reading import Part
from unrolled.evaluate import ScoreConfig, read_text, score_text
from unrolled.evaluate.text.rows import row_columns, row_of

MODEL = served()
TEXT = "abc de\n\nfgh i jkl\n" * 3


def rows(text: str = TEXT, **options: Any) -> list[dict[str, Any]]:
    config = ScoreConfig.parse(options)
    blocks = read_text(Part("x", make=text.encode))
    columns = row_columns(config)
    return [row_of(scored, columns) for scored in score_text(MODEL.reader, chars(), blocks, config)]


def plain(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As JSON has them."""
    return [{n: [list(one) for one in v] if isinstance(v, tuple) else v for n, v in row.items()} for row in found]


def asked(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post("/v1/score", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize(
    "options",
    [
        {}, {"unit": "token"}, {"entropy": True, "rank": True, "top_k": 3}, {"boundary": "trailing"},
        {"reset": "line"}, {"reset": "document", "unit": "token", "top_k": 30},
    ],
)  # fmt: skip
def test_rows_are_those_of_the_command_to_the_last_bit(client: TestClient, options: dict[str, Any]) -> None:
    found = asked(client, text=TEXT, **options)
    assert found["rows"] == plain(rows(**options))
    assert found["columns"] == list(found["rows"][0])
    bits = sum(row["surprisal_bits"] for row in found["rows"])
    assert found["total"]["bits"] == pytest.approx(bits, rel=1e-9)
    assert (found["total"]["tokens"], found["total"]["words"]) == (len(TEXT), 15)


def test_words(client: TestClient) -> None:
    found = asked(client, words=["abc", "de", "", "fgh"])
    assert [row["word"] for row in found["rows"]] == ["abc", "de", "fgh"]
    wanted = [row["surprisal_bits"] for row in rows("abc de\nfgh\n") if row["word"] != "\n"]
    assert [row["surprisal_bits"] for row in found["rows"]] == pytest.approx(wanted, rel=1e-6)  # read in other windows
    assert [row["word"] for row in asked(client, words=["abc", "de"], ends=True)["rows"]] == ["abc", "de", "\n"]


def test_ids(client: TestClient) -> None:
    found = asked(client, ids=chars().encode(TEXT), rank=True)
    wanted = rows(unit="token", rank=True)
    for name in ("token", "surprisal_bits", "rank", "offset"):
        assert [row[name] for row in found["rows"]] == [row[name] for row in wanted]


def test_in_parts(client: TestClient) -> None:
    whole = asked(client, text=TEXT, unit="token")
    for kind in ("blob", "handle"):
        first = asked(client, text=TEXT[:17], close=False, unit="token", return_state=True, state_format=kind)
        second = asked(client, text=TEXT[17:], state=first["state"], unit="token", return_state=True)
        found = [row["surprisal_bits"] for row in first["rows"] + second["rows"]]
        assert found == pytest.approx([row["surprisal_bits"] for row in whole["rows"]], abs=1e-5)
        assert second["tokens"] == len(TEXT)


def test_every_kind_of_model(serving: Callable[..., TestClient]) -> None:
    client = serving(several=True)
    assert asked(client, model="counts", text="abc\n")["total"]["bits"] > 0
    parts = asked(client, model="counts", text="ab", close=False, return_state=True)
    more = asked(client, text="c\n", state=parts["state"], model="counts")
    whole = asked(client, model="counts", text="abc\n")["total"]["bits"]
    assert parts["total"]["bits"] + more["total"]["bits"] == pytest.approx(whole)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "one of the fields"), ({"text": "a", "ids": [1]}, "one of the fields"), ({"text": ""}, "empty"),
        ({"text": "é"}, "not in the vocabulary"), ({"ids": [99]}, "outside of the vocabulary"),
        ({"ids": [1], "reset": "line"}, "leave out reset"), ({"words": ["a\tb"]}, "tab"), ({"words": ["a\nb"]}, "tab"),
        ({"text": "a", "unit": "line"}, "unit"), ({"text": "a", "top_k": 0}, "top_k"),
        ({"text": "a", "boundary": "trailing", "close": False}, "left open"),
        ({"text": "a", "txt": 1}, "did you mean"), ({"text": "PK\x03\x04zip"}, "zip"),
    ],
)  # fmt: skip
def test_refused(client: TestClient, body: dict[str, Any], said: str) -> None:
    answer = client.post("/v1/score", json=body)
    assert answer.status_code == 400, answer.text
    assert said in answer.json()["error"]["message"]


def test_limits(serving: Callable[..., TestClient]) -> None:
    client = serving(max_prompt=10, max_body=1024)
    assert client.post("/v1/score", json={"ids": [1] * 11}).status_code == 400
    assert client.post("/v1/score", json={"text": "ab " * 400}).status_code == 413
