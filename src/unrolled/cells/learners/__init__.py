"""Cells that learn while they read: their state is the weights of a small network in each head."""
