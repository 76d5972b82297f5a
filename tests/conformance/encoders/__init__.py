"""What every encoder must do, by its row of the table."""
