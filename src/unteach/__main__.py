"""python -m unteach: the same as the command."""

from unteach.cli import main

main()
