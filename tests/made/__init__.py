"""Synthetic problems against the theory, and models on them."""
