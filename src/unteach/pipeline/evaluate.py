"""Measure a model, alone or against another, without changing it."""

import tempfile
from pathlib import Path

from unteach.errors import ConfigError
from unteach.evaluation import evaluation as check
from unteach.evaluation.general_ability import load_tasks
from unteach.models.fingerprint import model_fingerprint
from unteach.models.loading import load_configured
from unteach.pipeline.config import RunConfig, with_defaults
from unteach.pipeline.directory import check_inputs, check_output, prepare
from unteach.pipeline.preflight import check_comparable, check_length
from unteach.pipeline.rows import Sets, encode_non_members, encode_splits, longest_row, read_evaluation_rows
from unteach.pipeline.run import judges_of, make_report, model_format, new_check, taught, write_report
from unteach.pipeline.settings import inputs_of, write_config
from unteach.results.report import Report
from unteach.scoring.reference import CachedStates


def evaluate(config: RunConfig, *, original: str | None = None, overwrite: bool = False) -> Report:
    """Return the measurements of `config.model`, and of `original` and `config.retrained` beside it.

    `--forget` rows are the split `unseen`, `--retain` rows the split `normal`. With `original`, it is the arm
    "original" and the model the arm "unlearned"; without, the model is the arm "original". Writes a run directory
    only where `config.output` names one.
    """
    if not config.model or not (config.forget or config.retain):
        raise ConfigError(f"{'--forget or --retain' if config.model else '--model'} is missing; see --help")
    template, config = config.template, with_defaults(config)
    directory = check_output(config.output, overwrite=overwrite, resume=False) if config.output else None
    if directory:
        check_inputs(directory, [*inputs_of(config), original], overwrite=overwrite)
    judges = judges_of(config)
    ability = load_tasks(config.lm_eval, config.lm_eval_items)
    sets: Sets = read_evaluation_rows(config)
    judges = taught(judges, sets.evaluation["unseen"], sets.evaluation["normal"], sets.notes, judged=True)
    tokenizer, model = load_configured(config, original or config.model)
    others = {"unlearned": config.model if original else None, "retrained": config.retrained}
    for other in filter(None, others.values()):
        check_comparable(config, other, tokenizer)
    check_length(config, model)
    form = model_format(config, tokenizer, model)
    limit = longest_row(config, model)
    splits = encode_splits(sets.evaluation, form, config, limit, sets.notes)
    checked = new_check(config, splits, form, judges, ability)
    checked.template = template
    checked.non_members = encode_non_members(sets.non_members, form, config, limit, sets.notes)
    with tempfile.TemporaryDirectory() as scratch:
        reference = CachedStates.build(model, check.reply_trees(checked.splits), Path(scratch), "states")
        check.look_at(checked, "original", model, reference, model_fingerprint(model))
        for arm, name in others.items():
            if name:
                other = load_configured(config, name)[1]
                check.look_at(checked, arm, other, reference, model_fingerprint(other))
                del other
        check.add_fluency(checked, model)
    report = make_report(config, checked, sets, [])
    report.method, report.weights = "none", ""
    compared = f" --original {original}" if original else ""
    report.command = f"unteach evaluate --config run.yaml{compared} --output another-directory"
    if directory:
        prepare(directory, overwrite=overwrite)
        given = config.model_copy(update={"template": template})
        write_config(given, directory, report.command)
        write_report(report, directory)
    return report
