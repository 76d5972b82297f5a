"""A server without a socket, over tiny models."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from serve.engine.tiny import counted, served
from unrolled.serve.config import ServeConfig
from unrolled.serve.engine.pool import Engine
from unrolled.serve.http import build_app
from unrolled.serve.states.keys import StateKeys

KEYS = StateKeys([bytes(range(32))])


@pytest.fixture
def serving() -> Iterator[Callable[..., TestClient]]:
    """Make a client of a server over an LSTM called tiny, and with ``several`` a count model too."""
    opened: list[TestClient] = []

    def make(several: bool = False, keys: StateKeys = KEYS, models: Any = None, **options: Any) -> TestClient:
        models = models or ([served(), counted()] if several else [served()])
        config = ServeConfig.parse({"hosts": ["testserver"], **options})
        engine = Engine(models, config.threads, config.streams, config.queue)
        client = TestClient(build_app(engine, config, keys))
        client.__enter__()
        opened.append(client)
        client.engine = engine  # type: ignore[attr-defined]
        return client

    yield make
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture
def client(serving: Callable[..., TestClient]) -> TestClient:
    return serving()
