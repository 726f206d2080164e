"""Chain of Hindsight: good and bad answers in one sequence, each after a phrase that says which it is.

Source: arXiv 2302.02676. Needs: pairs, a good answer beside each bad one. Every pair makes two dialogues:

    [good phrase] prompt → good answer → bad phrase → bad answer
    [bad phrase] prompt → bad answer → good phrase → good answer

`coh` learns both answers, as published; `coh-masked` learns good ones only: training on bad text is known to damage
models. Phrases and prompts are never learnt. The good phrase goes before every prompt of the trained model: its chat
template carries it (a line before the prompt where there is none, told in `guidance.json`), and the model is measured
with it. Differs: the first phrase goes before the prompt, not between prompt and answer, so that a template can carry
it wherever the model goes; past tokens are not masked at random; normal rows are mixed in with the good phrase.
"""

from dataclasses import replace

from unteach.baselines.base import Baseline
from unteach.baselines.baseline_run import BaselineRun
from unteach.baselines.config import BaselineConfig
from unteach.baselines.material import learn_replies
from unteach.baselines.rows import BaselineRows
from unteach.data.encoded import Encoded
from unteach.data.example import Example
from unteach.data.prompt_format import PromptFormat
from unteach.errors import ConfigError, DataError
from unteach.prompts.baselines import BaselineWording, load_wording
from unteach.prompts.turn import Turn
from unteach.training.rows import TrainingRow, fitting, repeated_to


class Hindsight(Baseline):
    """Chain of Hindsight; `learns_bad` as published."""

    source = "arXiv 2302.02676"
    needs = "pairs: a good answer beside each bad one; normal rows beside them"
    trained_on = "rows, chains and normal rows"
    pairs = True

    def __init__(self, name: str, learns_bad: bool) -> None:
        self.name, self.learns_bad = name, learns_bad
        learnt = "both answers learnt, as published" if learns_bad else "good answers learnt, bad ones only read"
        self.summary = f"Chain of Hindsight: {learnt}"

    def check(self, rows: BaselineRows, config: BaselineConfig) -> None:
        """Refuse rows without pairs, and phrases that cannot be read."""
        load_wording(config.wording)
        super().check(rows, config)

    def phrase(self, config: BaselineConfig) -> str | None:
        """Return the good phrase."""
        return load_wording(config.wording).good

    def prepare(self, run: BaselineRun) -> list[TrainingRow]:
        """Chain every pair both ways, and give normal rows the good phrase."""
        words = load_wording(run.config.wording)
        forms = {True: run.form_with(words.good), False: run.form_with(words.bad)}
        chains = [
            chain(row, good_first, forms, words, self.learns_bad)
            for row in run.rows.with_good
            for good_first in (True, False)
        ]
        fit = [row for row in chains if len(row.input_ids) <= run.max_length]
        if not fit:
            raise DataError(f"no chain of two answers fits into {run.max_length} tokens; raise --max-length")
        if len(fit) < len(chains):
            run.notes.append(f"left out {len(chains) - len(fit)} of {len(chains)} chains that are too long")
        wanted = round(run.normals_per_row * len(fit) / 2)
        normals = self._normals(run, forms[True], wanted)
        pairs = len(run.rows.with_good)
        run.note_data(positives=pairs, negatives=pairs, pairs=pairs, normal_rows=len(normals))
        return [*fit, *normals]

    def _normals(self, run: BaselineRun, form: PromptFormat, wanted: int) -> list[TrainingRow]:
        normals = run.rows.normals
        encoded = fitting("normal", normals, form, run.max_length, run.notes) if normals else []
        rows = learn_replies(encoded, "normal")
        tokens = sum(len(row.input_ids) for row in rows)
        return repeated_to(rows, tokens * (1 + wanted // len(rows)), run.config.seed)[:wanted] if rows else []


def chain(
    row: Example, good_first: bool, forms: dict[bool, PromptFormat], words: BaselineWording, learns_bad: bool
) -> TrainingRow:
    """Lay out one dialogue of two answers, with loss on good answers and, if `learns_bad`, on bad ones.

    Raises ConfigError where the chat template writes an answer otherwise once the dialogue goes on.
    """
    form = forms[good_first]
    first, second = (row.good or "", row.reply) if good_first else (row.reply, row.good or "")
    prompt, answer = form.prompt_ids(row.turns), form.reply_ids(row.turns, first)
    turns = (*row.turns, Turn("assistant", first), Turn("user", words.bad if good_first else words.good))
    ids = form.prompt_ids(turns)
    answer = answer if ids[: len(prompt) + len(answer)] == prompt + answer else answer[:-1]  # EOS may be a turn's end
    if ids[: len(prompt) + len(answer)] != prompt + answer:
        raise ConfigError(
            f"{row.where or 'a row'}: the chat template changes an answer once another question follows, so answers "
            "cannot be chained; use --prompt-format plain"
        )
    last = form.reply_ids(turns, second)
    good, bad = True, learns_bad
    learnt = [False] * len(prompt) + [good if good_first else bad] * len(answer)
    learnt += [False] * (len(ids) - len(learnt)) + [bad if good_first else good] * len(last)
    kind = "good, then bad" if good_first else "bad, then good"
    example = replace(row, turns=turns, reply=second)
    return TrainingRow(kind, Encoded(example, tuple(ids), tuple(last), False), tuple(learnt))


baselines = (Hindsight("coh", True), Hindsight("coh-masked", False))
