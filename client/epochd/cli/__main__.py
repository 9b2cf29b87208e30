"""`python -m epochd.cli` is `epochd`."""

from epochd.cli import main

main()
