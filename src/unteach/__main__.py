"""The program: `unteach`, and python -m unteach. It handles signals before it imports anything that takes time."""

import os

from unteach import signals

# Threads of OpenMP wait without computing: beside another busy process, spinning makes all of it three times slower
# (benchmarks/shared_machine.py). It must stand before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def main() -> None:
    """Run the command line and exit."""
    with signals.handled(program=True):
        from unteach.cli.app import main

        try:
            main()
        finally:
            signals.ending()


if __name__ == "__main__":
    main()
