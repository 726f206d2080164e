"""unteach stress: attack the finished model of a run directory, and write what came back into its stress card."""

import random
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from unteach import signals
from unteach.data.encoded import Encoded
from unteach.data.overlap import fingerprint, once
from unteach.disk.lock import only_writer
from unteach.errors import ConfigError, DataError, Interrupted, nearest
from unteach.evaluation.attacks import load_attacks
from unteach.evaluation.attacks.base import PLANS, Attack, AttackRows, Plan, Target
from unteach.evaluation.stress import add_to_card, settle, unfinished
from unteach.judges.base import Judge
from unteach.models.fingerprint import same_fingerprint
from unteach.models.ranks import by_first_rank, held_by_first, on_first_rank, started
from unteach.pipeline.config import RunConfig
from unteach.pipeline.finished import finished_run
from unteach.pipeline.judging import judges_of, trusted_judges
from unteach.pipeline.original import Original, check_comparable, load_original, load_weights
from unteach.pipeline.own_rows import add_lookalikes, add_own_answers
from unteach.pipeline.rows import Sets, encode_splits, longest_evaluated, read_sets
from unteach.progress import track
from unteach.report.card import write_card
from unteach.report.page import write_page
from unteach.results.cost import Meter
from unteach.results.report import FILE_NAME as REPORT
from unteach.results.report import Report, environment
from unteach.results.stress import StressCard

FEWEST = 2
"""Negatives that a card needs: one to attack and one to hold back."""


@dataclass(frozen=True)
class _Prepared:
    """What all arms share: settings, the form of prompts, the judge, and the rows."""

    config: RunConfig
    form: Any
    judge: Judge
    rows: AttackRows
    plan: Plan
    split: Literal["seen", "unseen"]


def stress(
    run: str | Path,
    *,
    preset: str = "quick",
    only: Sequence[str] = (),
    again: bool = False,
    device: str | None = None,
) -> StressCard:
    """Attack the model of a run directory, its original and its retrained model; return the card, also in stress.json.

    What a card of the same models, rows and settings holds already is not measured again, unless `again`. `only` names
    the attacks to make. The page and the model card of the run are written anew. Raises UnteachError; `Interrupted`
    after Ctrl-C, with all finished attacks in stress.json.
    """
    directory = Path(run)
    config = _config_of(directory, device)
    if preset not in PLANS:
        raise ConfigError(f"--preset {preset}: unknown{nearest(preset, PLANS)} (known: {', '.join(PLANS)})")
    attacks = load_attacks(only)
    with ExitStack() as held:
        held.enter_context(signals.handled())
        held.enter_context(held_by_first(only_writer(directory, "unteach stress")))
        try:
            return _stress(directory, config, preset, attacks, again)
        except KeyboardInterrupt:
            raise Interrupted(
                f"stopped; finished attacks are in {directory / 'stress.json'}; go on with: unteach stress {directory}"
            ) from None


@by_first_rank
def _config_of(directory: Path, device: str | None) -> RunConfig:
    """Return the settings of the run, for whole weights in full precision."""
    told: dict[str, Any] = {"load_in_4bit": False, "lora": False} | ({"device": device} if device else {})
    return finished_run(directory, "stressed", reported=False).config(**told)


def _stress(directory: Path, config: RunConfig, preset: str, attacks: Sequence[Attack], again: bool) -> StressCard:
    names = {"unlearned": str(directory / "model"), "original": config.model, "retrained": config.retrained}
    notes: list[str] = []
    original = load_original(config, trained=True)
    for name in filter(None, (names["unlearned"], names["retrained"])):
        check_comparable(config, name, original.tokenizer)
    prepared = _prepare(config, original, PLANS[preset], notes)
    card = _begin(directory, prepared, preset, notes)
    if again:
        card.attacks = [found for found in card.attacks if found.name not in {attack.name for attack in attacks}]
    for arm in ("unlearned", "original", "retrained"):
        if names[arm]:
            _stress_arm(card, arm, str(names[arm]), attacks, prepared, original, directory)
    settle(card)
    write_stress(card, directory)
    return card


def _prepare(config: RunConfig, original: Original, plan: Plan, notes: list[str]) -> _Prepared:
    """Read the rows of the run again, and part the unseen negatives into those attacked and those held back."""
    sets = read_sets(config)
    if not sets.normals:
        add_own_answers(sets, original, config)
    if config.scenario == "harm" and not sets.evaluation["lookalike"]:
        add_lookalikes(sets, original, config)
    judges = judges_of(config.model_copy(update={"judge": config.judge[:1]}))
    judge = trusted_judges(judges, sets.uncut["negatives"], sets.uncut.get("normals", []), notes)[0]
    splits = _encoded(config, original, sets, notes)
    split: Literal["seen", "unseen"] = "unseen" if len(splits.get("unseen", [])) >= FEWEST else "seen"
    negatives = splits.get(split, [])
    if split == "seen":
        notes.append("the run has no unseen negatives, so the prompts are such as it was trained on; see --unseen")
    if len(negatives) < FEWEST:
        raise DataError(
            f"--forget: {len(negatives)} negatives, and a card needs {FEWEST}: one to ask and one for the attacker; "
            "run again with more rows"
        )
    mixed = random.Random(f"stress:{config.seed}").sample(negatives, len(negatives))
    back = min(plan.held_back, max(1, len(mixed) // 3))
    rows = AttackRows(
        mixed[back:][: plan.prompts],
        mixed[:back],
        splits.get("normal", []),
        splits.get("lookalike", [])[: plan.prompts],
    )
    return _Prepared(config, original.form, judge, rows, plan, split)


def _encoded(config: RunConfig, original: Original, sets: Sets, notes: list[str]) -> dict[str, list[Encoded]]:
    """Encode the splits that a card reads, each prompt once."""
    longest = longest_evaluated(config, original.model)
    wanted = {name: once(sets.evaluation[name]) for name in ("unseen", "normal", "lookalike")}
    wanted["normal"] = wanted["normal"] or once(sets.normals.get("train", []))
    wanted["seen"] = once(sets.evaluation.get("seen") or sets.negatives["train"])
    every = config.model_copy(update={"evaluation_prompts": max(1, *map(len, wanted.values()))})
    return encode_splits(wanted, original.form, every, longest, notes)


@by_first_rank
def _begin(directory: Path, prepared: _Prepared, preset: str, notes: list[str]) -> StressCard:
    """Return the card that lies in the run directory where it is about the same, else an empty one."""
    config, rows = prepared.config, prepared.rows
    told = [preset, config.judge[0], str(config.max_new_tokens), str(config.seed), prepared.form.name]
    made_of = {"settings": " ".join(told)}
    for name in ("attacked", "held_back", "normal", "lookalike"):
        made_of[name] = fingerprint([row.example for row in getattr(rows, name)])
    fresh = StressCard(
        preset=preset,
        scenario=config.scenario,
        judge=config.judge[0],
        seed=config.seed,
        split=prepared.split,
        prompts=len(rows.attacked),
        command=f"unteach stress . --preset {preset}",
        made_of=made_of,
        notes=notes,
        environment={**environment(), **started()},
    )
    kept = StressCard.read(directory)
    same = kept is not None and all(kept.made_of.get(name) == value for name, value in made_of.items())
    return kept if kept is not None and same else fresh


def _stress_arm(
    card: StressCard,
    arm: str,
    name: str,
    attacks: Sequence[Attack],
    prepared: _Prepared,
    original: Original,
    directory: Path,
) -> None:
    """Make every attack on one arm that the card lacks, and write the card after each."""
    model = original.model if arm == "original" else load_weights(prepared.config, name, trained=True)
    key = original.key if arm == "original" else same_fingerprint(model)
    if card.made_of.setdefault(f"model {arm}", key) != key:
        _forget(card, arm)
        card.made_of[f"model {arm}"] = key
    weights = dict(original.model.named_parameters()) if arm == "unlearned" else None
    target = Target(
        arm,
        model,
        key,
        prepared.form,
        prepared.judge,
        prepared.rows,
        prepared.plan,
        prepared.config.max_new_tokens,
        prepared.config.seed,
        weights,
    )
    for attack in unfinished(card, attacks, arm):
        with track(f"stress, {arm}: {attack.title}") as progress:
            add_to_card(card, attack, replace(target, progress=progress, meter=Meter()))
        settle(card)
        on_first_rank(card.write, directory)


def _forget(card: StressCard, arm: str) -> None:
    """Remove an arm from the card: its model is another one now."""
    for attack in card.attacks:
        for row in attack.rows:
            row.rates.pop(arm, None)
        attack.cost = [cost for cost in attack.cost if cost.arm != arm]
        attack.left_out.pop(arm, None)


@by_first_rank
def write_stress(card: StressCard, directory: Path) -> None:
    """Write the card, and the page and the model card of the run anew, where it has a report."""
    card.write(directory)
    if (directory / REPORT).is_file():
        report = Report.read(directory)
        write_page(report, directory)
        write_card(report, directory)
