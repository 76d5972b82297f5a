"""What every head must do, by its row of the table."""
