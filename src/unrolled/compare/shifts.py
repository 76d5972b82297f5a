"""What all workers do: take what can be done, one job at a time, until nothing is left."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from unrolled.compare.claims import Claim, Claims, LostClaimError
from unrolled.core.errors import StoppedError, UnrolledError
from unrolled.train.metrics import TakenError
from unrolled.train.signals import StopRequest

__all__ = ["Named", "Tell", "take_all", "work_in_processes"]

Tell = Callable[[str], None]


class Named(Protocol):
    """Anything that is claimed by its name."""

    @property
    def id(self) -> str:
        """A name that is a file's too."""
        ...


J = TypeVar("J", bound=Named)


def take_all(
    claims: Claims,
    todo: Callable[[], Sequence[J]],
    done: Callable[[J], bool],
    do: Callable[[J, Claim], str],
    tell: Tell,
    minutes: float | None,
    wait: float,
) -> int:
    """Claim and do jobs until there are none, or the minutes are over.

    Args:
        todo: what could be done now, best first; what failed too often is left out. done: whether a job has been done
            between the look and the claim. do: does it, and says in a few words what came out; empty for nothing.
        tell: hears a line for each job that is begun or done. minutes: no job is begun after so many.
        wait: seconds between looks while other workers have all that there are.
    Returns:
        how many were done.
    Raises:
        StoppedError: a signal came; the job is free again.
    """
    begun, count, busy = time.monotonic(), 0, dict[str, float]()
    while True:
        parked = claims.parked()
        jobs = [job for job in todo() if job.id not in parked]
        if not jobs or (minutes is not None and time.monotonic() - begun > 60 * minutes):
            return count
        job, claim = None, None
        for candidate in jobs:
            if busy.get(candidate.id, 0.0) > time.monotonic() or (claim := claims.take(candidate.id)) is None:
                continue
            try:
                over = done(candidate)  # between the look and the claim another worker may have done it
            except BaseException:
                claim.release()
                raise
            if over:
                claim.release()
                claim = None
                continue
            job = candidate
            break
        if job is None or claim is None:
            time.sleep(wait)
            continue
        with claim:
            try:
                told = do(job, claim)
            except LostClaimError as error:
                tell(f"{job.id}: {error}")
                continue
            except (StoppedError, KeyboardInterrupt):
                claim.release()
                raise
            except TakenError:  # a process that lives still holds the run's folder
                claim.release()
                busy[job.id] = time.monotonic() + 30
                continue
            except Exception as error:
                claim.fail(str(error) or type(error).__name__)
                tell(f"{job.id}: failed: {error}")
                if not isinstance(error, UnrolledError):
                    raise
                continue
            claim.release()
            count += 1
            if told:
                tell(f"{job.id}: {told}")


def work_in_processes(command: Sequence[str], workers: int, threads: int, tell: Tell) -> int:
    """Start several workers as processes of their own, and wait for them; Ctrl-C ends them all after they saved.

    Args:
        command: what follows ``unrolled``. threads: of each.
    Returns:
        the worst exit code.
    """
    count = str(threads)
    variables = {**os.environ, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count}
    # in sessions of their own: a terminal's Ctrl-C would reach them beside ours, and the second one ends without saving
    with StopRequest() as stop:
        processes = [
            subprocess.Popen([sys.executable, "-m", "unrolled", *command], env=variables, start_new_session=True)
            for _ in range(workers)
        ]
        while any(process.poll() is None for process in processes):
            time.sleep(0.2)
            if stop:
                tell("the workers save their runs and end")
                for process in processes:
                    with contextlib.suppress(ProcessLookupError):
                        process.send_signal(stop.number)
                for process in processes:
                    process.wait()
    return max(process.returncode if process.returncode >= 0 else 128 - process.returncode for process in processes)
