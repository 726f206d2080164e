"""The prompts that the artefacts of a run are compared on: those of its evaluation."""

from collections.abc import Sequence
from typing import Any

from unteach.data.encoded import Encoded
from unteach.data.example import Example
from unteach.data.overlap import once
from unteach.data.prompt_format import PromptFormat
from unteach.errors import DataError, UnteachError
from unteach.evaluation.same_model import Texts
from unteach.judges.base import Judge, LearningJudge
from unteach.pipeline.config import RunConfig
from unteach.pipeline.finished import FinishedRun
from unteach.pipeline.judging import judges_of, trusted_judges
from unteach.pipeline.rows import Sets, encode_splits, longest_evaluated, read_sets
from unteach.results.arms import ORIGINAL
from unteach.results.measurement import HARM_SPLITS
from unteach.results.report import Sample

SPLITS = ("unseen", "seen", "normal", "lookalike")


def texts_of(
    run: FinishedRun, config: RunConfig, form: PromptFormat, model: Any, prompts: int, notes: list[str]
) -> Texts:
    """Return at most `prompts` rows of each split, encoded, with the judge of the run where it can be applied.

    The rows are read again where the run names them (`unteach run`); splits that are not there come from the prompts
    and replies in report.json. Raises DataError where neither gives any row.
    """
    sets = _sets_of(run, config, notes)
    rows = _from_sets(sets) if sets else {}
    samples = run.report.samples if run.report else []
    rows |= {split: found for split in SPLITS if not rows.get(split) and (found := _from_samples(samples, split))}
    if "unseen" in rows:
        rows.pop("seen", None)
    if not any(rows.values()):
        raise DataError(
            f"{run.directory}: its rows cannot be read and its report holds no prompts, so there is nothing to compare "
            "the export on; put the rows back where run.yaml names them"
        )
    few = config.model_copy(update={"evaluation_prompts": prompts})
    ordered = {split: once(rows[split]) for split in SPLITS if rows.get(split)}
    splits: dict[str, list[Encoded]] = encode_splits(ordered, form, few, longest_evaluated(config, model), notes)
    return Texts(splits, config.max_new_tokens, _judge_of(config, sets, notes))


def _sets_of(run: FinishedRun, config: RunConfig, notes: list[str]) -> Sets | None:
    """Read the rows of a run again; None with a note where that cannot be."""
    if run.kind != "run":
        notes.append("compared on the prompts of report.json, whose known replies are the original's")
        return None
    try:
        return read_sets(config)
    except UnteachError as error:
        notes.append(f"compared on the prompts of report.json, since the run's rows cannot be read: {error}")
        return None


def _from_sets(sets: Sets) -> dict[str, list[Example]]:
    rows = {split: sets.evaluation.get(split, []) for split in SPLITS}
    rows["seen"] = rows["seen"] or sets.negatives["train"]
    rows["normal"] = rows["normal"] or sets.normals.get("train", [])
    return rows


def _from_samples(samples: Sequence[Sample], split: str) -> list[Example]:
    """Return the prompts of a split with the original's replies; on harmful splits those that were bad, if any were."""
    there = [sample for sample in samples if sample.split == split and sample.replies.get(ORIGINAL, "").strip()]
    bad = [sample for sample in there if sample.verdicts.get(ORIGINAL) == "bad"]
    kept = bad if bad and split in HARM_SPLITS else there
    return [Example.of(sample.prompt, sample.replies[ORIGINAL], where="report.json") for sample in kept]


def _judge_of(config: RunConfig, sets: Sets | None, notes: list[str]) -> Judge | None:
    """Return the judge that decides; None with a note where it cannot be applied here."""
    try:
        judge = judges_of(config.model_copy(update={"judge": config.judge[:1]}))[0]
        if isinstance(judge, LearningJudge):
            if sets is None:
                raise DataError(f"--judge {judge.name}: it learns from the run's rows, which are not here")
            return trusted_judges([judge], sets.uncut["negatives"], sets.uncut.get("normals", []), notes)[0]
        return judge
    except UnteachError as error:
        notes.append(f"bad rates are not compared: {error}")
        return None
