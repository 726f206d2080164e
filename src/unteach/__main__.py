"""The program: `unteach`, and python -m unteach. It handles signals before it imports anything that takes time."""

from unteach import signals


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
