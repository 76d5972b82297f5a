"""``/v1/score`` with ``pieces``: the ids of tokens, and what each of the likeliest would add to the text."""

from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from serve.page.server import WORDS, models, words
from unrolled.tokenizer import Tokenizer
from unrolled.tokenizer.byte import ByteTokenizer


def rows(client: TestClient, **body: Any) -> list[dict[str, Any]]:
    answer = client.post("/v1/score", json={"unit": "token", "top_k": 10, "pieces": True, "close": False, **body})
    assert answer.status_code == 200, answer.text
    assert answer.json()["columns"][-3:] == ["id", "top_ids", "top_texts"]
    return answer.json()["rows"]


@pytest.mark.parametrize(("name", "text"), [("tiny", "a cat é\n\N{GRINNING FACE}s"), ("words", WORDS + "the dog")])
def test_ids_and_texts_of_a_text(serving: Callable[..., TestClient], name: str, text: str) -> None:
    tokenizer: Tokenizer = words() if name == "words" else ByteTokenizer()
    found = rows(serving(models=models([name])), text=text)
    ids = tokenizer.encode(text)
    assert [row["id"] for row in found] == ids
    inside = 0
    for place, row in enumerate(found):
        assert [tokenizer.token(one) for one in row["top_ids"]] == [pair[0] for pair in row["top"]]
        decoder = tokenizer.decoder()
        before = "".join(map(decoder.push, ids[:place]))
        if decoder.pending:
            assert row["top_texts"] == [None] * len(row["top_ids"])
            inside += 1
            continue
        for one, added in zip(row["top_ids"], row["top_texts"], strict=True):
            whole = tokenizer.decode([*ids[:place], one])
            # a byte that is no whole character decodes to a sign for what is none
            assert whole == (before + added if added is not None else before + "\ufffd")
    assert inside == (4 if name == "tiny" else 0), "in the middle of two characters"


def test_they_go_on_from_a_state(serving: Callable[..., TestClient]) -> None:
    client = serving(models=models(["words"]))
    whole = rows(client, text="the cat sat on")
    state = client.post("/v1/state", json={"text": "the cat"}).json()["state"]
    part = rows(client, text=" sat on", state=state)
    assert [row["top_texts"] for row in part] == [row["top_texts"] for row in whole[2:]]
    assert all(text is None or text.startswith((" ", "\n")) for text in part[0]["top_texts"])


def test_ids_in_place_of_a_text(serving: Callable[..., TestClient]) -> None:
    (row,) = rows(serving(models=models(["tiny"])), ids=[65])
    assert row["id"] == 65


def test_words_have_none(client: TestClient) -> None:
    answer = client.post("/v1/score", json={"text": "ab", "pieces": True})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "pieces"
