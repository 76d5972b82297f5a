"""What every further objective must do."""
