"""``python -m unrolled``: the command where its script is not on the path."""

from unrolled.cli import main

main()
