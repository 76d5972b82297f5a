"""The contract of a task, and the table of tasks.

A new task is one file and one line here; training, runs, evaluation and the command line know nothing else (see
docs/adding-a-task.md). A :class:`StepsTask` is trained by the one loop, a :class:`ClosedTask` is solved at once.
"""

from typing import Annotated

from pydantic import BeforeValidator, SerializeAsAny

from unrolled.core.registry import Registry
from unrolled.task.base import ClosedTask, StepsTask, Task
from unrolled.task.values import (
    Evaluation,
    Examples,
    Goal,
    Loss,
    Objective,
    Saved,
    Seen,
    Size,
    Source,
    TaskConfig,
    TaskResult,
    Watch,
    unwatched,
)

__all__ = [
    "TASKS",
    "AnyTaskConfig",
    "ClosedTask",
    "Evaluation",
    "Examples",
    "Goal",
    "Loss",
    "Objective",
    "Saved",
    "Seen",
    "Size",
    "Source",
    "StepsTask",
    "Task",
    "TaskConfig",
    "TaskResult",
    "Watch",
    "unwatched",
]

TASKS: "Registry[type[Task]]" = Registry(
    "task",
    {
        "lm": "unrolled.tasks.lm:LM",
        "counts": "unrolled.tasks.counts:Counts",
        "made": "unrolled.tasks.made:Made",
        "frames": "unrolled.tasks.frames:Frames",
        "classify": "unrolled.tasks.classify:Classify",
        "classify_trees": "unrolled.tasks.classify_trees:ClassifyTrees",
        "written": "unrolled.tasks.written:Written",
    },
    default="lm",
)

AnyTaskConfig = Annotated[SerializeAsAny[TaskConfig], BeforeValidator(TASKS.parse)]
"""A field that takes the config of any registered task, or its name alone."""
