"""unteach evaluate: measure a model, alone or against another, without changing it."""

import tempfile
from contextlib import nullcontext
from pathlib import Path

from unteach.data.encoded import digest_of
from unteach.disk.cache import Cache
from unteach.errors import ConfigError
from unteach.evaluation.evaluation import evaluate_arm, score_fluency
from unteach.evaluation.general_ability import load_tasks
from unteach.models.directory import notes_on
from unteach.models.fingerprint import same_fingerprint
from unteach.models.ranks import held_by_first, require_same
from unteach.pipeline.as_trained import MEASURED, as_trained
from unteach.pipeline.config import RunConfig, with_defaults
from unteach.pipeline.directory import check_inputs, output_directory
from unteach.pipeline.judging import judges_of, trusted_judges, with_judges
from unteach.pipeline.measure import make_report, write_report
from unteach.pipeline.original import check_comparable, load_original, load_weights
from unteach.pipeline.prepare import new_evaluation
from unteach.pipeline.rows import encode_splits, longest_evaluated, read_evaluation_rows
from unteach.pipeline.settings import inputs_of, write_config
from unteach.pipeline.sharding import check_sharding
from unteach.results.report import Report
from unteach.scoring.reference import MOST_BYTES, CachedStates


def evaluate(config: RunConfig, *, original: str | None = None, overwrite: bool = False) -> Report:
    """Return the measurements of `config.model`, and of `original` and `config.retrained` beside it.

    `--forget` rows are the split `unseen`, and `--retain` rows the split `normal`. Where `original` is given, it is the
    arm "original" and the model is the arm "unlearned"; else the model is the arm "original". Writes a run directory
    only where `config.output` names one.
    """
    if not config.model or not (config.forget or config.retain):
        raise ConfigError(f"{'--forget or --retain' if config.model else '--model'} is missing; see --help")
    with output_directory(config.output, overwrite=overwrite) if config.output else nullcontext() as directory:
        return _evaluate(config, original, directory, overwrite)


def _evaluate(config: RunConfig, original: str | None, directory: Path | None, overwrite: bool) -> Report:
    config, told = as_trained(config, config.model, MEASURED)
    template, config = config.template, with_defaults(config)
    if directory:
        check_inputs(directory, [*inputs_of(config), original], overwrite=overwrite)
    check_sharding(config, training=False)
    judges = judges_of(config)
    ability = load_tasks(config.lm_eval, config.lm_eval_items)
    sets = read_evaluation_rows(config)
    sets.notes += told
    trusted = trusted_judges(judges, sets.evaluation["unseen"], sets.evaluation["normal"], sets.notes, judged=True)
    config = with_judges(config, judges, trusted)
    before = load_original(config, original)
    sets.notes += before.notes
    others = {"unlearned": config.model if original else None, "retrained": config.retrained}
    for other in filter(None, others.values()):
        check_comparable(config, other, before.tokenizer)
        sets.notes += notes_on(other)
    longest = longest_evaluated(config, before.model)
    rows = sets.evaluation | {"non_members": sets.non_members}
    splits = encode_splits(rows, before.form, config, longest, sets.notes)
    evaluation = new_evaluation(config, splits, before, trusted, ability)
    evaluation.template = template
    require_same({"tokenizer or chat template": digest_of(*splits.values())})
    with held_by_first(tempfile.TemporaryDirectory()) as scratch:
        reference = CachedStates.build(before.model, evaluation.trees(), Cache(Path(scratch), MOST_BYTES), "states")
        evaluate_arm(evaluation, "original", before.model, reference, before.key)
        for arm, name in others.items():
            if name:
                model = load_weights(config, name)
                evaluate_arm(evaluation, arm, model, reference, same_fingerprint(model))
                del model
        score_fluency(evaluation, before.model)
    report = make_report(
        evaluation,
        scenario=config.scenario,
        method="none",
        model=config.model,
        judges=config.judge,
        seed=config.seed,
        sources=sets.sources,
        notes=sets.notes,
    )
    report.weights = ""
    compared = f" --original {original}" if original else ""
    report.command = f"unteach evaluate --config run.yaml{compared} --output another-directory"
    if directory:
        write_config(
            config.model_copy(update={"template": template, "template_date": before.form.settings.date}),
            directory,
            report.command,
            overwrite=overwrite,
        )
        write_report(report, directory)
    return report
