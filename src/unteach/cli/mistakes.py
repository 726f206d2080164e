"""The verbs of `unteach mistakes`: learning from mistakes, in one go or step by step."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from unteach.cli.flags import ConfigFile, Overwrite, Resume, config_of, plain, settings
from unteach.cli.help import Command, Group
from unteach.mistakes.config import MistakesConfig

app = typer.Typer(cls=Group, no_args_is_help=True, add_completion=False, rich_markup_mode="rich")
_UNTIL_TUNED = ("Model", "Data", "Output", "Steps", "Training", "Evaluation")
_LORA = ("lora", "lora_rank", "lora_alpha", "lora_targets")
_CHECKED = ("retain", "harmless", "unseen", "unseen_concept", "lookalike", "normal", "max_length")
_MIXED = ("good_per_analysis", "normals_per_analysis", "harmless_per_analysis")
_MEASURED = ("evaluation_prompts", "skip_evaluation")
DryRun = Annotated[bool, plain("--dry-run", "Check the settings and say what would be done.", "Output")]
_FOUND = ("prompts", "mistakes", "reports", "unseen")


@app.callback()
def mistakes() -> None:
    """Learn from mistakes: induce them, analyse them with guidance, tune without it, answer with guidance.

    [bold]Examples[/bold]
      unteach mistakes run --model ./model --prompts risky.txt --judge rule:rules.yaml --output ./out
      unteach mistakes run --model ./model --mistakes bad.jsonl --retain good.jsonl --output ./out
      unteach mistakes chat --model ./out/model

    docs/mistakes.md tells the four steps (arXiv 2310.10477) and what was measured.
    """


@app.command(name="run", cls=Command)
@settings(*_UNTIL_TUNED, of=MistakesConfig, without=("analyses",))
def run_command(
    config: ConfigFile = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    **values: Any,
) -> None:
    """Do all four steps, and measure before and after, without and with the reminder.

    [bold]Examples[/bold]
      unteach mistakes run --model ./model --prompts risky.jsonl --judge classifier:./moderator --output ./out
      unteach mistakes run --model ./model --mistakes bad.jsonl --retain good.jsonl --lora --output ./out
      unteach mistakes run --resume --output ./out

    It writes mistakes.jsonl and analyses.jsonl for you to read. Figures in \\[brackets] are defaults.
    """
    if dry_run:
        _plan(config, values)
        return
    _run(config, resume, overwrite, values)


@app.command(name="induce", cls=Command)
@settings(
    "Model",
    "Data",
    "Output",
    "Steps",
    "Evaluation",
    "Training",
    of=MistakesConfig,
    without=(
        *_LORA,
        *_CHECKED,
        *_MIXED,
        *_MEASURED,
        "mistakes",
        "reports",
        "analyses",
        "analyst",
        "analyst_url",
        "load_in_4bit",
        "epochs",
        "learning_rate",
        "batch_size",
        "gradient_accumulation_steps",
        "save_steps",
        "trainer",
    ),
)
def induce_command(config: ConfigFile = None, **values: Any) -> None:
    """Step 1: ask the prompts in inducing words and write the replies that the judge finds bad.

    [bold]Example[/bold]
      unteach mistakes induce --model ./model --prompts risky.txt --judge rule:rules.yaml --output mistakes.jsonl

    --output is a file. Read it, edit it, and give it to `analyse`, `run --mistakes` or `unteach run --forget`.
    """
    from unteach.mistakes.single import induce_file

    print(induce_file(config_of(config, values, MistakesConfig)))


@app.command(name="analyse", cls=Command)
@settings(
    "Model",
    "Data",
    "Output",
    "Steps",
    "Evaluation",
    of=MistakesConfig,
    without=(*_LORA, *_CHECKED, *_MIXED, *_MEASURED, "prompts", "analyses", "judge", "judge_url", "load_in_4bit"),
)
def analyse_command(config: ConfigFile = None, **values: Any) -> None:
    """Step 2: have mistakes analysed with guidance and write the analyses that are fit to learn from.

    [bold]Examples[/bold]
      unteach mistakes analyse --model ./model --mistakes mistakes.jsonl --output analyses.jsonl
      unteach mistakes analyse --model ./model --mistakes mistakes.jsonl --analyst openai:NAME \\
        --analyst-url http://localhost:8000/v1 --output analyses.jsonl

    --output is a file. Read it, edit it, and give it to `tune`.
    """
    from unteach.mistakes.single import analyse_file

    print(analyse_file(config_of(config, values, MistakesConfig)))


@app.command(name="tune", cls=Command)
@settings(
    *_UNTIL_TUNED, of=MistakesConfig, without=(*(name for name in _FOUND if name != "unseen"), "analyst", "analyst_url")
)
def tune_command(
    config: ConfigFile = None, resume: Resume = False, overwrite: Overwrite = False, **values: Any
) -> None:
    """Step 3: tune on analyses without guidance, and measure before and after.

    [bold]Example[/bold]
      unteach mistakes tune --model ./model --analyses analyses.jsonl --unseen other_mistakes.jsonl --output ./out

    Figures in \\[brackets] are defaults.
    """
    _run(config, resume, overwrite, values)


@app.command(name="chat", cls=Command)
def chat_command(
    model: Annotated[str, typer.Option(help="Model to talk to: a directory or a hub id.", metavar="DIR|ID")],
    guided: Annotated[
        bool, typer.Option(" /--unguided", help="Leave the reminder out.", show_default=False, metavar=" ")
    ] = True,
    wording: Annotated[
        str | None, typer.Option(help="MistakeWording with another reminder.", metavar="FILE", show_default=False)
    ] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy.", metavar="X")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of sampling.", metavar="N")] = 0,
    max_new_tokens: Annotated[int, typer.Option(help="Longest reply, tokens.", metavar="N")] = 256,
    prompt_format: Annotated[str, typer.Option(help="auto, plain or chat.", metavar="NAME")] = "auto",
    device: Annotated[str | None, typer.Option(help="cpu, cuda …", metavar="NAME", show_default=False)] = None,
) -> None:
    """Step 4: talk to a model that is reminded to answer correctly, ethically and without offence.

    [bold]Examples[/bold]
      unteach mistakes chat --model ./out/model
      unteach mistakes chat --model ./out/model --unguided < prompts.txt

    A model that `run` or `tune` wrote brings its reminder along.
    """
    from unteach.mistakes.single import chat_with

    chat_with(
        model,
        guided=guided,
        wording=wording,
        temperature=temperature,
        seed=seed,
        max_new_tokens=max_new_tokens,
        prompt_format=prompt_format,
        device=device,
    )


@app.command(name="study", cls=Command)
@settings(*_UNTIL_TUNED, "Study", of=MistakesConfig, without=("analyses", "skip_evaluation", "save_steps"))
def study_command(
    config: ConfigFile = None, overwrite: Overwrite = False, dry_run: DryRun = False, **values: Any
) -> None:
    """Compare mistake analysis with SFT, guidance alone, controls and unlearning, at an equal number of tokens.

    [bold]Examples[/bold]
      unteach mistakes study --model ./model --prompts risky.jsonl --mistakes bad.jsonl --harmless good.jsonl \\
        --retain instructions.jsonl --judge classifier:./moderator --seeds 3 --output ./study
      unteach mistakes study --config study/run.yaml --arms sft,analysis --output ./again
      unteach mistakes study --config recipes/mistakes-alpaca-7b.yaml --dry-run

    Figures in \\[brackets] are defaults.
    """
    if dry_run:
        _plan(config, values, study=True)
        return
    from unteach.mistakes.study import study
    from unteach.report.table import show

    chosen = config_of(config, values, MistakesConfig)
    report = study(chosen, overwrite=overwrite)
    console = Console(highlight=False)
    show(report, console)
    console.print(f"\nPage: {Path(chosen.output) / 'report.html'}", highlight=False)


@app.command(name="wording", cls=Command)
def templates_command() -> None:
    """Print the wording of all four steps, to be edited and given with --wording.

    [bold]Example[/bold]
      unteach mistakes wording > my_templates.yaml
    """
    from unteach.prompts.mistakes import SHIPPED

    print(SHIPPED.read_text(encoding="utf-8"), end="")


def _plan(config: str | None, values: dict[str, Any], study: bool = False) -> None:
    from unteach.mistakes.plan import plan

    print(plan(config_of(config, values, MistakesConfig), study))


def _run(config: str | None, resume: bool, overwrite: bool, values: dict[str, Any]) -> None:
    from unteach.mistakes.run import run_mistakes
    from unteach.report.table import show

    chosen = config_of(config, values, MistakesConfig)
    report = run_mistakes(chosen, resume=resume, overwrite=overwrite)
    console = Console(highlight=False)
    show(report, console)
    directory = Path(chosen.output)
    console.print(f"\nModel: {directory / 'model'}    page: {directory / 'report.html'}", highlight=False)
