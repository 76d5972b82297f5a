"""What every adapter must do: plain checks, run over the whole table and over adapters that are broken on purpose."""
