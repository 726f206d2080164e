"""The verbs of `unteach baseline`: other ways to change a model's behaviour, to compare with."""

from typing import Any

from unteach.baselines.config import BaselineConfig
from unteach.cli.command import ModelCommand, new_group
from unteach.cli.flags import ConfigFile, Overwrite, config_of, flags_from
from unteach.cli.outcome import print_report

verbs = new_group()
_GROUPS = ("Model", "Data", "Method", "Training", "Evaluation", "Output")
_ROWS = "--forget bad.jsonl --retain good.jsonl"
_PAIRS = "--forget pairs.jsonl --retain good.jsonl"


@verbs.callback()
def baseline() -> None:
    """Train a baseline on the rows of a run, and evaluate it on the same prompts.

    [bold]Examples[/bold]
      unteach baseline sft --model ./model --forget bad.jsonl --retain good.jsonl --output ./sft
      unteach baseline kto --model ./model --forget bad.jsonl --output ./kto
      unteach baseline rlhf --model ./model --forget pairs.jsonl --retain good.jsonl --output ./rlhf

    With the files and the seed of an `unteach run`, rows are split as they are there. docs/baselines.md says what each
    baseline needs and what differs from its publication.
    """


def _add_verb(name: str, about: str, *, without: tuple[str, ...], rows: str = _ROWS) -> None:
    """Add the verb of one baseline; `without` are settings that it does not read, `rows` the flags of its example."""

    def command(config: ConfigFile = None, overwrite: Overwrite = False, **values: Any) -> None:
        chosen = config_of(config, values | {"baseline": name}, BaselineConfig)
        from unteach.baselines.run import run_baseline

        print_report(run_baseline(chosen, overwrite=overwrite), chosen.output)

    command.__doc__ = (
        f"{about}\n\n[bold]Example[/bold]\n  unteach baseline {name} --model ./model {rows} --output ./{name}\n\n"
        "Values in \\[brackets] are defaults."
    )
    command.__name__ = f"{name.replace('-', '_')}_command"
    verbs.command(name, cls=ModelCommand)(flags_from(BaselineConfig, *_GROUPS, without=without)(command))


_ONLINE = ("reward_epochs", "rl_steps", "generations")
_STAGES = (*_ONLINE, "sft_epochs")
_add_verb(
    "finetune",
    "SFT on the normal rows alone. Needs --retain; --forget only says what to evaluate on.",
    without=(*_STAGES, "wording", "beta", "good", "normals_per_row", "most_rows"),
)
_add_verb(
    "sft",
    "SFT on good answers to the harmful prompts, mixed with normal rows. Needs positives.",
    without=(*_STAGES, "wording", "beta"),
)
_add_verb(
    "coh",
    "Chain of Hindsight: good and bad answers in one sequence, both learnt, as published. Needs pairs.",
    without=(*_STAGES, "beta"),
    rows=_PAIRS,
)
_add_verb(
    "coh-masked",
    "Chain of Hindsight in which bad answers are read but never learnt. Needs pairs.",
    without=(*_STAGES, "beta"),
    rows=_PAIRS,
)
_add_verb(
    "revise",
    "Critique-Revise: the model criticises and rewrites its replies, and learns what passes a gate. Needs prompts.",
    without=(*_STAGES, "beta", "good"),
)
_add_verb(
    "dpo",
    "Direct preference optimisation, after SFT on the good answers. Needs pairs: a good answer beside each bad one.",
    without=(*_ONLINE, "wording"),
    rows=_PAIRS,
)
_add_verb(
    "kto",
    "Unpaired preference optimisation (APO-zero). Needs negatives only; normal rows beside them are optional.",
    without=(*_STAGES, "wording", "good"),
)
_add_verb(
    "rlhf",
    "Reward model, SFT, then RLOO with a KL penalty (TRL has no PPO any more). Needs pairs.",
    without=("wording", "epochs"),
    rows=_PAIRS,
)
