"""Workers in processes that are killed by SIGKILL at random moments."""

import os
import random
import time
from pathlib import Path

from train.killing import servers
from unrolled.compare import Board, open_lock


def _work(folder: Path) -> None:
    import torch

    from unrolled.compare import work
    from unrolled.compare.claims import Claims

    torch.set_num_threads(1)
    # what a killed process has written is safe in the system's memory; only a power cut needs the flush, which is slow
    os.fsync = lambda _: None
    work(folder, wait=0.05, claims=Claims(folder))


def work_with_kills(folder: Path, workers: int, kills: int, seed: int) -> int:
    """Run workers until nothing is left to do; of those that live, one is killed now and then.

    Returns:
        how many were killed.
    """
    rng, killed = random.Random(seed), 0
    board = Board(open_lock(folder))
    processes = [servers.Process(target=_work, args=(folder,)) for _ in range(workers)]
    for process in processes:
        process.start()
    until = time.monotonic() + 240
    while board.todo() or any(process.is_alive() for process in processes):
        assert time.monotonic() < until, "the workers do not come to an end"
        if killed < kills:
            time.sleep(rng.uniform(0.02, 0.4))
            victim = rng.randrange(workers)
            if processes[victim].is_alive():
                processes[victim].kill()
                killed += 1
        else:
            time.sleep(0.05)
        for i, process in enumerate(processes):
            if not process.is_alive() and board.todo():
                process.join()
                processes[i] = servers.Process(target=_work, args=(folder,))
                processes[i].start()
    return killed
