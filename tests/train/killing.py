"""Trains in processes that are killed by SIGKILL at chosen or random moments.

The processes come from a server that has torch loaded, so that one costs tenths of a second.
"""

import importlib
import multiprocessing
import os
import random
import resource
import signal
import time
from pathlib import Path
from typing import Any

from unrolled.core.errors import UnrolledError
from unrolled.task import TASKS
from unrolled.train import ExperimentConfig, resume, train

servers = multiprocessing.get_context("forkserver")
# torch's optimisers import torch._dynamo when they are first used, which takes seconds
servers.set_forkserver_preload(["torch", "torch._dynamo", "unrolled.train", "unrolled.tokenizer.char", "train.killing"])


def _work(values: dict[str, Any], out: Path, die: tuple[str, int, bool] | None, tasks: dict[str, str]) -> None:
    import torch

    for name, row in tasks.items():
        TASKS.add(name, row)

    torch.set_num_threads(1)
    # what a killed process has written is safe in the system's memory; only a power cut needs the flush, which is slow
    os.fsync = lambda _: None
    if die is not None:
        _arm(*die)
    if (out / "config.json").exists():
        resume(out)
    else:
        train(ExperimentConfig.parse(values), out)


def _arm(place: str, nth: int, after: bool) -> None:
    """Die at the nth call of ``module:Class.method`` or ``module:function``, before or after it."""
    module, _, path = place.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    original, calls = getattr(owner, name), [0]

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == nth and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if calls[0] == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, wrapped)


def _limited(values: dict[str, Any], out: Path, size: int, said: Any) -> None:
    # git, which is asked for the revision, would die of the limit while it refreshes its index, and leave a lock behind
    os.environ["GIT_OPTIONAL_LOCKS"] = "0"
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    try:
        train(ExperimentConfig.parse(values), out)
    except UnrolledError as error:
        said.put(str(error))


def run_limited(config: ExperimentConfig, out: Path, size: int) -> str:
    """Train in a process that may write no file larger than ``size`` bytes; returns what it said at its end."""
    said = servers.Queue()
    process = servers.Process(target=_limited, args=(config.model_dump(mode="json"), out, size, said))
    process.start()
    try:
        return said.get(timeout=120)
    finally:
        process.join()
        said.close()


def run(
    config: ExperimentConfig,
    out: Path,
    die: tuple[str, int, bool] | None = None,
    kill_after: float | None = None,
    tasks: dict[str, str] | None = None,
) -> int:
    """Train or resume in a process; returns its exit code, -9 when it was killed. tasks: added to the table there."""
    process = servers.Process(target=_work, args=(config.model_dump(mode="json"), out, die, tasks or {}))
    process.start()
    process.join(kill_after)
    if process.is_alive():
        process.kill()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def kill_and_resume(config: ExperimentConfig, home: Path, kills: int, longest: float, seed: int) -> list[Path]:
    """Kill a run at ``kills`` random moments, resume it each time, and let it end at last.

    A run that ends before it has been killed so often is followed by another. Returns the folders of all that ended.
    """
    draw, hit, runs = random.Random(seed), 0, [home / "killed-1"]
    while hit < kills:
        code = run(config, runs[-1], kill_after=draw.uniform(0.02, longest))
        if code == 0:
            runs.append(home / f"killed-{len(runs) + 1}")
        else:
            assert code == -signal.SIGKILL, f"exit code {code}"
            hit += 1
    assert run(config, runs[-1]) == 0
    return runs


def seconds(config: ExperimentConfig, out: Path) -> float:
    """Train without a kill; returns the seconds it took."""
    first = servers.Process(target=time.monotonic)  # waits for the server to load torch
    first.start()
    first.join()
    start = time.monotonic()
    assert run(config, out) == 0
    return time.monotonic() - start
