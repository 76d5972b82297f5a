"""``unrolled serve`` from Python: open the models, warm them, listen."""

import gc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from unrolled.serve.config import ServeConfig
from unrolled.serve.engine.pool import Engine
from unrolled.serve.engine.served import Served, open_models
from unrolled.serve.server import run_server
from unrolled.serve.states.keys import read_state_keys

__all__ = ["serve_runs"]

_WARM = (1, 2, 4, 8, 16, 32)


def serve_runs(
    runs: Sequence[Path],
    config: ServeConfig,
    mixtures: Mapping[str, Mapping[str, float]] | None = None,
    tell: Callable[[str], None] = lambda sentence: None,
    listening: Callable[[str, int, Callable[[], None]], None] = lambda host, port, stop: None,
) -> None:
    """Serve runs until a signal ends the server.

    Args:
        mixtures: name -> names of runs -> weights, each one more model.
        tell, listening: see :func:`unrolled.serve.server.run_server`.
    Raises:
        UsageError: runs or settings that cannot be served. UnrolledError: damaged files, an address that is taken.
    """
    torch.set_num_threads(1)  # the engine's threads share the cores among texts
    keys = None if config.state_key is None else read_state_keys(config.state_key)
    models = open_models(list(runs), config.predict, config.threads, mixtures or {})
    for one in models:
        _warm(one)
    if config.client_state and config.signature and keys is None:
        tell("states are signed with a key that ends with this process; --state-key FILE keeps them for longer.")
    if not config.signature:
        tell("states are not signed: whoever may ask may send any numbers as a state.")
    gc.collect()
    gc.freeze()  # what lives as long as the server is not looked at by every full collection, which takes 0.2 s of it
    engine = Engine(models, config.threads, config.streams, config.queue)
    tell(f"models: {', '.join(one.id for one in models)}")
    run_server(engine, config, keys, tell, listening)


def _warm(served: Served) -> None:
    """Make what is made at the first use."""
    for predictor in served.writers:
        with served.lock, torch.no_grad():
            for rows in _WARM:
                state = predictor.begin(rows)
                log_prob = predictor.predict(state).log_prob
                predictor.observe(state, log_prob.argmax(-1))
    with served.lock, torch.no_grad():
        served.reader.distributions(served.reader.begin(1), torch.zeros(1, 64, dtype=torch.int64))
