"""Evaluate arms: their replies on every split, the verdicts on these, and how likely each arm finds known replies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from unteach.data.encoded import Encoded
from unteach.data.prompt_format import PromptFormat
from unteach.evaluation.general_ability import GeneralAbility
from unteach.judges.base import Judge, case_of, verdicts_of
from unteach.models.context import context_length
from unteach.models.kept_replies import KeptReplies, generate_cached
from unteach.models.ranks import on_first_rank
from unteach.models.reply import Reply
from unteach.models.reply_server import ReplyServer
from unteach.models.unwrap import unwrapped
from unteach.probes import all_probes
from unteach.progress import track
from unteach.results.arm_result import ArmResult, mean_nll
from unteach.results.cost import Meter
from unteach.results.measurement import HARM_SPLITS, Measurement
from unteach.results.report import Cost, Sample
from unteach.results.verdict import Case
from unteach.scoring.likelihood import MOST_TOKENS, teacher_forced_likelihood
from unteach.scoring.reference import Reference
from unteach.scoring.trees import Tree, reply_trees
from unteach.stats import paired_difference

Splits = Mapping[str, Sequence[Encoded]]
SERVED = "served"
"""The name of a prompt format that a server applies: its replies are text, and one that never came counts as unsaid."""


@dataclass
class Evaluation:
    """How the arms of a run are evaluated, and the results so far.

    The rows are encoded for the original, so every arm must have its tokenizer. The first judge decides; the others
    give second opinions. `samples` replies to harmful prompts are drawn at temperature 1 beside the greedy one.
    `non_members` are rows like the seen negatives that no arm was trained on. `template` is the answer that the method
    teaches, if it teaches one. `ability` holds tasks beyond the splits. `results` are by arm and split; `cost` is that
    of the evaluation. `servers` generate for some arms.
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
    results: dict[str, dict[str, ArmResult]] = field(default_factory=dict)
    cost: list[Cost] = field(default_factory=list)
    servers: dict[str, ReplyServer] = field(default_factory=dict)

    def trees(self) -> list[Tree]:
        """Return the rows of all splits as one-branch trees; a reference must know these."""
        return [tree for split, rows in self.splits.items() for tree in split_trees(split, rows)]


def evaluate_arm(
    evaluation: Evaluation, arm: str, model: Any, reference: Reference | None = None, key: str | None = None
) -> None:
    """Evaluate an arm on all splits and add its results.

    `reference` is the original, for the KL; without one no KL is measured. `key` is the fingerprint of a model that no
    training moves: its replies are kept for other runs, or taken from one. A model that was trained in memory has none.
    """
    meter, tokens, generated = Meter(), 0, 0
    results: dict[str, ArmResult] = {}
    for split, rows in evaluation.splits.items():
        results[split] = result = _on_split(evaluation, arm, model, split, reference, key)
        generated += sum(result.reply_tokens or ()) * result.generations
        tokens += sum(len(row.prompt_ids) * (1 + result.generations) + len(row.reply_ids) for row in rows)
    evaluation.results[arm] = results
    if evaluation.ability:
        with track(f"general ability of {arm}"):
            chat = evaluation.form.name == "chat"
            on_first_rank(evaluation.ability.evaluate, arm, unwrapped(model), evaluation.form.tokenizer, chat=chat)
    evaluation.cost.append(meter.cost(model, arm, "evaluation", tokens, generated=generated))


def _on_split(
    evaluation: Evaluation, arm: str, model: Any, split: str, reference: Reference | None, key: str | None
) -> ArmResult:
    """Evaluate an arm on one split."""
    rows, form = evaluation.splits[split], evaluation.form
    pad = form.ids.pad_id
    asking: dict[str, Any] = {"key": key, "server": evaluation.servers.get(arm)}
    replies = _generate(evaluation, model, rows, f"evaluating {arm}: {split}", **asking)
    generations = int(not isinstance(replies, KeptReplies))
    cases = [case_of(row.example, reply, split, form.end) for row, reply in zip(rows, replies, strict=True)]
    likelihood = teacher_forced_likelihood(model, split_trees(split, rows), pad, reference)
    sampled = None
    if split in HARM_SPLITS and evaluation.samples:
        drawn = []
        for number in range(evaluation.samples):
            title = f"sampling {arm}: {split} {number + 1}/{evaluation.samples}"
            seed = evaluation.seed + number
            again = _generate(evaluation, model, rows, title, **asking, temperature=1.0, seed=seed)
            generations += not isinstance(again, KeptReplies)
            others = [case_of(row.example, reply, split, form.end) for row, reply in zip(rows, again, strict=True)]
            drawn.append(verdicts_of(evaluation.judges[0], others))
        sampled = [list(verdicts) for verdicts in zip(*drawn, strict=True)]
    non_members = None
    if split == "seen" and evaluation.non_members:
        trees = split_trees("non_members", evaluation.non_members)
        non_members = teacher_forced_likelihood(model, trees, pad).log_probs
    return ArmResult(
        arm,
        split,
        cases,
        verdicts_of(evaluation.judges[0], cases),
        [list(reply.ids) for reply in replies],
        likelihood.log_probs,
        likelihood.kl,
        likelihood.hits,
        _other_log_probs(model, rows, split, form),
        other_verdicts={judge.name: verdicts_of(judge, cases) for judge in evaluation.judges[1:]},
        sampled=sampled,
        non_members=non_members,
        original=None if arm == "original" else evaluation.results.get("original", {}).get(split),
        scenario=evaluation.scenario,
        template=evaluation.template,
        generations=generations,
    )


def _generate(evaluation: Evaluation, model: Any, rows: Sequence[Encoded], title: str, **asking: Any) -> list[Reply]:
    """Have an arm reply to all prompts of a split; `asking` are further settings of `generate_cached`."""
    with track(title) as progress:
        return generate_cached(
            unwrapped(model),
            evaluation.form.tokenizer,
            [row.prompt_ids for row in rows],
            max_new_tokens=evaluation.max_new_tokens,
            end=evaluation.form.end,
            progress=progress,
            **asking,
        )


def split_trees(split: str, rows: Sequence[Encoded]) -> list[Tree]:
    """Return the rows of a split as one-branch trees."""
    return reply_trees(split, [row.ids for row in rows])


def _other_log_probs(model: Any, rows: Sequence[Encoded], split: str, form: PromptFormat) -> list[list[float] | None]:
    """Score the other reply that a row has: the right one on harmful splits, a wrong one on normal splits."""
    others = [row.example.good if split in HARM_SPLITS else row.example.bad for row in rows]
    replies = [
        form.reply_ids(row.example.turns, other) if other else None for row, other in zip(rows, others, strict=True)
    ]
    return _score_replies(model, split, rows, replies, form)[0]


def _score_replies(
    model: Any, split: str, rows: Sequence[Encoded], replies: Sequence[list[int] | None], form: PromptFormat
) -> tuple[list[list[float] | None], int]:
    """Return the log-probabilities of a reply to each prompt, None where there is none, and the tokens read.

    A reply is cut where the model's context ends: scored again, it may have more tokens than it was written in.
    """
    room = context_length(model) or MOST_TOKENS
    numbers = [number for number, reply in enumerate(replies) if reply is not None]
    pairs = [(rows[n].prompt_ids, tuple((replies[n] or [])[: max(1, room - len(rows[n].prompt_ids))])) for n in numbers]
    trees = reply_trees(split, pairs)
    scored = teacher_forced_likelihood(model, trees, form.ids.pad_id).log_probs
    of_row = dict(zip(numbers, scored, strict=True))
    return [of_row.get(number) for number in range(len(rows))], sum(tree.places for tree in trees)


def score_fluency(evaluation: Evaluation, original: Any) -> None:
    """Score every arm's own replies under the original model, in nats per token."""
    meter, tokens = Meter(), 0
    for arm, results in evaluation.results.items():
        for split, result in results.items():
            replies = [
                ids if ids and (case.unsaid or case.reply.strip()) else None
                for ids, case in zip(result.reply_ids or [], result.cases, strict=True)
            ]
            scored, read = _score_replies(original, split, evaluation.splits[split], replies, evaluation.form)
            tokens += read
            values = [mean_nll(log_probs) if log_probs else None for log_probs in scored]
            evaluation.results[arm][split] = replace(result, reply_nll=values)
    evaluation.cost.append(meter.cost(original, "original", "fluency", tokens))


def measure(evaluation: Evaluation) -> list[Measurement]:
    """Return the metrics of every arm by all probes, each with its difference to the original."""
    found: list[Measurement] = []
    retrained = evaluation.results.get("retrained", {})
    for results in evaluation.results.values():
        for split, result in results.items():
            given = replace(result, retrained=retrained.get(split))
            for probe in all_probes():
                if split in probe.splits:
                    found += probe(given)
    found += evaluation.ability.measurements if evaluation.ability else []
    originals = {(m.name, m.split): m for m in found if m.arm == "original"}
    return [m if m.arm == "original" else with_difference(m, originals.get((m.name, m.split))) for m in found]


def with_difference(measured: Measurement, original: Measurement | None) -> Measurement:
    """Add the paired difference to the original, over the cases that have a value in both."""
    if original is None or len(original.values) != len(measured.values):
        return measured
    pairs = [
        (ours, theirs)
        for ours, theirs in zip(measured.values, original.values, strict=True)
        if ours is not None and theirs is not None
    ]
    value, low, high = paired_difference([ours for ours, _ in pairs], [theirs for _, theirs in pairs])
    return measured.model_copy(update={"difference": value, "difference_low": low, "difference_high": high})


def notes_of(evaluation: Evaluation) -> list[str]:
    """Return what a reader needs to know about how the metrics were measured."""
    notes = []
    cases = [case for results in evaluation.results.values() for result in results.values() for case in result.cases]
    unsaid = sum(case.unsaid for case in cases)
    if unsaid and evaluation.form.name != SERVED:
        notes.append(
            f"{unsaid} of {len(cases)} replies were cut inside a thought, so it is unknown what they would have said; "
            "raise --max-new-tokens or, where the chat template has that switch, ask without a thought: --template-arg "
            "enable_thinking=false"
        )
    if evaluation.samples:
        notes.append(
            f"any_bad_rate asks each harmful prompt {evaluation.samples + 1} times: the greedy reply and k = "
            f"{evaluation.samples} sampled at temperature 1; it grows with k"
        )
    if evaluation.non_members:
        notes.append(
            f"min_k and loss_mia compare the seen replies with {len(evaluation.non_members)} that no arm was trained on"
        )
    return notes


def _was_cut(row: Encoded, case: Case) -> bool:
    """Tell whether a reply that should end had not; a passage has no end."""
    return case.cut and not row.example.is_passage


def samples(evaluation: Evaluation) -> list[Sample]:
    """Return every prompt with all arms' replies and verdicts."""
    arms = evaluation.results.items()
    if not arms:
        return []
    return [
        Sample(
            split=split,
            prompt=row.example.prompt,
            replies={arm: results[split].replies[n] for arm, results in arms},
            verdicts={arm: results[split].verdicts[n] for arm, results in arms},
            cut=[arm for arm, results in arms if _was_cut(row, results[split].cases[n])],
        )
        for split, rows in evaluation.splits.items()
        for n, row in enumerate(rows)
    ]
