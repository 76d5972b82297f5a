"""Cells whose gates are sigmoids of the input and of h(t-1)."""
