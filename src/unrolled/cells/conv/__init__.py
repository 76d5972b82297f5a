"""Cells of causal convolutions."""
