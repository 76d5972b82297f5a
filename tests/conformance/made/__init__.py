"""What every synthetic problem must do."""
