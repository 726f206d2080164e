"""unteach run: prepare, train, measure, report."""

import time
from collections.abc import Callable
from functools import partial

from unteach.errors import Interrupted
from unteach.evaluation.evaluation import evaluate_arm
from unteach.pipeline.as_trained import as_trained, method_note
from unteach.pipeline.budget import planned, with_taken
from unteach.pipeline.config import RunConfig, with_defaults
from unteach.pipeline.directory import check_inputs, output_directory
from unteach.pipeline.generate_with import adapter_served
from unteach.pipeline.measure import (
    finish_report,
    make_report,
    measure_fluency,
    measure_original,
    measure_retrained,
    write_report,
)
from unteach.pipeline.prepare import Prepared, check_given, prepare
from unteach.pipeline.settings import inputs_of, resumed, write_config
from unteach.pipeline.train import Trained, make_trainer, train
from unteach.results.report import Report
from unteach.training.interrupt import StopOnInterrupt


def run(config: RunConfig, *, resume: bool = False, overwrite: bool = False) -> Report:
    """Unlearn, evaluate and report; returns the report, which is also in the output directory.

    Settings, data and model are checked before anything is written, and no other command can write to the directory
    meanwhile. With `resume`, a run that was killed goes on; one that only lacks a page or the card gets it. Raises
    UnteachError; `Interrupted` after Ctrl-C, with a checkpoint to go on from.
    """
    began = time.monotonic()
    with output_directory(config.output, overwrite=overwrite, resume=resume) as directory:
        asked, told = (resumed(config, directory), []) if resume else as_trained(config, config.model)
        config = with_defaults(asked)
        if resume and (report := finish_report(directory)):
            return report
        check_given(config)
        check_inputs(directory, inputs_of(config), overwrite=overwrite)
        prepared = prepare(planned(config, asked), directory)
        trainer = make_trainer(prepared)
        write_config(prepared.config, directory, overwrite=overwrite)
        report = train_and_measure(prepared, partial(train, trainer, prepared, directory, resume=resume))
        report.notes = [*told, *method_note(config, asked), *report.notes]
        report = with_taken(report, prepared.config.plan, None if resume else time.monotonic() - began)
        write_report(report, directory)
    return report


def train_and_measure(prepared: Prepared, train: Callable[[StopOnInterrupt], Trained]) -> Report:
    """Evaluate the original, train, and evaluate the result. Raises Interrupted after Ctrl-C."""
    config, evaluation = prepared.config, prepared.evaluation
    with StopOnInterrupt() as interruption:
        try:
            reference = measure_original(evaluation, prepared.original) if evaluation.splits else None
            trained, told = train(interruption), list[str]()
            if reference:
                with adapter_served(evaluation, prepared.original, config, trained.model) as told:
                    evaluate_arm(evaluation, "unlearned", trained.model, reference)
                measure_retrained(evaluation, config, reference)
                measure_fluency(evaluation, config, trained.model)
        except KeyboardInterrupt:
            raise Interrupted("stopped; go on with --resume") from None
    report = make_report(
        evaluation,
        scenario=config.scenario,
        method=config.method,
        model=config.model,
        judges=config.judge,
        seed=config.seed,
        sources=prepared.sources,
        cost=trained.cost,
        notes=[*prepared.notes, *trained.notes, *told],
    )
    report.curve, report.stop, report.strength = list(trained.curve), trained.stop, trained.strength
    return report
