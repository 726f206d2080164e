"""Whether two runs are about the same thing: scenario, original model, judge, prompts."""

import re
from collections import Counter
from collections.abc import Collection

from unteach.comparison.pairs import keyed
from unteach.results.arms import ORIGINAL
from unteach.results.report import Report

SEEN = "seen"
_MOST_CHANGED = 0.1
"""The share of replies that a model may change between machines and batches; beyond it, it is another model."""


def differences(ours: Report, theirs: Report) -> list[str]:
    """Say why metrics of the two runs cannot be compared; an empty list where they can."""
    found = []
    if ours.scenario != theirs.scenario:
        found.append(f"scenario {ours.scenario} and {theirs.scenario}")
    if told := _other_original(ours, theirs):
        found.append(told)
    first, second = (report.judge.partition(",")[0] for report in (ours, theirs))  # the others give second opinions
    if first != second:
        found.append(f"judge {first or '(none)'} and {second or '(none)'}")
    return found + _other_prompts(ours, theirs)


def remarks(ours: Report, theirs: Report) -> list[str]:
    """Say what differs between two runs that can be compared."""
    found = []
    same, changed = _original_replies(ours, theirs)
    if changed:
        found.append(f"the original's replies to {changed} of {same + changed} prompts differ")
    found += _prompts_that_differ(ours, theirs, [SEEN])
    machines = [(run.environment.get("device"), run.environment.get("cores")) for run in (ours, theirs)]
    if machines[0] != machines[1]:
        first, second = (f"{device or '?'} with {cores or '?'} cores" for device, cores in machines)
        found.append(f"their seconds were measured on different machines ({first}; {second})")
    return found


def original_of(report: Report) -> str:
    """Return the name of the original model, which a run of `unteach evaluate --original` has in its command only."""
    if report.method == "none":
        told = re.search(r" --original (.+) --output another-directory$", report.command)
        return told[1] if told else report.model
    return report.model


def same_replies(ours: Report, theirs: Report, arm: str) -> bool:
    """Return whether an arm replied the same in both runs to all unseen prompts that they share, and there are some."""
    replies = _replies_in_both(ours, theirs, arm, ["unseen"])
    return bool(replies) and all(first == second for first, second in replies)


def _replies_in_both(
    ours: Report, theirs: Report, arm: str, splits: Collection[str]
) -> list[tuple[str | None, str | None]]:
    """Return an arm's replies in both runs to each prompt that they share, None where it has no reply."""
    found = []
    for split in splits:
        others = keyed(theirs, split)
        for key, sample in keyed(ours, split).items():
            if key in others:
                found.append((sample.replies.get(arm), others[key].replies.get(arm)))
    return found


def _other_original(ours: Report, theirs: Report) -> str:
    """Say how the originals differ; where there are replies these decide, since a path can be written in two ways."""
    names = original_of(ours), original_of(theirs)
    same, changed = _original_replies(ours, theirs)
    total = same + changed
    if total and (changed <= _MOST_CHANGED * total if names[0] == names[1] else not changed):
        return ""
    if not total and names[0] == names[1]:
        return ""
    told = f"; its replies to {changed} of {total} prompts differ" if total else ""
    return f"original model {names[0]} and {names[1]}{told}"


def _original_replies(ours: Report, theirs: Report) -> tuple[int, int]:
    """Count the prompts that both runs put to the original: those with the same reply and those with another."""
    replies = [both for both in _replies_in_both(ours, theirs, ORIGINAL, _splits(ours)) if None not in both]
    same = sum(first == second for first, second in replies)
    return same, len(replies) - same


def _other_prompts(ours: Report, theirs: Report) -> list[str]:
    """Say on which splits the prompts differ.

    A split that only one of the two evaluated is no difference. Other seen prompts are none either, since each run is
    evaluated on some of the prompts that it was trained on.
    """
    shared = [split for split in _splits(ours) if split in _splits(theirs)]
    if not shared:
        return ["prompts: the two have no samples of the same split"]
    return _prompts_that_differ(ours, theirs, [split for split in shared if split != SEEN])


def _prompts_that_differ(ours: Report, theirs: Report, splits: Collection[str]) -> list[str]:
    found = []
    for split in splits:
        first, second = (Counter(s.prompt for s in run.samples if s.split == split) for run in (ours, theirs))
        alone = (first - second).total(), (second - first).total()
        if any(alone):
            of = first.total(), second.total()
            found.append(
                f"prompts on the split {split}: {alone[0]} of {of[0]} are in the first run only, "
                f"{alone[1]} of {of[1]} in the second"
            )
    return found


def _splits(report: Report) -> Collection[str]:
    return dict.fromkeys(sample.split for sample in report.samples)
