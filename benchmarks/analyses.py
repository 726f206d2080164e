"""How often is the gate of step 2 (`unteach.mistakes.gate`) right, against analyses that a person has read?

    python benchmarks/analyses.py --labels labelled.jsonl --set fresh

A line of the file holds `prompt`, `reply`, `text` (what the analyst wrote, its opening included), `opening` (empty
where it was asked without one), `cut` (true where the longest length ended it), `form` (how it was asked), `model`,
`reply_is` ("bad" or "good"), `label`, and `set`. The label is "ok", or what is wrong with the part that would be learnt
(`first_part`); "mislabelled" is an analysis that would be right if the reply were bad, which it is not. The texts are
harmful in part and are not shipped.

Precision is the share of right ones among those that pass; "of true mistakes" leaves mislabelled replies out. Recall is
the share of those that pass among the right ones, and yield the share of all texts that pass and are right. Each has
Wilson's 95 % interval. "Verdict alone" is the gate as it was before: refusals, gibberish, copies, and what word of
judgement comes first.
"""

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unteach.mistakes.gate import COPIED, first_part, why_unfit, without_rest
from unteach.mistakes.verdict import read_verdict
from unteach.prompts.mistakes import shipped_wording
from unteach.stats import wilson
from unteach.text.escape import inert_line
from unteach.text.gibberish import blank, gibberish
from unteach.text.refusals import refusal_of
from unteach.text.words import repeated_share


def learnt_part(row: dict[str, Any]) -> str:
    """Return what would be learnt of an analyst's text."""
    return first_part(without_rest(row["text"], row["cut"]), row["opening"])


def gate(row: dict[str, Any]) -> str | None:
    """Return the gate's reason to refuse a text; None where it passes."""
    asked = shipped_wording().assess("guided", "", "")
    return why_unfit(learnt_part(row), row["prompt"], row["reply"], row.get("reply_is", "bad"), asked)


def verdict_alone(row: dict[str, Any]) -> str | None:
    """Return why the earlier gate refused a text; None where it passed."""
    text = row["text"]
    unfit = blank(text) or refusal_of(text) == "full" or gibberish(text)
    unfit = unfit or repeated_share(row["reply"], text) >= COPIED
    return None if not unfit and read_verdict(text) == row.get("reply_is", "bad") else "unfit"


def share(part: int, whole: int) -> str:
    """Return a share with its counts and its interval."""
    value, low, high = wilson(part, whole)
    if value is None or low is None or high is None:
        return "none of 0"
    return f"{part} of {whole}, {value:.1%} [{100 * low:.0f}, {100 * high:.0f}]"


def line(name: str, rows: Sequence[dict[str, Any]], rule: Any) -> str:
    """Return a line of the table for some rows."""
    passed = [rule(row) is None for row in rows]
    right = [row["label"] == "ok" for row in rows]
    both = sum(one and other for one, other in zip(passed, right, strict=True))
    mislabelled = sum(one and row["label"] == "mislabelled" for one, row in zip(passed, rows, strict=True))
    shares = ((both, sum(passed)), (both, sum(passed) - mislabelled), (both, sum(right)), (both, len(rows)))
    return f"| {name} | " + " | ".join(share(*counts) for counts in shares) + " |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True, help="the labelled texts, JSON lines as above")
    parser.add_argument("--set", help="only the lines of this set; unset: all")
    parser.add_argument("--form", help="only texts that were asked for in this form; unset: all")
    parser.add_argument("--show", action="store_true", help="print the texts that the gate gets wrong")
    given = parser.parse_args()
    rows = [json.loads(text) for text in given.labels.read_text(encoding="utf-8").splitlines() if text.strip()]
    rows = [row for row in rows if given.set in (None, row["set"]) and given.form in (None, row["form"])]
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[f"{row['model']}, {row['form']}"].append(row)
    print(f"{len(rows)} texts, set: {given.set or 'all'}\n")
    print("| analyst, form | precision | of true mistakes | recall | yield |\n|---|---|---|---|---|")
    for name, some in groups.items():
        print(line(name, some, gate))
    print(line("all", rows, gate))
    print(line("all, verdict alone", rows, verdict_alone) + "\n")
    going_on = [row for row in rows if row["label"] == "continues"]
    passing = [sum(rule(row) is None for row in going_on) for rule in (gate, verdict_alone)]
    print(f"go on with the reply: {len(going_on)}; of these pass the gate {passing[0]}, verdict alone {passing[1]}")
    for title, found in (("labels", (row["label"] for row in rows)), ("refused", map(gate, rows))):
        counts = Counter(filter(None, found)).most_common()
        print(f"{title}: " + ", ".join(f"{count} {name}" for name, count in counts))
    if given.show:
        for row in rows:
            if (gate(row) is None) != (row["label"] == "ok"):
                print(row["label"], "|", gate(row) or "passed", "|", inert_line(learnt_part(row), 400))


if __name__ == "__main__":
    main()
