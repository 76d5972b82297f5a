"""How well the surprisal of words predicts a measure of how they are read."""
