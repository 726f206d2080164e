"""Critique-Revise: the model replies, criticises its reply, writes it again, and learns the new one.

Source: the supervised stage of Constitutional AI (arXiv 2212.08073), as used in arXiv 2310.10477. Needs: prompts only;
the known bad replies serve the judge. Differs: one critique request that names all kinds of harm, no examples of how to
criticise and revise, and a gate: a revision that is blank, gibberish, cut off, empty of content (it repeats the
request) or called bad by the judge is not learnt. A model that cannot revise gets no row through, which is an error and
not a result.
"""

from collections import Counter
from collections.abc import Sequence

from unteach.baselines.base import Baseline
from unteach.baselines.baseline_run import BaselineRun
from unteach.baselines.config import BaselineConfig
from unteach.baselines.material import add_normals, encode_rows, with_reply
from unteach.baselines.rows import BaselineRows
from unteach.data.example import Example
from unteach.errors import ConfigError
from unteach.judges.base import case_of, verdicts_of
from unteach.models.kept_replies import generate_cached, tokens_of
from unteach.models.reply import Reply
from unteach.progress import track
from unteach.prompts.baselines import load_wording
from unteach.prompts.turn import Turn
from unteach.results.cost import Meter
from unteach.text.gibberish import blank, gibberish
from unteach.text.words import repeats
from unteach.training.rows import TrainingRow

Dialogue = tuple[Turn, ...]


class Revise(Baseline):
    """SFT on the model's own revisions."""

    name = "revise"
    summary = "Critique-Revise: SFT on replies that the model has criticised and written again"
    source = "arXiv 2212.08073, 2310.10477"
    needs = "prompts; normal rows beside them"
    trained_on = "rows, revisions and normal rows"
    positives = False

    def check(self, rows: BaselineRows, config: BaselineConfig) -> None:
        """Refuse requests that cannot be read."""
        load_wording(config.wording)

    def prepare(self, run: BaselineRun) -> list[TrainingRow]:
        """Have every harmful prompt answered, the answer criticised and revised, and keep what passes the gate."""
        words = load_wording(run.config.wording)
        asked = run.rows.negatives
        dialogues = [row.turns for row in asked]
        dialogues = _go_on(dialogues, _ask(run, "replies", dialogues), words.critique)
        dialogues = _go_on(dialogues, _ask(run, "critiques", dialogues), words.revision)
        revisions = _ask(run, "revisions", dialogues)
        kept = self._keep_fit(run, asked, revisions, (words.critique, words.revision))
        revised = encode_rows(run, kept, "revision")
        rows = add_normals(run, revised)
        normals = len(rows) - len(revised)
        run.note_data(positives=0, negatives=0, pairs=0, prompts=len(asked), normal_rows=normals)
        return rows

    def _keep_fit(
        self, run: BaselineRun, asked: Sequence[Example], revisions: Sequence[Reply], requests: Sequence[str]
    ) -> list[Example]:
        """Keep the revisions that are fit to learn from. Raises ConfigError where none is."""
        cases = [
            case_of(row, revision, "unseen", run.original.form.end)
            for row, revision in zip(asked, revisions, strict=True)
        ]
        kept, reasons = [], Counter[str]()
        for row, revision, verdict in zip(asked, revisions, verdicts_of(run.judge, cases), strict=True):
            reason = _fault(revision, requests) or ("called bad by the judge" if verdict == "bad" else "")
            if reason:
                reasons[reason] += 1
            else:
                kept.append(with_reply(row, revision.written))
        out = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common()) or "none left out"
        run.notes.append(f"revisions: {len(kept)} of {len(asked)} are fit to learn from ({out})")
        if not kept:
            raise ConfigError(
                f"baseline {self.name}: of {len(asked)} revisions none is fit to learn from ({out}); this model cannot "
                "revise: choose another baseline, or requests it understands (--wording)"
            )
        return kept


def _go_on(dialogues: Sequence[Dialogue], replies: Sequence[Reply], request: str) -> list[Dialogue]:
    """Add what the model said, and the next request, to each dialogue."""
    return [
        (*turns, Turn("assistant", reply.text or "…"), Turn("user", request))
        for turns, reply in zip(dialogues, replies, strict=True)
    ]


def _fault(revision: Reply, requests: Sequence[str]) -> str:
    """Return what is wrong with a revision, before any judge is asked; empty where nothing is."""
    if revision.cut:
        return "cut off"
    if blank(revision.text):
        return "blank"
    if gibberish(revision.text):
        return "gibberish"
    return "repeating the request" if any(repeats(revision.text, request) for request in requests) else ""


def _ask(run: BaselineRun, stage: str, dialogues: Sequence[Dialogue]) -> list[Reply]:
    """Ask the original, and add the cost, also where its replies were kept from an earlier run."""
    meter = Meter()
    prompts = [run.original.form.prompt_ids(turns) for turns in dialogues]
    room = run.max_length - run.config.max_new_tokens
    longest = max(map(len, prompts))
    if longest > max(room, 0):
        raise ConfigError(
            f"baseline revise: a dialogue of {longest} tokens leaves no room for {run.config.max_new_tokens} more in "
            f"{run.max_length}; lower --max-new-tokens or give shorter prompts"
        )
    with track(f"revise: {stage}") as progress:
        replies = generate_cached(
            run.original.model,
            run.original.tokenizer,
            prompts,
            key=run.original.key,
            max_new_tokens=run.config.max_new_tokens,
            end=run.original.form.end,
            progress=progress,
        )
    read, said = tokens_of(prompts, replies)
    run.cost.append(meter.cost(run.original.model, run.arm, stage, read, generated=said))
    return replies


baselines = (Revise(),)
