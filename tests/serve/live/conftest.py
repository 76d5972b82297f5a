"""Servers with a socket, in threads of this process."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from cli.conftest import _trained, unrolled  # noqa: F401  (a run, and the command, as fixtures)
from serve.engine.tiny import served
from unrolled.predict import PredictorConfig
from unrolled.serve.config import ServeConfig
from unrolled.serve.engine.pool import Engine
from unrolled.serve.engine.served import Served, open_models
from unrolled.serve.server import run_server
from unrolled.serve.states.keys import StateKeys

KEYS = StateKeys([bytes(range(32))])


class Live:
    """A server that listens. address: of it; stop: begins to end it; wait: until it has ended."""

    def __init__(self, models: list[Served], keys: StateKeys, options: dict[str, Any]):
        config = ServeConfig.parse({"port": 0, "drain": 0.2, **options})
        self.engine = Engine(models, config.threads, config.streams, config.queue)
        self.told: list[str] = []
        ready = threading.Event()
        self.address, self.port, self.stop = "", 0, lambda: None

        def listening(host: str, port: int, stop: Callable[[], None]) -> None:
            self.address, self.port, self.stop = f"http://{host}:{port}", port, stop
            ready.set()

        def run() -> None:
            run_server(self.engine, config, keys, self.told.append, listening)

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        assert ready.wait(20), "the server does not listen"

    def wait(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()

    def close(self) -> None:
        self.stop()
        self.wait()


@pytest.fixture
def live() -> Iterator[Callable[..., Live]]:
    """Start a server over an LSTM called tiny, or other models."""
    opened: list[Live] = []

    def start(models: Any = None, keys: StateKeys = KEYS, **options: Any) -> Live:
        opened.append(Live(models or [served()], keys, options))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Path:
    """A run of a few steps."""
    return request.getfixturevalue("_trained")


@pytest.fixture
def models(run: Path) -> list[Served]:
    """That run, as it is served."""
    torch.set_num_threads(1)
    return open_models([run], PredictorConfig(), 2, {})
