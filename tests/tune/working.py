"""Workers of a study in processes that are killed by SIGKILL at random moments."""

import os
import random
import time
from pathlib import Path

from train.killing import servers
from unrolled.compare.tune import Board, Limit, open_study


def _work(folder: Path, trials: int, storage: str | None) -> None:
    import torch

    from unrolled.compare.tune import work

    torch.set_num_threads(1)
    # what a killed process has written is safe in the system's memory; only a power cut needs the flush, which is slow
    os.fsync = lambda _: None
    work(folder, Limit(trials), storage, "cpu", wait=0.05)


def search_with_kills(
    folder: Path, trials: int, workers: int, kills: int, seed: int, storage: str | None = None
) -> int:
    """Run workers until nothing is left to do; of those that live, one is killed now and then.

    Returns:
        how many were killed.
    """
    rng, killed, board = random.Random(seed), 0, Board(open_study(folder))
    processes = [servers.Process(target=_work, args=(folder, trials, storage)) for _ in range(workers)]
    for process in processes:
        process.start()
    until = time.monotonic() + 600
    while board.todo(Limit(trials)) or any(process.is_alive() for process in processes):
        assert time.monotonic() < until, "the workers do not come to an end"
        if killed < kills:
            time.sleep(rng.uniform(0.2, 0.9))  # a worker takes most of a second to begin
            victim = rng.randrange(workers)
            if processes[victim].is_alive():
                processes[victim].kill()
                killed += 1
        else:
            time.sleep(0.05)
        for i, process in enumerate(processes):
            if not process.is_alive() and board.todo(Limit(trials)):
                process.join()
                processes[i] = servers.Process(target=_work, args=(folder, trials, storage))
                processes[i].start()
    return killed
