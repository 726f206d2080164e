"""The verbs of `unteach baseline`: the other ways to make a model behave, to compare with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from unteach.baselines.config import BaselineConfig
from unteach.cli.flags import ConfigFile, Overwrite, config_of, settings
from unteach.cli.help import Command, Group

app = typer.Typer(cls=Group, no_args_is_help=True, add_completion=False, rich_markup_mode="rich")
_GROUPS = ("Model", "Data", "Method", "Training", "Evaluation", "Output")
_ONLINE = ("reward_epochs", "rl_steps", "generations")
_RL = (*_ONLINE, "sft_epochs")


@app.callback()
def baseline() -> None:
    """Train a baseline on the rows of a run, and measure it on the same prompts.

    [bold]Examples[/bold]
      unteach baseline sft --model ./model --forget bad.jsonl --retain good.jsonl --output ./sft
      unteach baseline kto --model ./model --forget bad.jsonl --output ./kto
      unteach baseline rlhf --model ./model --forget pairs.jsonl --retain good.jsonl --output ./rlhf

    With the files and the seed of an `unteach run`, rows are parted as it parts them. docs/baselines.md says what each
    needs and what differs from its publication.
    """


def _verb(name: str, about: str, *, without: tuple[str, ...] = _RL, example: str = "") -> None:
    """Add the verb of one baseline; `without` are settings that it does not read."""

    def command(config: ConfigFile = None, overwrite: Overwrite = False, **values: Any) -> None:
        from unteach.baselines.run import run_baseline
        from unteach.report.table import show

        chosen = config_of(config, values | {"baseline": name}, BaselineConfig)
        report = run_baseline(chosen, overwrite=overwrite)
        console = Console(highlight=False)
        show(report, console)
        directory = Path(chosen.output)
        console.print(f"\nModel: {directory / 'model'}    page: {directory / 'report.html'}", highlight=False)

    given = example or "--forget bad.jsonl --retain good.jsonl"
    command.__doc__ = (
        f"{about}\n\n[bold]Example[/bold]\n  unteach baseline {name} --model ./model {given} --output ./{name}\n\n"
        "Figures in \\[brackets] are defaults."
    )
    command.__name__ = f"{name.replace('-', '_')}_command"
    decorated: Callable[..., None] = settings(*_GROUPS, of=BaselineConfig, without=without)(command)
    app.command(name=name, cls=Command)(decorated)


_WORDLESS = (*_RL, "templates")
_NO_PAIRS = (*_WORDLESS, "beta")
_verb(
    "finetune",
    "SFT on the normal rows alone. Needs --retain; --forget only says what to measure.",
    without=(*_NO_PAIRS, "good", "normals_per_row", "most_rows"),
)
_verb("sft", "SFT on good answers to the harmful prompts, mixed with normal rows. Needs positives.", without=_NO_PAIRS)
_verb(
    "coh",
    "Chain of Hindsight: good and bad answers in one sequence, both learnt, as published. Needs pairs.",
    without=(*_RL, "beta"),
    example="--forget pairs.jsonl --retain good.jsonl",
)
_verb(
    "coh-masked",
    "Chain of Hindsight in which bad answers are read but never learnt. Needs pairs.",
    without=(*_RL, "beta"),
    example="--forget pairs.jsonl --retain good.jsonl",
)
_verb(
    "revise",
    "Critique-Revise: the model criticises and rewrites its replies, and learns what passes a gate. Needs prompts.",
    without=(*_RL, "beta", "good"),
)
_verb(
    "dpo",
    "Direct preference optimisation, after SFT on the good answers. Needs pairs: a good answer beside each bad one.",
    without=(*_ONLINE, "templates"),
    example="--forget pairs.jsonl --retain good.jsonl",
)
_verb(
    "kto",
    "Unpaired preference optimisation (APO-zero). Needs negatives only; normal rows beside them are optional.",
    without=(*_WORDLESS, "good"),
)
_verb(
    "rlhf",
    "Reward model, SFT, then RLOO with a KL penalty (TRL has no PPO any more). Needs pairs.",
    without=("templates", "epochs"),
    example="--forget pairs.jsonl --retain good.jsonl",
)
