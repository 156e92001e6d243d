"""``python -m promptray`` is the command line."""

from promptray.cli import main

main()
