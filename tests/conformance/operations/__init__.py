"""What every operation must do, by its row of the table."""
