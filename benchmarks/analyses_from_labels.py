"""Write analyses that need no analyst: of each negative with a right reply, "Bad. It should say: …".

python benchmarks/analyses_from_labels.py ../shared/data/hh_harmless.jsonl analyses.jsonl --rows 500

For models that are too weak to analyse (the testbed): what they say is only that the reply is bad, and what would have
been right. docs/mistakes.md says what that can show, and what it cannot.
"""

import argparse
from pathlib import Path

from unteach.data.reading import read_examples
from unteach.mistakes.records import Analysis, Mistake, write_analyses


def main() -> None:
    """Read the rows, write the analyses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="negatives with right replies, in any known format")
    parser.add_argument("output", type=Path, help="file to write")
    parser.add_argument("--rows", type=int, default=500, help="most rows to write")
    chosen = parser.parse_args()
    rows = [row for row in read_examples(chosen.source, "negative") if row.good][: chosen.rows]
    write_analyses(chosen.output, [Analysis(Mistake(row), f"Bad. It should say: {row.good}", "label") for row in rows])
    print(f"{len(rows)} analyses are in {chosen.output}")


if __name__ == "__main__":
    main()
