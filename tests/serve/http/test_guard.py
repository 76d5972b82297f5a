"""Who may ask, from where, and how much."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from unrolled.core.errors import UsageError
from unrolled.serve.config import ServeConfig
from unrolled.serve.http.guard import read_api_keys
from unrolled.serve.states.keys import read_state_keys

KEY = "0123456789abcdef01"
BODY = {"prompt": "abc", "max_tokens": 1}


@pytest.fixture
def keyed(serving: Callable[..., TestClient], tmp_path: Path) -> TestClient:
    (tmp_path / "keys").write_text(f"{KEY}\nanother-key-of-some-length\n")
    return serving(api_key_file=tmp_path / "keys")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "testserver.evil"])
def test_other_names_are_refused(client: TestClient, host: str) -> None:
    """A page whose own name is made to point at this machine asks by that name."""
    for path in ("/v1/models", "/", "/healthz"):
        answer = client.get(path, headers={"host": host})
        assert answer.status_code == 403
        assert "does not go by that name" in answer.text


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:1", "[::1]:8000", "TestServer"])
def test_own_names(client: TestClient, host: str) -> None:
    assert client.get("/healthz", headers={"host": host}).status_code == 200


def test_other_sites_are_refused(client: TestClient, serving: Callable[..., TestClient]) -> None:
    for origin in ("https://evil.example", "null", "http://localhost.evil", "http://testserver:81"):
        for answer in (
            client.post("/v1/completions", json=BODY, headers={"origin": origin}),
            client.get("/v1/models", headers={"origin": origin}),
        ):
            assert answer.status_code == 403
            assert "access-control-allow-origin" not in answer.headers
    assert client.post("/v1/completions", json=BODY, headers={"origin": "http://testserver"}).status_code == 200
    allowing = serving(cors=["https://friend.example"])
    answer = allowing.post("/v1/completions", json=BODY, headers={"origin": "https://friend.example"})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://friend.example"
    asks = {"origin": "https://friend.example", "access-control-request-method": "POST"}
    assert allowing.options("/v1/completions", headers=asks).status_code == 200
    assert allowing.post("/v1/completions", json=BODY, headers={"origin": "https://evil.example"}).status_code == 403


def test_forms_are_refused(client: TestClient) -> None:
    """A form of another site can send these types without asking first."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        answer = client.post("/v1/completions", content=b'{"prompt": "a"}', headers={"content-type": kind})
        assert answer.status_code == 415
    assert client.put("/v1/state", content=b"a", headers={"content-type": "text/plain"}).status_code == 415


def test_keys(keyed: TestClient) -> None:
    for headers in (
        {}, {"authorization": "Bearer wrong"}, {"authorization": KEY}, {"authorization": f"Basic {KEY}"},
        {"authorization": f"Bearer {KEY}x"}, {"authorization": "Bearer "},
    ):  # fmt: skip
        for answer in (
            keyed.post("/v1/completions", json=BODY, headers=headers),
            keyed.get("/metrics", headers=headers),
        ):
            assert answer.status_code == 401
            assert answer.json()["error"]["message"] == "a key is needed that this server knows."
    for key in (KEY, "another-key-of-some-length"):
        assert keyed.post("/v1/completions", json=BODY, headers={"authorization": f"Bearer {key}"}).status_code == 200
    assert keyed.get("/healthz").status_code == 200


def test_rates(serving: Callable[..., TestClient], tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"{KEY}\nanother-key-of-some-length\n")
    client = serving(rate=3, api_key_file=tmp_path / "keys")

    def ask(key: str) -> int:
        answer = client.get("/v1/models", headers={"authorization": f"Bearer {key}"})
        if answer.status_code == 429:
            assert 1 <= int(answer.headers["retry-after"]) <= 21
        return answer.status_code

    assert [ask(KEY) for _ in range(5)] == [200, 200, 200, 429, 429]
    assert ask("another-key-of-some-length") == 200
    assert client.get("/healthz").status_code == 200


def test_sizes(serving: Callable[..., TestClient]) -> None:
    client = serving(max_body=2000)
    long = b'{"prompt": "' + b"a" * 3000 + b'"}'
    kind = {"content-type": "application/json"}
    assert client.post("/v1/completions", content=long, headers=kind).status_code == 413

    def parts():
        for _ in range(100):
            yield b"a" * 100

    assert client.post("/v1/completions", content=parts(), headers=kind).status_code == 413
    for length in ("x", "-1", "9" * 30):
        answer = client.post("/v1/completions", content=b"{}", headers={**kind, "content-length": length})
        assert answer.status_code == 413


def test_twice_the_same_header(client: TestClient) -> None:
    answer = client.get("/healthz", headers=[("host", "testserver"), ("host", "evil.example")])
    assert answer.status_code == 400


def test_safe_headers(client: TestClient) -> None:
    for path in ("/v1/models", "/healthz", "/nowhere"):
        assert client.get(path).headers["x-content-type-options"] == "nosniff"


def test_paths_that_there_are_not(client: TestClient) -> None:
    answer = client.post("/v1/chat/completions", json={})
    assert answer.status_code == 404
    assert "not" not in answer.json()["error"]["message"].split(":")[0].replace("there is no", "")
    assert "/v1/completions" in answer.json()["error"]["message"]
    assert "did you mean /v1/score" in client.get("/v1/scores").json()["error"]["message"]
    assert client.get("/v1/completions").status_code == 405
    assert client.get("/docs").status_code == 404, "its pages would load scripts from elsewhere"


def test_metrics(client: TestClient) -> None:
    client.post("/v1/completions", json={"prompt": "abc", "max_tokens": 7, "stream": True})
    client.get("/v1/state/st-secret-of-a-user")
    client.get("/a-text-of-a-user")
    text = client.get("/metrics").text
    assert 'unrolled_requests_total{code="200",path="/v1/completions"} 1.0' in text
    assert 'path="/v1/state/{handle}"' in text
    assert 'path="other"' in text
    assert "of-a-user" not in text
    assert "unrolled_tokens_written_total 7.0" in text
    assert "unrolled_tokens_read_total 3.0" in text
    assert "unrolled_first_token_seconds_count 1.0" in text
    assert 'unrolled_batch_rows_bucket{le="1"} 7.0' in text


def test_metrics_off(serving: Callable[..., TestClient]) -> None:
    assert serving(metrics=False).get("/metrics").status_code == 404


def test_texts_are_not_logged(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        client.post("/v1/completions", json={"prompt": "abcdefgh", "max_tokens": 5})
        client.post("/v1/completions", json={"prompt": "secret é"})
        client.post("/v1/score", json={"text": "abcdefgh"})
    assert "abcdefgh" not in caplog.text
    assert "secret" not in caplog.text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from([
    "prompt", "n", "stop", "top_k", "logprobs", "logit_bias", "stream", "state", "echo", "seed", "text", "ids", "words",
    "unit", "temperature", "min_p", "first", "model", "stream_options", "close", "top_p", "state_format",
])  # fmt: skip


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(["/v1/completions", "/v1/score", "/v1/state", "/v1/state/fork", "/v1/state/advance"]),
    body=st.dictionaries(NAMES, JSON, max_size=5),
)
def test_any_body_is_answered(client: TestClient, path: str, body: dict) -> None:
    import json

    data = json.dumps({"max_tokens": 2, **body} if path == "/v1/completions" else body).encode()
    answer = client.post(path, content=data, headers={"content-type": "application/json"})
    assert answer.status_code in (200, 400, 404, 410), answer.text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"host": "0.0.0.0"}, "needs --api-key-file FILE (one key a line); or --host 127.0.0.1."),
        ({"host": "0.0.0.0", "api_key_file": "k", "signature": False}, "for this machine alone"),
        ({"signature": False, "state_key": "k"}, "does not go with"),
        ({"client_state": False, "state_key": "k"}, "does not go with"),
        ({"streams": 0}, "streams"), ({"port": 70000}, "port"), ({"stream": 5}, "did you mean 'streams'"),
    ],
)  # fmt: skip
def test_settings(options: dict, said: str) -> None:
    with pytest.raises(UsageError) as error:
        ServeConfig.parse(options)
    assert said in str(error.value)


def test_files_of_keys(tmp_path: Path) -> None:
    for name, text in (("empty", "# none\n"), ("short", "abc\n")):
        (tmp_path / name).write_text(text)
        with pytest.raises(UsageError, match="16 characters"):
            read_api_keys(tmp_path / name)
    path = tmp_path / "state"
    path.write_text("ab" * 32 + "\n")
    path.chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        read_state_keys(path)
    path.chmod(0o600)
    first = read_state_keys(path)
    path.write_text("cd" * 32 + "\n" + "ab" * 32 + "\n")
    both = read_state_keys(path)
    assert both.verify(first.sign(b"x"), b"x")
    assert not first.verify(both.sign(b"x"), b"x")
    path.write_text("xyz\n")
    with pytest.raises(UsageError, match="openssl rand"):
        read_state_keys(path)
