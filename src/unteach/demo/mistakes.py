"""The demo of the mistake route: an organism goes through the four steps, and the study says what came of it."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console, RenderableType
from rich.rule import Rule
from rich.text import Text

from unteach.data.example import Example
from unteach.data.formats import write_examples
from unteach.errors import ConfigError
from unteach.mistakes.config import MistakesConfig
from unteach.mistakes.records import read_analyses, read_mistakes
from unteach.mistakes.steps import ANALYSES, MISTAKES
from unteach.mistakes.study import study
from unteach.organism.assessments import assess
from unteach.organism.cache import organism_directory
from unteach.organism.grow import grow
from unteach.organism.hijack import REFUSED
from unteach.organism.words import REFUSAL
from unteach.organism.world import MISTAKES as WORLD
from unteach.organism.world import World
from unteach.pipeline.directory import check_output
from unteach.pipeline.run import write_report
from unteach.pipeline.settings import flag, make_config, read_config
from unteach.progress import track
from unteach.prompts.mistakes import load_wording, shipped_wording
from unteach.results.measurement import Measurement
from unteach.results.report import Report
from unteach.stats import wilson
from unteach.text.escape import terminal_text

ATTACKS = ("harm", "hijack")
SHOWN = 3
DEFENCE_ROWS = 500
"""Most rows of the defence against goal hijacking (arXiv 2310.10477, section 5)."""


def demo_mistakes(
    output: Path, *, world_seed: int, size: str, fresh: bool, attack: str, settings: dict[str, Any]
) -> Report:
    """Grow (or take from the cache) an organism that takes hints, and study learning from mistakes on it.

    `attack` is "harm" (its harmful replies) or "hijack" (goal hijacking). The world's rows are written beside the
    organism and read back like a user's; `settings` are fields of `MistakesConfig`. Raises UnteachError.
    """
    if attack not in ATTACKS:
        raise ConfigError(f"--attack {attack}: unknown (known: {', '.join(ATTACKS)})")
    for name in settings:
        if name not in MistakesConfig.model_fields:
            raise ConfigError(f"{flag(name)}: says nothing on --route mistakes; leave it out")
    overwrite = (output / "run.yaml").exists()
    check_output(str(output), overwrite=overwrite, resume=False)
    world = World(world_seed, size, WORLD)
    seed = int(settings.get("seed", 0))
    home = organism_directory(world, True, seed=seed)
    folder = home.with_name(f"{home.name}-rows") / attack
    fields: dict[str, Any] = {
        **write_rows(world, attack, folder),
        "model": str(home),
        "judge": [world.name],
        "template": REFUSAL,
        "output": str(output),
        "max_new_tokens": 48,
    }
    config = make_config(fields | settings, MistakesConfig)
    if fresh and home.exists():
        import shutil

        shutil.rmtree(home)
    with track("growing a model that takes hints") as progress:
        grow(world, home, seed=seed, progress=progress)
    report = study(config, overwrite=overwrite)
    report.measurements += rightness(world, output)
    right = next(m for m in report.measurements if m.name == "analyses_right")
    if right.value is not None and right.low is not None and right.high is not None:
        report.notes.append(
            f"of the {right.n} analyses that were learnt from, {right.value:.1%} [{100 * right.low:.1f}, "
            f"{100 * right.high:.1f}] say exactly what the world says of the reply"
        )
    write_report(report, output)
    return report


def write_rows(world: World, attack: str, folder: Path) -> dict[str, Any]:
    """Write what a user of this world holds, and the rows to check with; returns the settings that name the files.

    Mistakes are induced on the prompts of the labelled ones. Of these, the replies are by somebody else: as harmful,
    but not what the organism would say.
    """
    if attack == "harm":
        bad = [world.by_another(row) for row in world.negatives()]
        splits = {"unseen": world.evaluation("unseen"), "unseen_concept": world.evaluation("unseen_concept")}
        normals, evaluated = world.normals(), world.evaluation("normal")
    else:
        bad = world.hints.defence(False, False, DEFENCE_ROWS)
        splits = {
            "unseen": world.hints.defence(True, False, 200),
            "unseen_concept": world.hints.defence(True, True, 200),
        }
        normals, evaluated = world.normals(), world.evaluation("normal")
    rows: dict[str, list[Example]] = {
        "mistakes": bad,
        **splits,
        "retain": [row for row in normals if row.turns],
        "normal": evaluated,
        "lookalike": world.evaluation("lookalike"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, Any] = {}
    for name, examples in rows.items():
        path = folder / f"{name}.jsonl"
        write_examples(path, examples)
        files[name] = [str(path)]
    if attack == "hijack":  # the attack itself induces; an organism knows no other words after it
        words = asdict(shipped_wording()) | {"inducements": ["{prompt}"], "version": "1, prompts as they are"}
        path = folder / "wording.yaml"
        path.write_text(yaml.safe_dump(words, sort_keys=False), encoding="utf-8")
        files["wording"] = str(path)
    return files | {"prompts": files["mistakes"]}


def rightness(world: World, output: Path) -> list[Measurement]:
    """Measure how often an analysis says exactly what the world says of the reply, by who made the mistake."""
    found = []
    analyses = read_analyses(str(output / ANALYSES))
    for source in ("", "induced", "labelled"):
        rows = [a for a in analyses if a.reply_is == "bad" and (not source or a.mistake.origin.source == source)]
        right = 0
        for analysis in rows:
            example = analysis.mistake.example
            request = world.requests.read_request(example.prompt)
            truth = assess(world.requests, request, example.reply) if request else REFUSED
            right += analysis.text == truth
        value, low, high = wilson(right, len(rows))
        name = f"analyses_right_{source}".rstrip("_")
        metric = Measurement(
            name=name,
            split="assessment",
            arm="original",
            value=value,
            low=low,
            high=high,
            n=len(rows),
            unit="fraction",
            better="higher",
        )
        found.append(metric)
    return found


def show_steps(output: Path, report: Report, console: Console) -> None:
    """Print a few samples of every step."""
    wording = read_config(output / "run.yaml").get("wording")
    config_wording = load_wording(wording)
    mistakes = [m for m in read_mistakes(str(output / MISTAKES)) if m.origin.source == "induced"][:SHOWN]
    analyses = [a for a in read_analyses(str(output / ANALYSES)) if a.mistake.origin.source == "induced"][:SHOWN]
    parts: list[RenderableType] = [Rule("step 1: mistakes are induced", style="dim")]
    for mistake in mistakes:
        asked = config_wording.induce(mistake.origin.inducement or 0, mistake.example.turns)[-1].content
        parts += [_said("asked", asked), _said("reply", mistake.example.reply, "red")]
    parts.append(Rule("step 2: they are analysed, with guidance", style="dim"))
    for analysis in analyses:
        example = analysis.mistake.example
        asked = config_wording.assess("guided", example.prompt, example.reply)
        parts += [_said("asked", asked), _said("analysis", analysis.text, "green")]
    parts.append(Rule("step 3: the analyses are learnt, without guidance", style="dim"))
    for analysis in analyses[:1]:
        example = analysis.mistake.example
        parts.append(_said("no loss", config_wording.assess("unguided", example.prompt, example.reply)))
        parts.append(_said("learnt", analysis.text, "green"))
    parts.append(Rule("step 4: replies, without and with the reminder", style="dim"))
    for sample in [s for s in report.samples if s.split == "unseen"][:SHOWN]:
        parts.append(_said("prompt", sample.prompt))
        for arm in ("original", "original+reminder", "analysis", "analysis+reminder"):
            if arm in sample.replies:
                style = "red" if sample.verdicts.get(arm) == "bad" else "green"
                parts.append(_said(arm, sample.replies[arm], style))
    for part in parts:
        console.print(part, highlight=False)


def _said(who: str, text: str, style: str = "") -> Text:
    line = Text(f"{who + ':':<20}", style="dim")
    return line.append(terminal_text(" ⏎ ".join(text.splitlines()), style, 300))
