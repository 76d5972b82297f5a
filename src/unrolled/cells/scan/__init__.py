"""Cells whose state is a linear recurrence of each channel by itself."""
