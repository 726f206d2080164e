"""The rows of step 3: analyses asked for without guidance, mixed with normal and harmless rows, with loss masks."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from unteach.data.encoded import Encoded
from unteach.data.example import Example
from unteach.data.prompt_format import PromptFormat
from unteach.errors import DataError
from unteach.mistakes.records import Analysis
from unteach.prompts.mistakes import MistakeWording
from unteach.prompts.turn import Turn
from unteach.training.rows import TrainingRow, fitting

Kind = Literal["analysis", "good analysis", "normal", "harmless"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Corpus:
    """The rows of a tuning, and notes on what was left out."""

    rows: Sequence[TrainingRow]
    notes: Sequence[str] = ()

    @property
    def counts(self) -> Counter[str]:
        """Rows by kind."""
        return Counter(row.kind for row in self.rows)

    @property
    def tokens(self) -> int:
        """Tokens of one pass over the rows."""
        return sum(len(row.input_ids) for row in self.rows)

    def __str__(self) -> str:
        counts = self.counts
        return ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind]) + f" rows, {self.tokens:,} tokens"


def make_corpus(
    analyses: Sequence[Analysis],
    normals: Sequence[Example] = (),
    harmless: Sequence[Example] = (),
    *,
    wording: MistakeWording,
    form: PromptFormat,
    max_length: int,
    normals_per_analysis: float = 1.0,
    harmless_per_analysis: float = 1.0,
    seed: int = 0,
    learn_replies: bool = False,
) -> Corpus:
    """Mix the rows to tune on, by stated ratios to the analyses, shuffled by `seed`.

    An analysis row asks for an assessment in neutral words. The bad reply stands in its prompt, so it gets no loss,
    unless `learn_replies` (a control, known to damage models). The ratios refer to the analyses of bad replies; those
    of good replies are added to them. Without analyses the ratios refer to each other, so "harmless" alone is SFT on
    good answers; a kind whose ratio is 0 is left out. Rows longer than `max_length` tokens are left out whole and
    named: cut at the end, they would lose the analysis. Raises DataError where no row is left.

    Source: arXiv 2310.10477, section 4. Differs: row lengths are checked first.
    """
    sizes = {"normal": normals_per_analysis, "harmless": harmless_per_analysis}
    rows_of = {_unguided(analysis, wording): analysis for analysis in analyses}
    given: dict[Kind, list[Example]] = {
        "analysis": [_unguided(analysis, wording) for analysis in analyses if analysis.reply_is == "bad"],
        "good analysis": [_unguided(analysis, wording) for analysis in analyses if analysis.reply_is == "good"],
        "normal": list(normals),
        "harmless": list(harmless),
    }
    notes: list[str] = []
    wanted_kinds = {kind: rows for kind, rows in given.items() if rows and sizes.get(kind, 1.0) > 0}
    fit = {kind: fitting(kind, rows, form, max_length, notes) for kind, rows in wanted_kinds.items()}
    fit = {kind: rows for kind, rows in fit.items() if rows}
    if not fit:
        raise DataError("there is no row to tune on: no analysis was kept and no other rows were given")
    if analyses and "analysis" not in fit:
        raise DataError(f"no analysis fits into {max_length} tokens; raise --max-length")
    leading: Kind = "analysis" if "analysis" in fit else ("harmless" if "harmless" in fit else "normal")
    unit = len(fit[leading]) / sizes.get(leading, 1.0)
    mixed: list[TrainingRow] = []
    for kind, rows in fit.items():
        wanted = round(unit * sizes[kind]) if kind in sizes and kind != leading else len(rows)
        drawn = random.Random(f"corpus:{kind}:{seed}").sample(rows, min(wanted, len(rows)))
        if len(drawn) < wanted:
            notes.append(f"{kind} rows: {wanted} were wanted for the ratio and {len(rows)} are there")
        for row in drawn:
            learnt = [False] * len(row.prompt_ids) + [True] * len(row.reply_ids)
            if kind == "analysis" and learn_replies:
                start, end = _reply_within(row, rows_of[row.example], form, wording)
                learnt[start:end] = [True] * (end - start)
            mixed.append(TrainingRow(kind, row, tuple(learnt)))
    random.Random(f"corpus:{seed}").shuffle(mixed)
    return Corpus(mixed, notes)


def shuffled_analyses(analyses: Sequence[Analysis], seed: int) -> list[Analysis]:
    """Give every mistake the analysis of another: a control for whether the content of the analyses teaches.

    With two analyses or more no mistake keeps its own, though another may read the same.
    """
    places = list(range(len(analyses)))
    random.Random(f"shuffled:{seed}").shuffle(places)
    moved = list(analyses)
    for place, following in zip(places, places[1:] + places[:1], strict=True):
        moved[place] = replace(analyses[place], text=analyses[following].text)
    return moved


def _unguided(analysis: Analysis, wording: MistakeWording) -> Example:
    mistake = analysis.mistake.example
    asked = wording.assess("unguided", mistake.prompt, mistake.reply)
    return Example((Turn("user", asked),), analysis.text, where=mistake.where, bad=mistake.reply)


_OTHER_REPLIES = ("\u00a7 1", "Zq. 0")
"""Two replies that begin and end unlike each other."""


def _reply_within(row: Encoded, analysis: Analysis, form: PromptFormat, wording: MistakeWording) -> tuple[int, int]:
    """Return where the tokens of the bad reply begin and end in the prompt of an analysis row.

    They are the tokens that change with the reply: a tokenizer need not cut where the reply begins or ends.
    """
    start, end = len(row.prompt_ids), 0
    for other in _OTHER_REPLIES:
        text = wording.assess("unguided", analysis.mistake.example.prompt, other)
        ids = form.prompt_ids((Turn("user", text),))
        start = min(start, _shared(row.prompt_ids, ids))
        end = max(end, len(row.prompt_ids) - _shared(row.prompt_ids[::-1], ids[::-1]))
    return start, end


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """Count the tokens that two lists share at their beginning."""
    ends = min(len(first), len(second))
    return next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), ends)
