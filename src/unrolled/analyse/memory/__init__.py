"""How far back a model's predictions reach."""
