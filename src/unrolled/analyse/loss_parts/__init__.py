"""Which tokens the loss of a text comes from."""
