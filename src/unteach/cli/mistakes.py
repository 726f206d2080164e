"""The verbs of `unteach mistakes`: learning from mistakes, in one go or step by step."""

from typing import Annotated, Any

from unteach.cli.command import Command, ModelCommand, new_group
from unteach.cli.flags import ConfigFile, Overwrite, Resume, config_of, flags_from, option, seed_of, switch
from unteach.cli.outcome import print_report
from unteach.mistakes.config import MistakesConfig

verbs = new_group()
_UP_TO_TUNING = ("Model", "Data", "Output", "Steps", "Training", "Evaluation")
_OF_MISTAKES = ("prompts", "mistakes", "reports")
_OF_TRAINING = (
    "lora",
    "lora_rank",
    "lora_alpha",
    "lora_targets",
    "max_length",
    "retain",
    "harmless",
    "good_per_analysis",
    "normals_per_analysis",
    "harmless_per_analysis",
    "validation",
    "validations",
)
_OF_EVALUATION = ("unseen", "unseen_concept", "lookalike", "normal", "evaluation_prompts", "skip_evaluation")
DryRun = Annotated[bool, switch("--dry-run", "Check the settings and say what would be done.", "Output")]


@verbs.callback()
def mistakes() -> None:
    """Learn from mistakes: induce them, analyse them with guidance, tune without it, answer with guidance.

    [bold]Examples[/bold]
      unteach mistakes run --model ./model --prompts risky.txt --judge rule:rules.yaml --output ./out
      unteach mistakes run --model ./model --mistakes bad.jsonl --retain good.jsonl --output ./out
      unteach mistakes chat --model ./out/model

    docs/mistakes.md explains the four steps (arXiv 2310.10477) and what was measured.
    """


@verbs.command("run", cls=ModelCommand)
@flags_from(MistakesConfig, *_UP_TO_TUNING, without=("analyses",))
def run_command(
    config: ConfigFile = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    **values: Any,
) -> None:
    """Do all four steps, and evaluate before and after, without and with the reminder.

    [bold]Examples[/bold]
      unteach mistakes run --model ./model --prompts risky.jsonl --judge classifier:./moderator --output ./out
      unteach mistakes run --model ./model --mistakes bad.jsonl --retain good.jsonl --lora --output ./out
      unteach mistakes run --resume --output ./out

    It writes mistakes.jsonl and analyses.jsonl for you to read. Values in \\[brackets] are defaults.
    """
    chosen = config_of(config, values, MistakesConfig)
    if dry_run:
        _print_plan(chosen)
    else:
        _run(chosen, resume, overwrite)


@verbs.command("induce", cls=ModelCommand)
@flags_from(
    MistakesConfig,
    "Model",
    "Data",
    "Output",
    "Steps",
    "Evaluation",
    "Training",
    without=(
        *_OF_TRAINING,
        *_OF_EVALUATION,
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
    """Step 1: ask the prompts in words that induce mistakes, and write the replies that the judge finds bad.

    [bold]Example[/bold]
      unteach mistakes induce --model ./model --prompts risky.txt --judge rule:rules.yaml --output mistakes.jsonl

    --output is a file. Read it, edit it, and give it to `analyse`, `run --mistakes` or `unteach run --forget`.
    """
    chosen = config_of(config, values, MistakesConfig)
    from unteach.mistakes.single import induce_file

    print(induce_file(chosen))


@verbs.command("analyse", cls=ModelCommand)
@flags_from(
    MistakesConfig,
    "Model",
    "Data",
    "Output",
    "Steps",
    "Evaluation",
    without=(*_OF_TRAINING, *_OF_EVALUATION, "prompts", "analyses", "judge", "judge_url", "load_in_4bit"),
)
def analyse_command(config: ConfigFile = None, **values: Any) -> None:
    """Step 2: have mistakes analysed with guidance and write the analyses that are fit to learn from.

    [bold]Examples[/bold]
      unteach mistakes analyse --model ./model --mistakes mistakes.jsonl --output analyses.jsonl
      unteach mistakes analyse --model ./model --mistakes mistakes.jsonl --analyst openai:NAME \\
        --analyst-url http://localhost:8000/v1 --output analyses.jsonl

    --output is a file. Read it, edit it, and give it to `tune`.
    """
    chosen = config_of(config, values, MistakesConfig)
    from unteach.mistakes.single import analyse_file

    print(analyse_file(chosen))


@verbs.command("tune", cls=ModelCommand)
@flags_from(MistakesConfig, *_UP_TO_TUNING, without=(*_OF_MISTAKES, "analyst", "analyst_url"))
def tune_command(
    config: ConfigFile = None, resume: Resume = False, overwrite: Overwrite = False, **values: Any
) -> None:
    """Step 3: tune on analyses without guidance, and evaluate before and after.

    [bold]Example[/bold]
      unteach mistakes tune --model ./model --analyses analyses.jsonl --unseen other_mistakes.jsonl --output ./out

    Values in \\[brackets] are defaults.
    """
    _run(config_of(config, values, MistakesConfig), resume, overwrite)


@verbs.command("chat", cls=ModelCommand)
def chat_command(
    model: Annotated[str, option("--model", "Model to talk to: a directory or a hub id.", "Options", "DIR|ID")],
    guided: Annotated[bool, switch(" /--unguided", "Leave the reminder out.", "Options")] = True,
    wording: Annotated[str | None, option("--wording", "Wording with another reminder.", "Options", "FILE")] = None,
    temperature: Annotated[float, option("--temperature", "0 is greedy. \\[0]", "Options", "X")] = 0.0,
    seed: Annotated[int, option("--seed", "Seed of sampling. \\[0]", "Options", "N", parser=seed_of)] = 0,
    max_new_tokens: Annotated[int, option("--max-new-tokens", "Longest reply, tokens. \\[256]", "Options", "N")] = 256,
    prompt_format: Annotated[
        str, option("--prompt-format", "auto, plain or chat. \\[auto]", "Options", "NAME")
    ] = "auto",
    device: Annotated[str | None, option("--device", "cpu, cuda …", "Options", "NAME")] = None,
) -> None:
    """Step 4: talk to a model that is reminded to answer correctly, ethically and without offence.

    [bold]Examples[/bold]
      unteach mistakes chat --model ./out/model
      unteach mistakes chat --model ./out/model --unguided < prompts.txt

    A model that `run` or `tune` wrote has its reminder with it. Values in \\[brackets] are defaults.
    """
    from unteach.mistakes.chat import chat_with

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


@verbs.command("study", cls=ModelCommand)
@flags_from(MistakesConfig, *_UP_TO_TUNING, "Study", without=("analyses", "skip_evaluation", "save_steps"))
def study_command(
    config: ConfigFile = None, overwrite: Overwrite = False, dry_run: DryRun = False, **values: Any
) -> None:
    """Compare mistake analysis with SFT, guidance alone, controls and unlearning, at an equal number of tokens.

    [bold]Examples[/bold]
      unteach mistakes study --model ./model --prompts risky.jsonl --mistakes bad.jsonl --harmless good.jsonl \\
        --retain instructions.jsonl --judge classifier:./moderator --seeds 3 --output ./study
      unteach mistakes study --config study/run.yaml --arms sft,analysis --output ./again
      unteach mistakes study --config recipes/mistakes-alpaca-7b.yaml --dry-run

    Values in \\[brackets] are defaults.
    """
    chosen = config_of(config, values, MistakesConfig)
    if dry_run:
        _print_plan(chosen, study=True)
        return
    from unteach.mistakes.study import study

    print_report(study(chosen, overwrite=overwrite), chosen.output, model="")


@verbs.command("wording", cls=Command)
def wording_command() -> None:
    """Print the wording of all four steps, to be edited and given with --wording.

    [bold]Example[/bold]
      unteach mistakes wording > my_wording.yaml
    """
    from unteach.prompts.mistakes import SHIPPED

    print(SHIPPED.read_text(encoding="utf-8"), end="")


def _print_plan(config: MistakesConfig, study: bool = False) -> None:
    from unteach.mistakes.plan import plan

    print(plan(config, study))


def _run(config: MistakesConfig, resume: bool, overwrite: bool) -> None:
    from unteach.mistakes.run import run_mistakes

    print_report(run_mistakes(config, resume=resume, overwrite=overwrite), config.output)
