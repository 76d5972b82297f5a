"""Cells that read whole rows."""
