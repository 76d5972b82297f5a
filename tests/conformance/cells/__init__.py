"""What every cell must do: plain checks, run over the whole table and over cells that are broken on purpose."""
