"""What every cell, head, predictor, operation and task must do: plain checks over the tables, and things broken on
purpose that the checks must notice."""
