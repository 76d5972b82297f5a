"""How fast a model recovers from a wrong input."""
