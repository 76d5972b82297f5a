"""The processes that train one run together: what they add up, agree on, and wait for.

A process belongs to at most one group, that of torch's default process group; alone, everything here gives back what it
is given, at no cost and bit for bit.
"""

import contextlib
import datetime
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from unrolled.core.errors import EchoError, LostError, UnrolledError, UsageError

__all__ = ["Group", "agreed", "alone", "current", "in_turn", "joined", "launched", "world_size"]

if TYPE_CHECKING:  # the command line asks who it is before it imports what takes seconds
    from torch import Tensor

Value = TypeVar("Value")

# Rank 0 reads and encodes a new text before the others may; a group that waits longer has lost somebody.
_PATIENCE = datetime.timedelta(hours=2)
_LOST = ("gloo", "nccl", "connection", "timed out", "broken pipe", "socket")


class Group:
    """The processes of a run; this class is one process alone.

    Attributes:
        rank, world: number of this process, and how many there are.
    """

    rank: int = 0
    world: int = 1

    @property
    def main(self) -> bool:
        """Whether this process writes what a run has once: record, log, tokenizer, weights."""
        return self.rank == 0

    def sums(self, values: Sequence[float]) -> list[float]:
        """The sum of each number over the processes, in float64."""
        return list(values)

    def mean(self, value: "Tensor") -> "Tensor":
        """The mean of a tensor over the processes, of integers in float64; not differentiable."""
        return value

    def any(self, flags: "Tensor") -> "Tensor":
        """Which flags are set in some process. flags: bool."""
        return flags

    def first(self, value: Value) -> Value:
        """What process 0 has."""
        return value

    def gather(self, value: Value) -> list[Value]:
        """What each process has, in their order."""
        return [value]

    def wait(self) -> None:
        """Until every process is here."""

    def lost(self, error: BaseException) -> bool:
        """Whether an error says that another process of the group has ended."""
        return False


class _Many(Group):
    """Over torch's default process group, which is open."""

    def __init__(self) -> None:
        import torch
        import torch.distributed as dist

        self._torch, self._dist = torch, dist
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        # nccl moves tensors of its GPU alone
        cuda = dist.get_backend() == "nccl"
        self._device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")

    def sums(self, values: Sequence[float]) -> list[float]:
        total = self._torch.tensor(list(values), dtype=self._torch.float64, device=self._device)
        self._run(self._dist.all_reduce, total)
        return total.tolist()

    def mean(self, value: "Tensor") -> "Tensor":
        total = value.detach().to(self._device, copy=True)
        total = total if total.is_floating_point() else total.double()
        self._run(self._dist.all_reduce, total)
        return total.div_(self.world).to(value.device)

    def any(self, flags: "Tensor") -> "Tensor":
        total = flags.to(self._device, self._torch.uint8)
        self._run(self._dist.all_reduce, total, self._dist.ReduceOp.MAX)
        return total.to(flags.device, self._torch.bool)

    def first(self, value: Value) -> Value:
        # by torch's pickle, but only among the processes of one launch, which run each other's code anyway
        box = [value]
        self._run(self._dist.broadcast_object_list, box)
        return box[0]

    def gather(self, value: Value) -> list[Value]:
        box: list[Any] = [None] * self.world
        self._run(self._dist.all_gather_object, box, value)
        return box

    def wait(self) -> None:
        self._run(self._dist.barrier)

    def lost(self, error: BaseException) -> bool:
        return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _LOST)

    def _run(self, call: Any, *args: Any) -> None:
        try:
            call(*args)
        except RuntimeError as error:
            if self.lost(error):
                raise LostError from error
            raise


_current = Group()


def launched() -> int:
    """The number that a launcher gave this process; 0 without one."""
    value = os.environ.get("RANK", "0") if world_size() > 1 else "0"
    return int(value) if value.isdecimal() else 0


def current() -> Group:
    """The group of this process."""
    return _current


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Inside, this process does something by itself, such as a measurement that takes each its own time."""
    global _current
    before, _current = _current, Group()
    try:
        yield
    finally:
        _current = before


def in_turn(make: Callable[[], Value]) -> Value:
    """Make something in every process, in process 0 first: what it leaves on disk (an encoded text) serves the others.

    Raises:
        UnrolledError: in every process, the first one's sentence, where one or more failed.
    """
    group, found = current(), []
    for turn in (True, False):
        with agreed():
            if turn is group.main:
                found.append(make())
    return found[0]


@contextlib.contextmanager
def agreed(group: Group | None = None) -> Iterator[None]:
    """Do something that may fail in some process: it then fails in all of them, with the sentence of the first.

    Args:
        group: absent: :func:`current`.
    """
    group, fault = group or current(), None
    try:
        yield
    except UnrolledError as error:
        if group.world == 1:
            raise
        fault = error
    if group.world == 1:
        return
    faults = group.gather(None if fault is None else (str(fault), fault.exit_code))
    first = next((rank for rank, found in enumerate(faults) if found is not None), None)
    if first is not None:
        if fault is not None and first == group.rank:
            raise fault
        raise EchoError(*(faults[first] or ("", 1)))


def world_size() -> int:
    """Number of processes that a launcher such as torchrun has started this one with; 1 without one."""
    value = os.environ.get("WORLD_SIZE", "1")
    if not value.isdecimal() or value == "0":
        raise UsageError(
            f"the environment says WORLD_SIZE={value}, which is no number of processes; start with torchrun."
        )
    return int(value)


@contextlib.contextmanager
def joined(device: str = "auto") -> Iterator[Group]:
    """Join the processes that the launcher has started, if it has; inside, :func:`current` is their group.

    Args:
        device: ``auto``, ``cpu``, ``cuda``...: where the run computes, nccl on GPUs and gloo elsewhere.
    Raises:
        UsageError: the launcher's environment is incomplete. UnrolledError: the others cannot be reached.
    """
    global _current
    if world_size() == 1 or _current.world > 1:
        yield _current
        return
    import torch
    import torch.distributed as dist

    if missing := [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]:
        raise UsageError(f"WORLD_SIZE is set and {missing[0]} is not; start several processes with torchrun.")
    cuda = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    try:
        dist.init_process_group("nccl" if cuda else "gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise UnrolledError(f"the processes of this run cannot reach each other ({error}); see MASTER_ADDR.") from error
    _current = _Many()
    try:
        yield _current
    finally:
        _current = Group()
        dist.destroy_process_group()
