"""Recurrence over frames that are grids of numbers."""
