"""Measure and report: the stages after training, which all routes share."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from unteach.disk.files import writing
from unteach.errors import ConfigError
from unteach.evaluation.agreement import judge_metrics
from unteach.evaluation.evaluation import Evaluation, evaluate_arm, measure, notes_of, samples, score_fluency
from unteach.models.fingerprint import same_fingerprint
from unteach.models.ranks import by_first_rank, started
from unteach.models.unwrap import is_sharded, unwrapped
from unteach.pipeline.config import RunConfig
from unteach.pipeline.original import LoadSettings, Original, load_weights
from unteach.progress import track
from unteach.report.card import FILE_NAME as CARD
from unteach.report.card import write_card
from unteach.report.page import FILE_NAME as PAGE
from unteach.report.page import write_page
from unteach.results.report import FILE_NAME as REPORT
from unteach.results.report import Cost, Report, Source, environment
from unteach.scoring.reference import CachedStates, cached_states, require_itself


def measure_original(evaluation: Evaluation, original: Original) -> CachedStates:
    """Evaluate the original before training changes it; returns its last hidden states, for the KL of other arms.

    Raises ModelError where these states are not its own.
    """
    with track("original on the evaluation rows") as progress:
        reference = cached_states(original.model, evaluation.trees(), original.key, progress)
    evaluate_arm(evaluation, "original", original.model, reference, original.key)
    for result in evaluation.results["original"].values():
        if result.kl:
            require_itself(fmean(result.kl), original.model, reference)
    return reference


def measure_retrained(evaluation: Evaluation, config: RunConfig, reference: CachedStates) -> None:
    """Evaluate the retrained model, where one is given."""
    if config.retrained:
        model = load_weights(config, config.retrained)
        evaluate_arm(evaluation, "retrained", model, reference, same_fingerprint(model))


def measure_fluency(evaluation: Evaluation, config: LoadSettings, trained: Any) -> None:
    """Score every arm's replies under the original: `trained` without its adapter, else loaded in its place."""
    model = unwrapped(trained)
    if hasattr(model, "peft_config"):
        with model.disable_adapter():
            score_fluency(evaluation, model)
        return
    if not is_sharded(model):
        model.to("cpu")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    score_fluency(evaluation, load_weights(config, config.model))


@by_first_rank
def make_report(
    evaluation: Evaluation | None,
    *,
    scenario: str,
    method: str,
    model: str,
    judges: Sequence[str],
    seed: int,
    sources: Sequence[Source],
    cost: Sequence[Cost] = (),
    notes: Sequence[str] = (),
) -> Report:
    """Make the report from measurements, samples, costs and notes.

    `judges` are named as in the settings. `cost` is that of all stages but the evaluation.
    """
    return Report(
        scenario=scenario,
        method=method,
        model=model,
        judge=", ".join(judges),
        measurements=measure(evaluation) if evaluation else [],
        judges=judge_metrics(evaluation) if evaluation else [],
        samples=samples(evaluation) if evaluation else [],
        cost=[*cost, *(evaluation.cost if evaluation else [])],
        data=list(sources),
        notes=[*notes, *(notes_of(evaluation) if evaluation else [])],
        environment=environment() | {"seed": seed} | started(),
    )


@by_first_rank
def write_report(report: Report, directory: Path) -> None:
    """Write report.json, report.html and, last, the model card: a directory that has all three is finished."""
    with writing(directory / CARD):
        (directory / CARD).unlink(missing_ok=True)
    report.write(directory)
    write_page(report, directory)
    write_card(report, directory)


@by_first_rank
def is_finished(directory: Path) -> bool:
    """Whether a run has written all of its report."""
    return all((directory / name).is_file() for name in (REPORT, PAGE, CARD))


@by_first_rank
def finish_report(directory: Path) -> Report | None:
    """Write what a run lacks that was cut off after report.json, and return its report; None where there is no report.

    Raises ConfigError for a run that lacks nothing.
    """
    if is_finished(directory):
        raise ConfigError(
            f"--resume: the run in {directory} is finished, see its report.html; for another, name another --output"
        )
    if not (directory / REPORT).is_file():
        return None
    report = Report.read(directory)
    write_report(report, directory)
    return report
