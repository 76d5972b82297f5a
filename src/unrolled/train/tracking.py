"""Copies of ``metrics.jsonl`` for other programs, made as it grows."""

import json
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unrolled.core.errors import UnrolledError
from unrolled.core.registry import unknown_name

__all__ = ["TENSORBOARD", "TRACKERS", "JsonLines", "TensorBoard", "Tracker", "make_trackers"]

TENSORBOARD = "tensorboard"
_OTHERS = ("type", "step", "tokens", "wall", "cpu")


class Tracker(ABC):
    """Hears of every line of a run's log once, in order, also after the run was resumed.

    Args:
        run: the run directory.
    """

    def __init__(self, run: Path):
        self.run = run

    @abstractmethod
    def begin(self, past: Iterable[Mapping[str, Any]]) -> None:
        """The run begins, or goes on after these lines; what was heard of others is void."""

    @abstractmethod
    def event(self, event: Mapping[str, Any]) -> None:
        """Another line."""

    def close(self) -> None:
        """No more will come."""
        return


class TensorBoard(Tracker):
    """Event files of TensorBoard in ``RUN/tensorboard``: losses, learning rate and norm of the gradient over steps.

    They are written anew when a run is resumed, from the lines that count: no step is there twice.

    Raises:
        UnrolledError: tensorboard is not installed.
    """

    def __init__(self, run: Path):
        super().__init__(run)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UnrolledError("--track tensorboard needs tensorboard; pip install 'unrolled[track]'.") from error
        self._make, self._writer = SummaryWriter, None

    def begin(self, past: Iterable[Mapping[str, Any]]) -> None:
        """See :class:`Tracker`."""
        folder = self.run / TENSORBOARD
        shutil.rmtree(folder, ignore_errors=True)
        self._writer = self._make(str(folder))
        for event in past:
            self.event(event)
        self._writer.flush()

    def event(self, event: Mapping[str, Any]) -> None:
        """See :class:`Tracker`."""
        assert self._writer is not None
        kind, step = event["type"], event["step"]
        for name, value in event.items():
            if name not in _OTHERS and _is_number(value):
                self._writer.add_scalar(f"{kind}/{name}", value, step)
        for name, value in event.get("parts", {}).items():
            self._writer.add_scalar(f"{kind}/{name}", value, step)
        for name in ("tokens", "cpu"):
            self._writer.add_scalar(f"progress/{name}_at_{kind}", event[name], step)
        if kind == "valid":
            self._writer.flush()

    def close(self) -> None:
        """See :class:`Tracker`."""
        if self._writer is not None:
            self._writer.close()


class JsonLines(Tracker):
    """The lines themselves on standard output, each when it comes; of a resumed run those before it too."""

    def begin(self, past: Iterable[Mapping[str, Any]]) -> None:
        """See :class:`Tracker`."""
        for event in past:
            self.event(event)

    def event(self, event: Mapping[str, Any]) -> None:
        """See :class:`Tracker`."""
        sys.stdout.write(json.dumps(event, allow_nan=False) + "\n")
        sys.stdout.flush()


TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "stdout-json": JsonLines}


def make_trackers(names: Sequence[str], run: Path) -> list[Tracker]:
    """Trackers by name. Raises UsageError for an unknown one, UnrolledError where what one needs is not installed."""
    for name in names:
        if name not in TRACKERS:
            raise unknown_name("tracker", name, TRACKERS)
    return [TRACKERS[name](run) for name in dict.fromkeys(names)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
