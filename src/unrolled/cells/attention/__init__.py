"""Cells that attend to what was read before."""
