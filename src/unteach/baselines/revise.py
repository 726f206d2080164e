"""Critique-Revise: the model replies, criticises its reply, writes it again, and learns the new one.

Source: the supervised stage of Constitutional AI (arXiv 2212.08073), as used in arXiv 2310.10477. Needs: prompts only;
the known bad replies serve the judge. Differs: one critique request that names all kinds of harm, no examples of how to
criticise and revise, and a gate: a revision that is blank, gibberish, cut off, empty of content (it repeats the
request) or called bad by the judge is not learnt. A model that cannot revise gets no row through, which is an error and
not a result.
"""

from collections import Counter
from collections.abc import Sequence

from unteach.baselines.base import Bench, Plain, Trained, learnt_rows, needed, passes, replied, tuned, with_normals
from unteach.data.example import Example
from unteach.errors import ConfigError
from unteach.models.kept_replies import generate_cached
from unteach.progress import track
from unteach.prompts.baselines import load_wording
from unteach.prompts.turn import Turn
from unteach.results.cost import Meter
from unteach.results.verdict import Case
from unteach.text.gibberish import blank, gibberish
from unteach.text.words import repeats
from unteach.training.rows import TrainingRow

Dialogue = tuple[Turn, ...]


class Revise(Plain):
    """SFT on the model's own revisions."""

    name = "revise"
    summary = "Critique-Revise: SFT on replies that the model has criticised and written again"
    source = "arXiv 2212.08073, 2310.10477"
    needs = "prompts; normal rows beside them"
    positives = False

    def check(self, rows, config) -> None:  # type: ignore[no-untyped-def]
        """Read the requests."""
        load_wording(config.wording)

    def prepare(self, bench: Bench) -> list[TrainingRow]:
        """Have every harmful prompt answered, the answer criticised and revised, and keep what passes the gate."""
        words = load_wording(bench.config.wording)
        asked = bench.rows.negatives
        replies = _said(bench, "replies", [row.turns for row in asked])
        again = [(*row.turns, Turn("assistant", reply or "…")) for row, reply in zip(asked, replies, strict=True)]
        criticised: list[Dialogue] = [(*turns, Turn("user", words.critique)) for turns in again]
        critiques = _said(bench, "critiques", criticised)
        revising: list[Dialogue] = [
            (*turns, Turn("assistant", critique or "…"), Turn("user", words.revision))
            for turns, critique in zip(criticised, critiques, strict=True)
        ]
        kept = self._gate(bench, asked, _said(bench, "revisions", revising), (words.critique, words.revision))
        revised = learnt_rows(bench, kept, "revision")
        rows = with_normals(bench, revised, bench.normals_per_row(1.0))
        normals = len(rows) - len(revised)
        needed(bench, positives=0, negatives=0, pairs=0, prompts=len(asked), normal_rows=normals)
        return rows

    def _gate(
        self, bench: Bench, asked: Sequence[Example], revisions: Sequence[str], requests: Sequence[str]
    ) -> list[Example]:
        """Keep revisions fit to learn from. Raises ConfigError where none is."""
        cases = [
            Case(row.prompt, text, bad=row.reply, good=row.good, concept=row.concept)
            for row, text in zip(asked, revisions, strict=True)
        ]
        kept, reasons = [], Counter[str]()
        for row, text, verdict in zip(asked, revisions, bench.judge(cases), strict=True):
            reason = _fault(bench, row, text, requests) or ("called bad by the judge" if verdict == "bad" else "")
            if reason:
                reasons[reason] += 1
            else:
                kept.append(replied(row, text))
        out = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common()) or "none left out"
        bench.notes.append(f"revisions: {len(kept)} of {len(asked)} are fit to learn from ({out})")
        if not kept:
            raise ConfigError(
                f"baseline {self.name}: of {len(asked)} revisions none is fit to learn from ({out}); this model cannot "
                "revise: choose another baseline, or requests it understands (--wording)"
            )
        return kept

    def train(self, bench: Bench, material: list[TrainingRow]) -> Trained:
        """Tune on revisions and normal rows."""
        trainer = tuned(bench, passes(bench, material))
        return Trained(trainer.model, trainer.state.global_step, f"{len(material)} rows, revisions and normal rows")


def _fault(bench: Bench, row: Example, text: str, requests: Sequence[str]) -> str:
    """What is wrong with a revision, before any judge is asked; empty where nothing is."""
    if blank(text):
        return "blank"
    if gibberish(text):
        return "gibberish"
    if len(bench.original.form.reply_ids(row.turns, text)) > bench.config.max_new_tokens:  # EOS would have come in time
        return "cut off"
    return "repeating the request" if any(repeats(text, request) for request in requests) else ""


def _said(bench: Bench, stage: str, dialogues: Sequence[Dialogue]) -> list[str]:
    """Ask the original, and put what it takes in the cost, also where its replies were kept from before."""
    meter = Meter()
    prompts = [bench.original.form.prompt_ids(turns) for turns in dialogues]
    room = bench.max_length - bench.config.max_new_tokens
    longest = max(map(len, prompts))
    if longest > max(room, 0):
        raise ConfigError(
            f"baseline revise: a dialogue of {longest} tokens leaves no room for {bench.config.max_new_tokens} more in "
            f"{bench.max_length}; lower --max-new-tokens or give shorter prompts"
        )
    with track(f"revise: {stage}") as progress:
        texts = generate_cached(
            bench.original.model,
            bench.original.form.tokenizer,
            prompts,
            key=bench.original.key,
            max_new_tokens=bench.config.max_new_tokens,
            progress=progress,
        )
    said = sum(len(bench.original.form.reply_ids(turns, text)) for turns, text in zip(dialogues, texts, strict=True))
    read = sum(map(len, prompts))
    bench.cost.append(meter.cost(bench.original.model, bench.arm, stage, read, generated=said))
    return texts


baselines = (Revise(),)
