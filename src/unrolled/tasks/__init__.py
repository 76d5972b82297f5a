"""The tasks, one a file; their table is :data:`unrolled.task.TASKS`."""
