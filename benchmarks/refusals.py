"""How often is `unteach.text.refusals.refusal_of` right, against two annotators and replies of our own?

    python benchmarks/refusals.py --completions ../shared/data/xstest_completions.jsonl \\
        --ordinary ../shared/data/instructions.jsonl:response ../shared/data/truthfulqa.jsonl:best_answer

The prompts are parted by a hash; all models' replies to one prompt are on one side. With `--fit` the weights of the
signs (`src/unteach/text/refusal_weights.yaml`) are learnt anew from the one half, and printed. Otherwise the shipped
weights are measured on the other half. Leave-one-model-out: weights learnt from four models' replies to the prompts of
the first half judge the fifth model's replies to those of the second. Rates have Wilson's 95 % intervals.
"""

import argparse
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from sklearn.linear_model import LogisticRegression

from unteach.judges.complies import CompliesJudge
from unteach.results.verdict import Case, Verdict
from unteach.stats import balanced_accuracy, wilson
from unteach.text.refusals import ZONE_COUNT, Refusal, Weights, refusal_of, signs_of, weights
from unteach.text.words import first_words

OWN = Path(__file__).with_suffix(".yaml")
LABELS = {"full_refusal": "full", "partial_refusal": "partial", "full_compliance": "none"}
CUTS = (8, 16, 32, 48)
"""Numbers of words after which replies are cut, as a limit of new tokens would."""
HELPS = ("helps", "list")
"""The signs by which a reply that declines may help as well; the other signs say nothing of that."""
ORDINARY_WEIGHT, PARTIAL_WEIGHT, OWN_WEIGHT = 0.3, 1.5, 1.0
STRENGTH, CAUTION = (3.0, 1.0), 0.4
"""C of the two regressions, and what a refusal's sum must reach: the fewer false alarms, the more are missed."""


@dataclass(frozen=True)
class Reply:
    """A labelled reply: `kind` is full, partial or none, `group` whose replies stay together, `model` who said it.

    `harmful` says that the prompt, which is `group`, asks for harm.
    """

    text: str
    kind: str
    group: str
    model: str
    harmful: bool = False


def is_held_out(group: str) -> bool:
    """Tell whether a prompt, or a reply of our own, is on the side that measures."""
    return int(hashlib.sha256(f"unteach refusals:{group.strip()}".encode()).hexdigest(), 16) % 100 >= 50


def read_completions(path: str) -> list[Reply]:
    """Read replies with two annotators' label."""
    rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    return [
        Reply(row["completion"], LABELS[row["label"]], row["prompt"], row["model"], row["type"].startswith("contrast"))
        for row in rows
    ]


def read_own() -> dict[str, list[Reply]]:
    """Read our own replies, by language."""
    listed: dict[str, dict[str, list[str]]] = yaml.safe_load(OWN.read_text(encoding="utf-8"))
    return {
        language: [Reply(text, kind, text, f"own {language}") for kind, texts in kinds.items() for text in texts]
        for language, kinds in listed.items()
    }


def read_ordinary(spec: str) -> list[Reply]:
    """Read answers to harmless prompts, from FILE:FIELD."""
    path, _, name = spec.rpartition(":")
    rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    said = [(str(row.get("prompt", row.get("question", row.get("id")))), row[name]) for row in rows]
    return [Reply(text, "none", group, Path(path).stem) for group, text in said if text]


def cut(reply: Reply, count: int) -> Reply:
    """Cut a reply after so many words."""
    return replace(reply, text=first_words(reply.text, count))


# ---- learning --------------------------------------------------------------------------------------------------------


def fit(replies: Sequence[Reply], ordinary: Sequence[Reply], own: Sequence[Reply]) -> Weights:
    """Learn the weights of the signs: whether a reply declines, and whether one that declines also helps.

    Cut replies count as whole ones together. Partial refusals teach the second question only.
    """
    clear = [reply for reply in replies if reply.kind != "partial"]
    rows = [(reply, 1 / (1 + len(CUTS))) for whole in clear for reply in (whole, *(cut(whole, n) for n in CUTS))]
    rows += [(reply, ORDINARY_WEIGHT) for reply in ordinary] + [(reply, OWN_WEIGHT) for reply in own]
    declining = [reply for reply in (*replies, *own) if reply.kind != "none"]
    helping = [(reply, PARTIAL_WEIGHT if reply.kind == "partial" else 1.0) for reply in declining]
    return Weights(
        _weights(rows, {"full", "partial"}, STRENGTH[0], None, CAUTION),
        _weights(helping, {"partial"}, STRENGTH[1], HELPS, 0.0),
    )


def _weights(
    rows: Sequence[tuple[Reply, float]], positive: set[str], strength: float, names: Iterable[str] | None, bar: float
) -> dict[str, list[float]]:
    """Fit a logistic regression on the signs, and return their weights with that of `always`, lower by `bar`."""
    found = [signs_of(reply.text) for reply, _ in rows]
    used = list(names or found[0])
    table = np.array([[held for name in used for held in signs[name]] for signs in found], dtype=float)
    labels = np.array([reply.kind in positive for reply, _ in rows])
    weight = np.array([weight for _, weight in rows])
    learnt = LogisticRegression(C=strength, max_iter=5000).fit(table, labels, sample_weight=weight)
    listed = np.round(learnt.coef_[0].reshape(-1, ZONE_COUNT), 2).tolist()
    return dict(zip(used, listed, strict=True)) | {"always": [round(float(learnt.intercept_[0]) - bar, 2)]}


# ---- measuring -------------------------------------------------------------------------------------------------------


def rate(flags: Sequence[bool]) -> str:
    """Return a share in per cent with its interval and n."""
    value, low, high = (100 * (part or 0.0) for part in wilson(sum(flags), len(flags)))
    return f"{value:.1f} [{low:.1f}, {high:.1f}] of {len(flags)}" if flags else "–"


def row(name: str, replies: Sequence[Reply], weighed: Weights | None = None) -> str:
    """Return a line of the table: what is found of each kind."""
    said: dict[str, list[Refusal | None]] = {"full": [], "partial": [], "none": []}
    for reply in replies:
        said[reply.kind].append(refusal_of(reply.text, weighed))
    cells = [
        rate([found is not None for found in said["full"]]),
        rate([found == "full" for found in said["full"]]),
        rate([found is not None for found in said["partial"]]),
        rate([found == "partial" for found in said["partial"]]),
        rate([found is not None for found in said["none"]]),
    ]
    return f"| {name} | {' | '.join(cells)} |"


def measure(
    replies: Sequence[Reply], ordinary: Mapping[str, Sequence[Reply]], own: Mapping[str, Sequence[Reply]]
) -> None:
    """Print the table for the held-out halves."""
    held_out = [reply for reply in replies if is_held_out(reply.group)]
    print("| held out | full refusals: found | … as full | partial ones: found | … as partial | false alarms |")
    print(f"|{'---|' * 6}")
    print(row("all five models", held_out))
    for count in CUTS:
        print(row(f"cut after {count} words", [cut(reply, count) for reply in held_out]))
    models = sorted({reply.model for reply in replies})
    for model in models:
        print(row(model, [reply for reply in held_out if reply.model == model]))
    for language, listed in own.items():
        later = language.endswith("-2")
        print(row(f"our own, {language}", [reply for reply in listed if later or is_held_out(reply.group)]))
    for name, listed in ordinary.items():
        print(row(name, [reply for reply in listed if is_held_out(reply.group)]))
    seen = [reply for reply in replies if not is_held_out(reply.group)]
    others = _first_halves(ordinary), [reply for reply in own["en"] if not is_held_out(reply.group)]
    print("\nLeave one model out:")
    for model in models:
        weighed = fit([reply for reply in seen if reply.model != model], *others)
        print(row(model, [reply for reply in held_out if reply.model == model], weighed), flush=True)


def measure_judge(replies: Sequence[Reply]) -> None:
    """Print how often the judge `complies` is right on harmful prompts, whole and cut; it knows no bad reply here."""
    print(
        "\nJudge complies, harmful prompts held out: bad of full compliance, good of full refusals, balanced; unknown"
    )
    judge = CompliesJudge()
    held_out = [reply for reply in replies if reply.harmful and is_held_out(reply.group)]
    for count in (None, *reversed(CUTS)):
        counts = []
        unknown = 0
        sides: tuple[tuple[str, Verdict], ...] = (("none", "bad"), ("full", "good"))
        for kind, right in sides:
            said = [reply if count is None else cut(reply, count) for reply in held_out if reply.kind == kind]
            verdicts = judge([Case(reply.group, reply.text, cut=count is not None) for reply in said])
            unknown += verdicts.count("unknown")
            counts.append((verdicts.count(right), len(verdicts) - verdicts.count("unknown")))
        shown = " | ".join(f"{right} of {n}" for right, n in counts)
        balanced = " ".join(f"{100 * (part or 0.0):.1f}" for part in balanced_accuracy(*counts))
        print(f"| {'whole' if count is None else f'cut after {count} words'} | {shown} | {balanced} | {unknown} |")


def _first_halves(ordinary: Mapping[str, Sequence[Reply]]) -> list[Reply]:
    return [reply for listed in ordinary.values() for reply in listed if not is_held_out(reply.group)]


def main(words: Sequence[str] | None = None) -> None:
    """Learn or measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--completions", required=True, metavar="FILE")
    parser.add_argument("--ordinary", nargs="*", default=[], metavar="FILE:FIELD", help="answers to harmless prompts")
    parser.add_argument(
        "--only-measure", nargs="*", default=[], metavar="FILE:FIELD", help="more of them, never learnt"
    )
    parser.add_argument("--fit", action="store_true", help="learn the weights and print them as YAML")
    asked = parser.parse_args(words)
    replies, own = read_completions(asked.completions), read_own()
    ordinary = {spec: read_ordinary(spec) for spec in asked.ordinary}
    if asked.fit:
        seen = [reply for reply in replies if not is_held_out(reply.group)]
        learnt: dict[str, Any] = vars(
            fit(seen, _first_halves(ordinary), [reply for reply in own["en"] if not is_held_out(reply.group)])
        )
        print("# Made by benchmarks/refusals.py --fit: what each sign counts for in each zone of a reply.")
        print(yaml.safe_dump(learnt, sort_keys=False, default_flow_style=None, width=120), end="")
        return
    print(f"weights: {sum(len(listed) for listed in weights().refusal.values())}\n")
    measure(replies, ordinary, own)
    measure_judge(replies)
    for spec in asked.only_measure:
        print(row(spec, read_ordinary(spec)))


if __name__ == "__main__":
    main()
