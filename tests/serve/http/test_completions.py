"""``/v1/completions``: OpenAI's form, with the figures of the predictor."""

import json
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

from serve.engine.tiny import chars, served
from unrolled.generate import SamplerConfig, constraint_of, generate
from unrolled.serve.http import completions
from unrolled.tokenizer import Tokenizer

MODEL = served()


def wanted(prompt: str, count: int, samples: int = 1, **sampler: Any) -> list[str]:
    config = SamplerConfig.parse(sampler)
    return [one.text for one in generate(MODEL.reader, chars(), (prompt,), count, config, samples=samples)]


def asked(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def events(client: TestClient, **body: Any) -> list[dict[str, Any]]:
    found = []
    with client.stream("POST", "/v1/completions", json={**body, "stream": True}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in answer.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    for line in lines[:-1]:
        assert line.startswith("data: ")
        found.append(json.loads(line[6:]))
    return found


def refused(client: TestClient, status: int = 400, **body: Any) -> str:
    answer = client.post("/v1/completions", json=body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"].endswith((".", "?"))
    assert ". " not in error["message"]
    return error["message"]


def test_an_answer(client: TestClient) -> None:
    found = asked(client, model="tiny", prompt="abc", max_tokens=20, seed=3, temperature=0.7)
    assert found["object"] == "text_completion"
    assert found["model"] == "tiny@000000000001"
    assert found["usage"] == {"prompt_tokens": 3, "completion_tokens": 20, "total_tokens": 23}
    assert found["seed"] == 3
    (choice,) = found["choices"]
    assert choice == {"text": wanted("abc", 20, seed=3, temperature=0.7)[0], "index": 0, "logprobs": None,
                      "finish_reason": "length"}  # fmt: skip


def test_several_prompts_and_samples(client: TestClient) -> None:
    found = asked(client, prompt=["ab", "", "qq"], n=3, max_tokens=9, seed=5)
    texts = [choice["text"] for choice in found["choices"]]
    assert texts == [text for prompt in ("ab", "", "qq") for text in wanted(prompt, 9, 3, seed=5)]
    assert [choice["index"] for choice in found["choices"]] == list(range(9))
    ids = [chars().encode("ab"), chars().encode("qq")]
    assert [one["text"] for one in asked(client, prompt=ids, max_tokens=9, seed=5)["choices"]] == [
        wanted("ab", 9, seed=5)[0], wanted("qq", 9, seed=5)[0]
    ]  # fmt: skip
    assert asked(client, prompt=ids[0], max_tokens=9, seed=5)["choices"][0]["text"] == wanted("ab", 9, seed=5)[0]


def test_a_stream_is_the_answer(client: TestClient) -> None:
    body = {"prompt": ["ab", "cd"], "n": 2, "max_tokens": 12, "seed": 5, "logprobs": 2, "echo": True}
    whole = asked(client, **body)
    texts, told = (
        [""] * 4,
        [{"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []} for _ in range(4)],
    )
    for event in events(client, **body, stream_options={"include_usage": True}):
        if not event["choices"]:
            assert event["usage"] == whole["usage"]
        for choice in event["choices"]:
            texts[choice["index"]] += choice["text"]
            for name, value in (choice["logprobs"] or {}).items():
                told[choice["index"]][name] += value
    assert texts == [choice["text"] for choice in whole["choices"]]
    assert told == [choice["logprobs"] for choice in whole["choices"]]


def test_an_unseeded_answer_says_its_seed(client: TestClient) -> None:
    found = asked(client, prompt="ab", max_tokens=12)
    assert found["choices"][0]["text"] == wanted("ab", 12, seed=found["seed"])[0]


def test_log_probabilities(client: TestClient) -> None:
    found = asked(client, prompt="abc", max_tokens=5, seed=1, logprobs=3, echo=True)["choices"][0]
    told = found["logprobs"]
    text = "abc" + wanted("abc", 5, seed=1)[0]
    assert found["text"] == text
    assert "".join(told["tokens"]) == text
    assert told["text_offset"] == list(range(8))
    ids = torch.tensor([chars().encode(text)])
    nll = MODEL.reader.window(MODEL.reader.begin(1), ids).nll[0].tolist()
    assert told["token_logprobs"][0] is None
    assert told["top_logprobs"][0] is None
    assert told["token_logprobs"][1:] == pytest.approx([-one for one in nll[1:]], abs=1e-4)
    for value, top, token in zip(told["token_logprobs"][1:], told["top_logprobs"][1:], told["tokens"][1:], strict=True):
        assert len(top) == 3
        assert max(top.values()) >= value
        if token in top:
            assert top[token] == value, "equal to the last bit: clients compare them"
    scored = asked(client, prompt="abc", max_tokens=0, logprobs=0, echo=True, first="score")["choices"][0]
    assert scored["text"] == "abc"
    assert scored["logprobs"]["token_logprobs"] == pytest.approx([-one for one in nll[:3]], abs=1e-4)
    assert scored["logprobs"]["top_logprobs"] is None


def test_what_is_written_is_always_told(client: TestClient) -> None:
    told = asked(client, max_tokens=4, seed=1, logprobs=0)["choices"][0]["logprobs"]
    assert None not in told["token_logprobs"]
    reader = MODEL.reader
    ids = torch.tensor([chars().encode("".join(told["tokens"]))])
    nll = reader.window(reader.begin(1), ids).nll[0].tolist()
    assert told["token_logprobs"] == pytest.approx([-one for one in nll], abs=1e-4)


def test_the_start_symbol_may_be_given(client: TestClient) -> None:
    """A tokenizer of an exported model begins a text with the second id above the vocabulary."""
    ids = [chars().vocab_size + 1, *chars().encode("abc")]
    told = asked(client, prompt=ids, max_tokens=1, logprobs=1, echo=True, temperature=0)["choices"][0]["logprobs"]
    plain = asked(client, prompt="abc", max_tokens=0, logprobs=1, echo=True, first="score")["choices"][0]["logprobs"]
    assert told["token_logprobs"][0] is None
    assert told["token_logprobs"][1:4] == plain["token_logprobs"]
    assert len(told["tokens"]) == 5


def test_stops(client: TestClient) -> None:
    text = wanted("ab", 40, seed=8)[0]
    stop = text[17:19]
    found = asked(client, prompt="ab", max_tokens=40, seed=8, stop=["zzz", stop])["choices"][0]
    assert found["text"] == text[: text.index(stop)]
    assert found["finish_reason"] == "stop"


def test_bias_and_filters(client: TestClient) -> None:
    q = str(chars().find("q"))
    assert asked(client, prompt="ab", logit_bias={q: 100}, max_tokens=4)["choices"][0]["text"] == "qqqq"
    every: tuple[dict[str, Any], ...] = (
        {"top_k": 2}, {"top_p": 0.4}, {"min_p": 0.2}, {"temperature": 0}, {"typical": 0.3}, {"epsilon": 0.1},
        {"eta": 0.1}, {"no_repeat": 2}, {"repetition": 1.4}, {"stop_tokens": [int(q)]},
        {"constrain": {"name": "regex", "pattern": "[a-d]{3}( [e-h]{3})*"}},
        {"constrain": {"name": "regex", "pattern": "abc"}},
    )  # fmt: skip
    for options in every:
        found = asked(client, prompt="ab", max_tokens=15, seed=2, **options)["choices"][0]["text"]
        assert found == wanted("ab", 15, seed=2, **options)[0]
    found = asked(client, prompt="ab", max_tokens=15, seed=2, presence_penalty=1.5, frequency_penalty=0.5)
    assert found["choices"][0]["text"] == wanted("ab", 15, seed=2, presence=1.5, frequency=0.5)[0]


def test_a_constraint_is_read_once_a_request_and_not_where_others_wait(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[threading.Thread] = []
    loop: list[threading.Thread] = []

    def read(sampler: SamplerConfig, tokenizer: Tokenizer) -> Any:
        made.append(threading.current_thread())
        return constraint_of(sampler, tokenizer)

    def submit(self: Any) -> Any:
        loop.append(threading.current_thread())
        return kept(self)

    kept = completions._Asked.submit
    monkeypatch.setattr(completions, "constraint_of", read)
    monkeypatch.setattr(completions._Asked, "submit", submit)
    pattern = {"constrain": {"name": "regex", "pattern": "[a-d]{3}"}}
    found = asked(client, prompt=["a", "b", "c"], n=2, max_tokens=5, **pattern)["choices"]
    assert all(re.fullmatch("[a-d]{3}", choice["text"]) for choice in found)
    assert len(made) == len(loop) == 1
    assert made[0] is not loop[0]


def test_refused(serving: Callable[..., TestClient]) -> None:
    client = serving(max_tokens=50, max_prompt=30, max_samples=4, several=True)
    assert "'prompt'" in refused(client, promt="a", model="tiny")
    assert "say which model: tiny, counts" in refused(client, prompt="a")
    assert "did you mean 'tiny'" in refused(client, 404, prompt="a", model="tny")
    for body in (
        {"suffix": "x"}, {"best_of": 3}, {"presence_penalty": 3}, {"frequency_penalty": -3}, {"temperature": -1},
        {"top_p": 0}, {"logprobs": 21}, {"stop": [""]}, {"stop": ["a"] * 9}, {"stop": "a" * 65}, {"max_tokens": 51},
        {"n": 5}, {"prompt": ["a"] * 5}, {"prompt": "a" * 31}, {"prompt": "a" * 999}, {"prompt": [99]},
        {"prompt": [-1]}, {"prompt": "é"}, {"prompt": {"a": 1}}, {"logit_bias": {"x": 1}}, {"logit_bias": {"99": 1}},
        {"logit_bias": {"1": 101}}, {"seed": -1}, {"max_tokens": "many"}, {"stream_options": {"x": 1}},
        {"constrain": {"name": "regex", "pattern": "[a"}}, {"constrain": "json"}, {"stop_tokens": [99]},
        {"max_tokens": 10**30}, {"state": "st-unknown"}, {"state": "abc"},
    ):  # fmt: skip
        status = 410 if body.get("state") == "st-unknown" else 400
        refused(client, status, **{"prompt": "a", "model": "tiny", **body})


def test_bodies_that_are_none(client: TestClient) -> None:
    json_type = {"content-type": "application/json"}
    for data in (b"", b"[]", b"{", b"\xff", b'{"temperature": NaN}', b"[" * 100_000, b'{"n": ' + b"9" * 10_000 + b"}"):
        answer = client.post("/v1/completions", content=data, headers=json_type)
        assert answer.status_code == 400, answer.text
        assert "JSON" in answer.json()["error"]["message"]
    half = client.post("/v1/completions", content=b'{"prompt": "\\ud800"}', headers=json_type)
    assert half.status_code == 400
    deep = b'{"prompt": ' + b'{"a":' * 200 + b"1" + b"}" * 200 + b"}"
    assert client.post("/v1/completions", content=deep, headers=json_type).status_code == 400
