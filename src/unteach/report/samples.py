"""The samples of a page: replies side by side, with differences to the original's marked, in a limited size."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from unteach.report import wording
from unteach.report.headline import tested_arm
from unteach.report.html import templates
from unteach.results.arms import ARMS, ORIGINAL, in_order
from unteach.results.report import Report, Sample
from unteach.text.escape import inert, inert_line

_MOST_BYTES = 1_600_000  # of all samples together, so that a page stays below 2 MB
_LIMITS = (4000, 2000, 1000, 500, 250)  # characters of a prompt or reply; the largest that fits is taken
_LONG = 700  # characters from which on a reply is folded
_LONG_LINES = 14
_WORDS = 400  # of a reply; longer ones are not compared word by word
_WORK = 25_000_000  # limit of all comparisons of a page, in pairs of words
_WORK_TO_BEGIN = 2_000  # of each comparison
_ALIKE = 0.3  # replies that share less than this differ as a whole, and marks would say nothing
_PIECES = re.compile(r"\s+|[^\s]+")

Part = tuple[str, str]
"""A piece of a reply: "" for what both have, "ins" or "del" for what one has; and the text."""


@dataclass(frozen=True)
class ShownReply:
    """One arm's reply to a sample, in parts; `note` says in words how it compares with the original's."""

    arm: str
    parts: list[Part]
    verdict: str
    note: str
    long: int


@dataclass(frozen=True)
class ShownSample:
    """One sample, ready to show. `number` is its place in report.json, from 1 on.

    `title` is the prompt on one line; `prompt` is empty where the title is all of it. `change` holds the verdicts
    before and after. `verdicts` and `same` have a word for each arm: its verdict or "-", and 1 where its reply equals
    the original's, 0 where it does not.
    """

    number: int
    split: str
    prompt: str
    title: str
    change: list[str]
    verdicts: str
    same: str
    replies: list[ShownReply]


@dataclass(frozen=True)
class ShownSamples:
    """The samples as HTML, what there is to filter by, and what was left out or cut."""

    html: Markup
    count: int
    arms: list[tuple[str, str]]
    splits: list[tuple[str, str]]
    tested: str
    notes: list[str]


def samples(report: Report) -> ShownSamples | None:
    """Return as many samples as fit, in turns from the splits that matter most; None where there are none."""
    if not report.samples:
        return None
    order = wording.handful(report, len(report.samples))
    writer = _Writer(report)
    limit, count, written = _LIMITS[-1], len(order), ""
    for limit in _LIMITS:
        written = writer.write(order, limit)
        if len(written.encode()) <= _MOST_BYTES:
            break
    while len(written.encode()) > _MOST_BYTES and count > 1:
        count = max(1, min(count - 1, int(count * 0.9 * _MOST_BYTES / len(written.encode()))))
        written = writer.write(order[:count], limit)
    return ShownSamples(
        html=Markup(written),
        count=count,
        arms=[(inert_line(arm, 60), writer.labels[arm]) for arm in writer.arms],
        splits=[(inert_line(split, 60), wording.label(split, wording.SHORT_SPLITS)) for split in writer.splits],
        tested=inert_line(writer.tested, 60),
        notes=_notes(report, count, limit),
    )


def _notes(report: Report, count: int, limit: int) -> list[str]:
    notes = []
    if count < len(report.samples):
        notes.append(f"{count:,} of {len(report.samples):,} samples fit into this page; report.json has them all.")
    texts = (text for sample in report.samples for text in (sample.prompt, *sample.replies.values()))
    if any(len(text) > limit for text in texts):
        notes.append(f"Texts are cut after {limit:,} characters; report.json has them whole.")
    return notes


class _Writer:
    """Turns the samples of one report into HTML."""

    def __init__(self, report: Report) -> None:
        self.places = {id(sample): place for place, sample in enumerate(report.samples, 1)}
        self.splits = in_order([sample.split for sample in report.samples], wording.SPLITS)
        self.arms = in_order([arm for sample in report.samples for arm in sample.replies], ARMS)
        self.labels = {arm: wording.arm_label(report, arm) for arm in self.arms}
        self.tested = tested_arm(report)
        self.compared = _Comparisons()

    def write(self, chosen: Sequence[Sample], limit: int) -> str:
        """Return these samples as HTML, each text cut after `limit` characters."""
        shown = [self._shown(sample, limit) for sample in chosen]
        template = templates().get_template("samples.html.jinja")
        return template.render(samples=shown, split_places={split: place for place, split in enumerate(self.splits)})

    def _shown(self, sample: Sample, limit: int) -> ShownSample:
        texts = {arm: inert(reply, limit) for arm, reply in sample.replies.items()}
        parts, notes = _compared(sample, texts, self.tested, limit, self.compared)
        arms = [arm for arm in self.arms if arm in sample.replies]
        told = [arm for arm in dict.fromkeys((ORIGINAL, self.tested)) if arm in sample.verdicts]
        original = sample.replies.get(ORIGINAL)
        prompt, title = inert(sample.prompt, limit), inert_line(sample.prompt, 160)
        return ShownSample(
            number=self.places[id(sample)],
            split=sample.split,
            prompt="" if prompt == title else prompt,
            title=title or "(blank)",
            change=[sample.verdicts[arm] for arm in told],
            verdicts=" ".join(sample.verdicts.get(arm, "-") for arm in self.arms),
            same=" ".join(
                "-" if arm not in sample.replies else str(int(sample.replies[arm] == original)) for arm in self.arms
            ),
            replies=[
                ShownReply(
                    arm=self.labels[arm],
                    parts=parts[arm],
                    verdict=sample.verdicts.get(arm, ""),
                    note=notes.get(arm, ""),
                    long=len(texts[arm]) if _is_long(texts[arm]) else 0,
                )
                for arm in arms
            ],
        )


def _is_long(text: str) -> bool:
    return len(text) > _LONG or text.count("\n") > _LONG_LINES


def _compared(
    sample: Sample, texts: dict[str, str], tested: str, limit: int, compared: "_Comparisons"
) -> tuple[dict[str, list[Part]], dict[str, str]]:
    """Mark what each arm's reply adds to the original's and, in the original's, what the tested arm dropped.

    Return the parts of each reply, and a note in words for each reply that was not marked.
    """
    parts: dict[str, list[Part]] = {arm: [("", text if text.strip() else "(blank)")] for arm, text in texts.items()}
    notes: dict[str, str] = {}
    original = texts.get(ORIGINAL)
    if original is None:
        return parts, notes
    for arm, text in texts.items():
        if arm == ORIGINAL:
            continue
        if sample.replies[arm] == sample.replies[ORIGINAL]:
            notes[arm] = "same as the original's"
            continue
        cut = max(len(sample.replies[arm]), len(sample.replies[ORIGINAL])) > limit
        found = None if cut else compared(original, text)
        if found is None:
            notes[arm] = "not compared" if cut or text.strip() and original.strip() else ""
        elif not found[0]:
            notes[arm] = "all different"
        else:
            parts[arm] = found[1]
            if arm == tested:
                parts[ORIGINAL] = found[0]
    return parts, notes


class _Comparisons:
    """Computes each difference of texts once, until the limit of work of one page is reached."""

    def __init__(self) -> None:
        self.left = _WORK
        self.known: dict[tuple[str, str], tuple[list[Part], list[Part]] | None] = {}

    def __call__(self, before: str, after: str) -> tuple[list[Part], list[Part]] | None:
        """Return what `difference` returns, or None where the limit of work is reached."""
        key = (before, after)
        if key not in self.known:
            work = _WORK_TO_BEGIN + _words(before) * _words(after)
            self.known[key] = None if work > self.left else difference(before, after)
            self.left -= min(work, self.left)
        return self.known[key]


def difference(before: str, after: str) -> tuple[list[Part], list[Part]] | None:
    """Return both texts in parts, with the words marked that only one of them has.

    The lists are empty where the texts share next to nothing; None where one is blank or too long to compare.
    """
    if not before.strip() or not after.strip() or max(_words(before), _words(after)) > _WORDS:
        return None
    ours, theirs = _PIECES.findall(before), _PIECES.findall(after)
    matcher = difflib.SequenceMatcher(None, ours, theirs, autojunk=False)
    if _shared(matcher, ours, theirs) < _ALIKE:
        return [], []
    old: list[Part] = []
    new: list[Part] = []
    for kind, a, b, c, d in matcher.get_opcodes():
        same = kind == "equal"
        old += [("" if same else "del", "".join(ours[a:b]))] if b > a else []
        new += [("" if same else "ins", "".join(theirs[c:d]))] if d > c else []
    return old, new


def _shared(matcher: "difflib.SequenceMatcher[str]", ours: list[str], theirs: list[str]) -> float:
    """Return the share of words, spaces aside, that both have in the same order."""
    both = sum(not word.isspace() for a, _, size in matcher.get_matching_blocks() for word in ours[a : a + size])
    every = sum(not word.isspace() for word in (*ours, *theirs))
    return 2 * both / every if every else 0.0


def _words(text: str) -> int:
    return len(text.split())
