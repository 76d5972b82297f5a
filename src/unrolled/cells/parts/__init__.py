"""Modules that several cells are made of. Each has a test of its own and knows nothing of the cell that holds it."""
