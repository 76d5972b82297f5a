"""What every task must do."""
