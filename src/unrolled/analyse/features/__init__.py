"""Features of sentences from the last state of a cell."""
