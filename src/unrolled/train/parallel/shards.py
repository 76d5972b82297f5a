"""Which shards of a run a process has, and what is refused."""

from unrolled.core.errors import UsageError
from unrolled.core.group import Group
from unrolled.core.random import Shards
from unrolled.train.parallel.config import ParallelConfig

__all__ = ["check_rows", "own_shards"]


def own_shards(config: ParallelConfig, group: Group, begun: str | None = None) -> Shards | None:
    """The shards of this process; None in a run that is not cut into any.

    Args:
        begun: the run that is resumed, for sentences; None for a new one.
    Raises:
        UsageError: a number of processes that cannot share the shards equally, or a run for one process alone.
    """
    if group.world > 1 and config.kind == "none":
        raise UsageError(
            f"train.parallel.kind is none and {group.world} processes were started; start one, or say ddp."
        )
    count = config.shards or (1 if begun else group.world)
    if count % group.world:
        fitting = [str(n) for n in range(1, count + 1) if count % n == 0]
        use = f"use {fitting[0]}" if len(fitting) == 1 else f"use {', '.join(fitting[:-1])} or {fitting[-1]}"
        what = f"{begun} was begun with" if begun else "train.parallel.shards says"
        raise UsageError(
            f"{what} {count} shard{'s' * (count > 1)}; {group.world} processes cannot share them equally: {use}."
        )
    if count == 1:
        return None
    each = count // group.world
    return Shards(range(group.rank * each, (group.rank + 1) * each), count)


def check_rows(rows: int | None, shards: Shards | None, setting: str, noun: str) -> None:
    """Raises UsageError where a batch cannot be cut into the shards.

    Args:
        rows: of a batch; None for a task whose batches are not shared. setting: what says it. noun: of the task.
    """
    if shards is None:
        return
    if rows is None:
        raise UsageError(f"{noun} is trained by one process; leave out train.parallel.shards, and start one.")
    if rows % shards.count:
        raise UsageError(
            f"{setting} = {rows} cannot be cut into {shards.count} equal shards; make it a multiple of {shards.count}."
        )
