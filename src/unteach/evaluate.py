"""Measure a model, alone or against another, without changing it."""

import tempfile
from pathlib import Path

from unteach import check
from unteach.config import RunConfig, write_config
from unteach.directory import check_output, prepare
from unteach.errors import ConfigError
from unteach.judges import load_judge
from unteach.models import context_length
from unteach.reference import CachedStates
from unteach.report.schema import Report
from unteach.run import (
    Sets,
    encode_splits,
    load,
    make_report,
    model_format,
    read_rows_for_check,
    write_report,
)


def evaluate(config: RunConfig, *, original: str | None = None, overwrite: bool = False) -> Report:
    """Return the measurements of `config.model`, and of `original` and `config.never_taught` beside it.

    `--forget` rows are the split `unseen`, `--retain` rows the split `normal`. With `original`, it is the arm
    "original" and the model the arm "unlearned"; without, the model is the arm "original". Writes a run directory
    only where `config.output` names one.
    """
    if not config.model or not (config.forget or config.retain):
        raise ConfigError(f"{'--forget or --retain' if config.model else '--model'} is missing; see --help")
    directory = check_output(config.output, overwrite=overwrite, resume=False) if config.output else None
    judge = load_judge(config.judge)
    sets: Sets = read_rows_for_check(config)
    tokenizer, model = load(config, original or config.model)
    form = model_format(config, tokenizer, model)
    limit = config.max_length or context_length(model) or 1024
    checked = check.Checked(encode_splits(sets.evaluation, form, config, limit))
    with tempfile.TemporaryDirectory() as scratch:
        reference = CachedStates.build(model, check.known_trees(checked.splits), Path(scratch), "states")
        check.look_at(checked, "original", model, form, judge, config.max_new_tokens, reference)
        others = {"unlearned": config.model if original else None, "never_taught": config.never_taught}
        for arm, name in others.items():
            if name:
                other_tokenizer, other = load(config, name)
                same = other_tokenizer.get_vocab() == tokenizer.get_vocab()
                other_form = model_format(config, other_tokenizer, other)
                states = reference if same else None
                check.look_at(checked, arm, other, other_form, judge, config.max_new_tokens, states)
        check.add_fluency(checked, model, form)
    report = make_report(config, checked, sets, [])
    report.method = "none"
    if directory:
        prepare(directory, overwrite=overwrite)
        write_config(config, directory)
        write_report(report, directory)
    return report
