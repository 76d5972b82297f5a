"""What every memory must do, by its row of the table."""
