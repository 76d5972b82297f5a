"""State-space cells: each channel drives a linear system of its own, whose state is read out."""
