"""Runs that several processes share, started as ``torchrun`` starts them, from the server of :mod:`train.killing`."""

import os
import queue
import resource
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from train import killing
from unrolled.core.errors import UnrolledError
from unrolled.train import ExperimentConfig, resume, train

__all__ = ["Ended", "launch"]


class Ended(NamedTuple):
    """How the processes ended: their exit codes, and what each that failed said."""

    codes: list[int]
    said: dict[int, str]


def _member(rank: int, world: int, port: int, job: Mapping[str, Any], said: Any) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(world))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCH_CPP_LOG_LEVEL="ERROR")
    os.environ["GIT_OPTIONAL_LOCKS"] = "0"
    torch.set_num_threads(1)
    if job["double"]:
        torch.set_default_dtype(torch.float64)
    if not job["limit"]:
        os.fsync = lambda _: None
    if rank in job["die"]:
        killing._arm(*job["die"][rank])
    if rank in job["limit"]:
        with Path(os.devnull).open("w") as null:  # what captures standard error is a file too
            os.dup2(null.fileno(), 2)
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["limit"][rank],) * 2)
    if rank in job["signals"]:
        _signal_at(*job["signals"][rank])
    out, values = Path(job["out"]), job["configs"][rank % len(job["configs"])]
    try:
        if job["resume"]:
            resume(out, "cpu")
        else:
            train(ExperimentConfig.parse(values), out, "cpu")
    except UnrolledError as error:
        said.put((rank, f"{type(error).__name__}: {error}"))
        raise SystemExit(error.exit_code) from None


def _signal_at(number: int, nth: int) -> None:
    """Receive a signal at the nth step."""
    from unrolled.train import loop

    original, calls = loop.train_step, [0]

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == nth:
            os.kill(os.getpid(), number)
        return original(*args, **kwargs)

    loop.train_step = wrapped


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def launch(
    world: int,
    configs: ExperimentConfig | Sequence[ExperimentConfig],
    out: Path,
    double: bool = True,
    again: bool = False,
    die: Mapping[int, tuple[str, int, bool]] | None = None,
    limit: Mapping[int, int] | None = None,
    signals: Mapping[int, tuple[int, int]] | None = None,
    seconds: float = 120,
) -> Ended:
    """Train in ``world`` processes, and wait for all of them.

    Args:
        configs: one for all, or one for each. double: in float64. again: resume ``out``.
        die: rank -> moment, see :func:`train.killing.run`. limit: rank -> largest file in bytes. signals: rank ->
            (signal, step at which it comes). seconds: after which those that hang are killed.
    """
    given = [configs] if isinstance(configs, ExperimentConfig) else list(configs)
    job = {
        "configs": [config.model_dump(mode="json") for config in given], "out": str(out), "double": double,
        "resume": again, "die": die or {}, "limit": limit or {}, "signals": signals or {},
    }  # fmt: skip
    said, port = killing.servers.Queue(), _free_port()
    members = [killing.servers.Process(target=_member, args=(rank, world, port, job, said)) for rank in range(world)]
    for member in members:
        member.start()
    for member in members:
        member.join(seconds)
        if member.is_alive():
            member.kill()
            member.join()
    found: dict[int, str] = {}
    while True:
        try:
            rank, sentence = said.get(timeout=0.05)
        except queue.Empty:
            break
        found[rank] = sentence
    said.close()
    return Ended([member.exitcode if member.exitcode is not None else -signal.SIGKILL for member in members], found)
