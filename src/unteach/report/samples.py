"""The samples of a page: replies side by side, with differences to the original's marked, in a limited size."""

import difflib
from dataclasses import dataclass
from itertools import accumulate

import regex
from markupsafe import Markup

from unteach.report import wording
from unteach.report.headline import tested_arm
from unteach.report.html import templates
from unteach.results.arms import ARMS, ORIGINAL, in_order
from unteach.results.report import Report, Sample
from unteach.text.escape import inert, inert_line
from unteach.text.words import LETTER

_MOST_BYTES = 1_600_000  # of all samples together, so that a page stays below 2 MB
_LIMITS = (4000, 2000, 1000, 500, 250)  # characters of a prompt or reply; the largest that fits is taken
_LONG = 700  # characters from which on a reply is folded
_LONG_LINES = 14
_OPEN = 2  # samples that are unfolded at first
_WORDS = 400  # of a reply; longer ones are not compared word by word
_WORK = 25_000_000  # limit of all comparisons of a page, in pairs of words
_WORK_TO_BEGIN = 2_000  # of each comparison
_ALIKE = 0.3  # replies that share less than this differ as a whole, and marks would say nothing
_PIECES = regex.compile(rf"\s+|{LETTER}|(?:(?!{LETTER})\S)+", regex.V1)

Part = tuple[str, str]
"""A piece of a reply: "" for what both have, "ins" or "del" for what one has; and the text."""
Difference = tuple[list[Part], list[Part]]
"""Two texts in parts; empty lists where they differ as a whole."""


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
    writer = _Writer(report)
    order = wording.handful(report, len(report.samples))
    for limit in _LIMITS:
        written = [writer.write(sample, limit, is_open=place < _OPEN) for place, sample in enumerate(order)]
        sizes = list(accumulate(len(text.encode()) for text in written))
        if sizes[-1] <= _MOST_BYTES:
            break
    count = max(1, sum(size <= _MOST_BYTES for size in sizes))
    notes = []
    if count < len(order):
        notes.append(f"{count:,} of {len(order):,} samples fit into this page; report.json has them all.")
    if any(len(text) > limit for sample in order for text in (sample.prompt, *sample.replies.values())):
        notes.append(f"Texts are cut after {limit:,} characters; report.json has them whole.")
    return ShownSamples(
        html=Markup("\n".join(written[:count])),
        count=count,
        arms=[(inert_line(arm, 60), writer.labels[arm]) for arm in writer.arms],
        splits=[(inert_line(split, 60), wording.label(split, wording.SHORT_SPLITS)) for split in writer.splits],
        tested=inert_line(writer.tested, 60),
        notes=notes,
    )


class _Writer:
    """Turns samples of one report into HTML. Each two texts are compared once, within a limit of work."""

    def __init__(self, report: Report) -> None:
        self.places = {id(sample): place for place, sample in enumerate(report.samples, 1)}
        self.splits = in_order([sample.split for sample in report.samples], wording.SPLITS)
        self.arms = in_order([arm for sample in report.samples for arm in sample.replies], ARMS)
        self.labels = {arm: wording.arm_label(report, arm) for arm in self.arms}
        self.tested = tested_arm(report)
        self._template = templates().get_template("sample.html.jinja")
        self._work_left = _WORK
        self._compared: dict[tuple[str, str], Difference | None] = {}

    def write(self, sample: Sample, limit: int, is_open: bool) -> str:
        """Return a sample as HTML, each text cut after `limit` characters."""
        texts = {arm: inert(reply, limit) for arm, reply in sample.replies.items()}
        parts, notes = self._marked(sample, texts, limit)
        prompt, title = inert(sample.prompt, limit), inert_line(sample.prompt, 160)
        original = sample.replies.get(ORIGINAL)
        same = {arm: str(int(reply == original)) for arm, reply in sample.replies.items()}
        return self._template.render(
            is_open=is_open,
            number=self.places[id(sample)],
            split=sample.split,
            split_place=self.splits.index(sample.split),
            prompt="" if prompt == title else prompt,  # the title is all of it
            title=title or "(blank)",
            change=[sample.verdicts[arm] for arm in dict.fromkeys((ORIGINAL, self.tested)) if arm in sample.verdicts],
            verdicts=" ".join(sample.verdicts.get(arm, "-") for arm in self.arms),
            same=" ".join(same.get(arm, "-") for arm in self.arms),
            replies=[
                {
                    "arm": self.labels[arm],
                    "parts": parts[arm],
                    "verdict": sample.verdicts.get(arm, ""),
                    "note": ", ".join(filter(None, (notes.get(arm, ""), wording.cut_note(sample, arm)))),
                    "long": len(texts[arm]) if _is_long(texts[arm]) else 0,
                }
                for arm in self.arms
                if arm in sample.replies
            ],
        )

    def _marked(
        self, sample: Sample, texts: dict[str, str], limit: int
    ) -> tuple[dict[str, list[Part]], dict[str, str]]:
        """Mark what each reply adds to the original's and, in the original's, what the tested arm dropped.

        Return the parts of each reply, and a note in words for each reply that was not marked.
        """
        parts: dict[str, list[Part]] = {
            arm: [("", text if text.strip() else wording.nothing(sample, arm))] for arm, text in texts.items()
        }
        notes: dict[str, str] = {}
        for arm, text in texts.items():
            if arm == ORIGINAL or ORIGINAL not in texts:
                continue
            if sample.replies[arm] == sample.replies[ORIGINAL]:
                notes[arm] = "same as the original's"
                continue
            cut = max(len(sample.replies[arm]), len(sample.replies[ORIGINAL])) > limit
            found = None if cut else self._difference(texts[ORIGINAL], text)
            if found is None:
                notes[arm] = "not compared" if cut or text.strip() and texts[ORIGINAL].strip() else ""
            elif not found[0]:
                notes[arm] = "all different"
            else:
                parts[arm] = found[1]
                if arm == self.tested:
                    parts[ORIGINAL] = found[0]
        return parts, notes

    def _difference(self, before: str, after: str) -> Difference | None:
        """Return what `difference` returns, or None where the limit of work is reached."""
        key = (before, after)
        if key not in self._compared:
            work = _WORK_TO_BEGIN + _words(before) * _words(after)
            self._compared[key] = None if work > self._work_left else difference(before, after)
            self._work_left -= min(work, self._work_left)
        return self._compared[key]


def _is_long(text: str) -> bool:
    return len(text) > _LONG or text.count("\n") > _LONG_LINES


def difference(before: str, after: str) -> Difference | None:
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
    return sum(not piece.isspace() for piece in _PIECES.findall(text))
