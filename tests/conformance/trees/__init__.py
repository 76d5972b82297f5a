"""What every tree cell must do."""
