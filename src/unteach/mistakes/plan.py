"""Say what a run or a study would do, without loading a model or using the network."""

from pathlib import Path

from unteach.data.example import Polarity
from unteach.data.reading import HowToRead
from unteach.data.sources import named_set
from unteach.errors import ConfigError, nearest
from unteach.judges import judge_names
from unteach.mistakes.arms import ARMS
from unteach.mistakes.config import MistakesConfig
from unteach.mistakes.prepare import check_complete
from unteach.mistakes.records import read_mistakes, read_prompts
from unteach.models.context import context_length
from unteach.models.loading import check_loadable
from unteach.pipeline.settings import flag, settings_naming
from unteach.prompts.mistakes import load_wording


def plan(config: MistakesConfig, study: bool = False) -> str:
    """Check the settings and the files on this disk, and return what would be done, step by step.

    Hub ids and public sets are named, not fetched. Raises UnteachError for whatever can be seen to be wrong.
    """
    check_complete(config)
    for judge in config.judge:
        name = judge.split(":")[0].split("?")[0]
        if name not in judge_names():
            raise ConfigError(f"--judge {judge}: no such judge{nearest(name, judge_names())}")
    wording = load_wording(config.wording)
    lines = [f"model: {_model(config)}"]
    for name in settings_naming(MistakesConfig, "rows"):
        lines += [f"{flag(name)} {source}: {_rows(config, name, source)}" for source in getattr(config, name)]
    if config.prompts:
        most = f", {config.most_rows} of the prompts at most" if config.most_rows else ""
        lines.append(f"1. induce: {len(wording.inducements)} inducements, judged by {', '.join(config.judge)}{most}")
    if not config.analyses:
        lines.append(f"2. analyse, guided: by {config.analyst or 'the model itself'}")
    per = f"{config.normals_per_analysis:g} normal, {config.harmless_per_analysis:g} harmless rows"
    how = f"LoRA of rank {config.lora_rank}" if config.lora else "all weights"
    rate = f"{config.learning_rate:g}" if config.learning_rate else "chosen from the model's width"
    lines.append(
        f"3. tune, unguided: {how}, {config.epochs:g} passes, per analysis {per}, learning rate {rate}, "
        f"{config.batch_size * config.gradient_accumulation_steps} rows a step"
    )
    if study:
        arms = config.arms or list(ARMS)
        lines.append(f"arms, each {config.seeds} times at an equal number of tokens: {', '.join(arms)}")
    lines.append(f'4. guide: "{wording.reminder}"; measured without and with it')
    return "\n".join(lines)


def _model(config: MistakesConfig) -> str:
    if not Path(config.model).expanduser().exists():
        return f"{config.model}, a hub id that was not looked up"
    found = check_loadable(config.model, trust_remote_code=config.trust_remote_code)
    return f"{config.model}, {found.model_type}, context {context_length(found) or 'unlimited'}"


def _rows(config: MistakesConfig, name: str, source: str) -> str:
    if Path(source).expanduser().exists():
        how = HowToRead(config.column, config.bad_label)
        if name == "prompts":
            return f"{len(read_prompts(source, how))} prompts"
        if name in ("mistakes", "reports"):
            return f"{len(read_mistakes(source, how=how))} mistakes"
        return "a local file"
    polarity: Polarity = "normal" if name in ("retain", "harmless", "lookalike", "normal") else "negative"
    if (chosen := named_set(source, polarity)) is not None:
        return f"public set {chosen.name} ({chosen.set.licence}), not fetched"
    return "a hub id that was not looked up"
