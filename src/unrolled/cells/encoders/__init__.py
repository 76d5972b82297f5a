"""Cells that read whole rows, the future of each token too: encoders, of which no language model can be made."""
