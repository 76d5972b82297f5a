"""Ways out to other programs: formats that a run is exported to, and the harnesses that measure it."""
