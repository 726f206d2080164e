"""Look at a model on every split: its replies, their verdicts, and how likely it finds the known replies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from unteach.data.encoded import Encoded
from unteach.data.passages import whole_words
from unteach.data.prompt_format import PromptFormat
from unteach.evaluation.general_ability import GeneralAbility
from unteach.judges.base import Judge
from unteach.models.context import context_length
from unteach.models.kept_replies import KeptReplies, generate_cached
from unteach.models.unwrap import unwrapped
from unteach.probes import all_probes
from unteach.probes.base import Evidence
from unteach.progress import track
from unteach.results.cost import Meter
from unteach.results.measurement import HARM_SPLITS, Measurement
from unteach.results.report import Cost, Sample, Waypoint
from unteach.results.verdict import Case, Verdict
from unteach.scoring.likelihood import MOST_TOKENS, Likelihood, batches_of, teacher_forced_likelihood
from unteach.scoring.reference import Reference, one_branch
from unteach.scoring.score import last_hidden_states, score
from unteach.scoring.trees import lay_out
from unteach.stats import paired_difference

Splits = Mapping[str, Sequence[Encoded]]


@dataclass
class Look:
    """One arm on one split: parallel lists, one entry a row, but for `non_members`. Names as in `Evidence`.

    `verdicts` are the first judge's, `seconds` those of the other judges by name. `reply_nll` comes later, from the
    original model. `generations` counts how often the model had to answer; replies known from before took none.
    """

    cases: list[Case]
    verdicts: list[Verdict]
    reply_ids: list[list[int]]
    known: Likelihood
    other_log_probs: list[list[float] | None]
    seconds: dict[str, list[Verdict]] = field(default_factory=dict)
    sampled: list[list[Verdict]] | None = None
    non_members: list[list[float]] | None = None
    reply_nll: list[float | None] | None = None
    generations: int = 0


@dataclass
class Checked:
    """All looks so far, by arm and split, what they cost, and how they are taken.

    The first judge decides; the others give second opinions. `samples` replies to harmful prompts are drawn at
    temperature 1 beside the greedy one. `non_members` are rows like the seen negatives that no arm was trained on.
    `template` is the answer that the method teaches, if it teaches one. `ability` holds tasks beyond the splits.
    """

    splits: Splits
    form: PromptFormat
    judges: Sequence[Judge]
    max_new_tokens: int
    scenario: str = "harm"
    samples: int = 0
    seed: int = 0
    non_members: Sequence[Encoded] = ()
    template: str | None = None
    ability: GeneralAbility | None = None
    looks: dict[str, dict[str, Look]] = field(default_factory=dict)
    cost: list[Cost] = field(default_factory=list)
    curve: list[Waypoint] = field(default_factory=list)


def look_at(checked: Checked, arm: str, model: Any, reference: Reference | None = None, key: str | None = None) -> None:
    """Measure an arm on all splits and add it to `checked`.

    The rows are encoded for the original, so every arm must have its tokenizer. `reference` gives the original's
    answers for KL; without it no KL is taken. `key` is the fingerprint of a model that no training moves: its replies
    are then kept for other runs, or taken from one. Never give one for a model that was trained in memory.
    """
    meter, tokens, generated = Meter(), 0, 0
    looks: dict[str, Look] = {}
    first = 0
    for split, rows in checked.splits.items():
        looks[split] = look = _look(checked, arm, model, split, first, reference, key)
        replies = sum(len(ids) for ids in look.reply_ids)
        generated += replies * look.generations
        tokens += sum(len(row.prompt_ids) * (1 + look.generations) + len(row.reply_ids) for row in rows)
        first += len(rows)
    checked.looks[arm] = looks
    if checked.ability:
        with track(f"general ability of {arm}"):
            checked.ability.look_at(arm, unwrapped(model), checked.form.tokenizer, chat=checked.form.name == "chat")
    checked.cost.append(meter.cost(model, arm, "evaluation", tokens, generated=generated))


def _look(
    checked: Checked,
    arm: str,
    model: Any,
    split: str,
    first_key: int,
    reference: Reference | None,
    key: str | None,
) -> Look:
    """Measure an arm on one split."""
    rows, form, harmful = checked.splits[split], checked.form, split in HARM_SPLITS
    replies = _replies(checked, model, rows, f"evaluating {arm}: {split}", key)
    cases = [case_of(row, reply, split) for row, reply in zip(rows, replies, strict=True)]
    pad = form.ids.pad_id
    look = Look(
        cases,
        checked.judges[0](cases),
        [form.reply_ids(row.example.turns, reply) for row, reply in zip(rows, replies, strict=True)],
        teacher_forced_likelihood(model, [(row.prompt_ids, row.reply_ids) for row in rows], pad, reference, first_key),
        _other_log_probs(model, rows, split, form),
        {judge.name: judge(cases) for judge in checked.judges[1:]},
        generations=not isinstance(replies, KeptReplies),
    )
    if harmful and checked.samples:
        drawn = []
        for number in range(checked.samples):
            title = f"sampling {arm}: {split} {number + 1}/{checked.samples}"
            replies = _replies(checked, model, rows, title, key, 1.0, checked.seed + number)
            look.generations += not isinstance(replies, KeptReplies)
            cases = [case_of(row, reply, split) for row, reply in zip(rows, replies, strict=True)]
            drawn.append(checked.judges[0](cases))
        look.sampled = [list(verdicts) for verdicts in zip(*drawn, strict=True)]
    if split == "seen" and checked.non_members:
        pairs = [(row.prompt_ids, row.reply_ids) for row in checked.non_members]
        look.non_members = teacher_forced_likelihood(model, pairs, pad).log_probs
    return look


def _replies(
    checked: Checked,
    model: Any,
    rows: Sequence[Encoded],
    title: str,
    key: str | None,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[str]:
    with track(title) as progress:
        return generate_cached(
            unwrapped(model),
            checked.form.tokenizer,
            [row.prompt_ids for row in rows],
            key=key,
            max_new_tokens=checked.max_new_tokens,
            temperature=temperature,
            seed=seed,
            progress=progress,
        )


def case_of(row: Encoded, reply: str, split: str) -> Case:
    """Return what a judge is shown: the known bad reply on harmful splits, the right one where there is one."""
    example, known = row.example, row.example.reply.strip()
    if example.is_passage:
        reply = whole_words(reply, len(known))
    if split in HARM_SPLITS:
        return Case(example.prompt, reply, bad=known, good=example.good, concept=example.concept)
    return Case(example.prompt, reply, good=known, concept=example.concept)


def reply_trees(splits: Splits) -> list[Any]:
    """Return all rows of all splits as one-branch trees, keyed by their place: the rows a reference must know."""
    rows = [row for split in splits.values() for row in split]
    return one_branch([(row.prompt_ids, row.reply_ids) for row in rows], "normal")


def _other_log_probs(model: Any, rows: Sequence[Encoded], split: str, form: PromptFormat) -> list[list[float] | None]:
    """Score the other reply that a row has: the right one on harmful splits, a wrong one on normal splits."""
    others = [row.example.good if split in HARM_SPLITS else row.example.bad for row in rows]
    found = [number for number, other in enumerate(others) if other]
    pairs, room = [], context_length(model) or MOST_TOKENS
    for number in found:
        row = rows[number]
        ids = form.reply_ids(row.example.turns, others[number] or "")
        pairs.append((row.prompt_ids, tuple(ids[: max(1, room - len(row.prompt_ids))])))
    scored = teacher_forced_likelihood(model, pairs, form.ids.pad_id).log_probs
    table: list[list[float] | None] = [None] * len(rows)
    for number, log_probs in zip(found, scored, strict=True):
        table[number] = log_probs
    return table


@torch.no_grad()
def add_fluency(checked: Checked, original: Any) -> None:
    """Score every arm's own replies under the original model, in nats per token."""
    meter, tokens = Meter(), 0
    device = next(unwrapped(original).parameters()).device
    room = context_length(original) or MOST_TOKENS  # read again, a reply may have more tokens than it was written in
    for looks in checked.looks.values():
        for split, look in looks.items():
            rows = checked.splits[split]
            values: list[float | None] = [None] * len(rows)
            spoken = [n for n, case in enumerate(look.cases) if case.reply.strip()]
            pairs = [(rows[n].prompt_ids, tuple(look.reply_ids[n][: room - len(rows[n].prompt_ids)])) for n in spoken]
            trees = one_branch(pairs, "normal")
            lengths = [len(tree.prompt_ids) + len(tree.branches[0].reply_ids) for tree in trees]
            for places in batches_of(lengths, device):
                batch = lay_out([trees[place] for place in places], checked.form.ids.pad_id).to(device)
                log_probs = score(last_hidden_states(original, batch), batch.targets).log_probs
                for number, place in enumerate(places):
                    values[spoken[place]] = -float(log_probs[batch.branches == number].mean())
                tokens += batch.token_count
            look.reply_nll = values
    checked.cost.append(meter.cost(original, "original", "fluency", tokens))


def measure(checked: Checked) -> list[Measurement]:
    """Ask every probe about every arm on every split it is for; each metric with its difference to the original."""
    found: list[Measurement] = []
    for arm, looks in checked.looks.items():
        for split in looks:
            retrained = evidence(checked, "retrained", split) if "retrained" in checked.looks else None
            given = evidence(checked, arm, split, retrained)
            for probe in all_probes():
                if split in probe.splits:
                    found += probe(given)
    found += checked.ability.measurements if checked.ability else []
    originals = {(m.name, m.split): m for m in found if m.arm == "original"}
    return [m if m.arm == "original" else with_difference(m, originals.get((m.name, m.split))) for m in found]


def evidence(checked: Checked, arm: str, split: str, retrained: Evidence | None = None) -> Evidence:
    """Gather what the probes are shown of one arm on one split."""
    look, original = checked.looks[arm][split], checked.looks["original"][split]
    return Evidence(
        arm=arm,
        split=split,
        cases=look.cases,
        verdicts=look.verdicts,
        original_replies=[case.reply for case in original.cases],
        original_verdicts=original.verdicts,
        reply_tokens=[len(ids) for ids in look.reply_ids],
        log_probs=look.known.log_probs,
        kl=look.known.kl,
        argmax_hits=look.known.hits,
        other_log_probs=look.other_log_probs,
        reply_nll=look.reply_nll,
        sampled=look.sampled,
        non_members=look.non_members,
        retrained=retrained,
        scenario=checked.scenario,
        template=checked.template,
    )


def with_difference(measured: Measurement, original: Measurement | None) -> Measurement:
    """Add the paired difference to the original, over the cases that both have a metric for."""
    if original is None or len(original.values) != len(measured.values):
        return measured
    pairs = [
        (ours, theirs)
        for ours, theirs in zip(measured.values, original.values, strict=True)
        if ours is not None and theirs is not None
    ]
    value, low, high = paired_difference([ours for ours, _ in pairs], [theirs for _, theirs in pairs])
    return measured.model_copy(update={"difference": value, "difference_low": low, "difference_high": high})


def notes_of(checked: Checked) -> list[str]:
    """Say what a reader needs to know of how the metrics were taken."""
    notes = []
    if checked.samples:
        notes.append(
            f"any_bad_rate asks each harmful prompt {checked.samples + 1} times: the greedy reply and k = "
            f"{checked.samples} sampled at temperature 1; it grows with k"
        )
    if checked.non_members:
        notes.append(
            f"min_k and loss_mia compare the seen replies with {len(checked.non_members)} that no arm was trained on"
        )
    return notes


def samples(checked: Checked) -> list[Sample]:
    """Return every prompt with all arms' replies and verdicts."""
    return [
        Sample(
            split=split,
            prompt=row.example.prompt,
            replies={arm: looks[split].cases[n].reply for arm, looks in checked.looks.items()},
            verdicts={arm: looks[split].verdicts[n] for arm, looks in checked.looks.items()},
        )
        for split, rows in checked.splits.items()
        for n, row in enumerate(rows)
    ]
