"""python -m unteach: the same as the command."""

from unteach.cli.app import main

main()
