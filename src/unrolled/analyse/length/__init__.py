"""What a model does in texts longer than those it was trained on."""
