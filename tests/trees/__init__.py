"""Trees: readers, sources, the task."""
