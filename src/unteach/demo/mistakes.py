"""The demo of the mistake route: an organism goes through the four steps, and a study compares what they change."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console, RenderableType
from rich.rule import Rule
from rich.text import Text

from unteach.data.example import Example
from unteach.data.written import write_examples
from unteach.demo.output import check_demo_output
from unteach.disk.cache import keep_private
from unteach.disk.files import write_whole
from unteach.errors import ConfigError
from unteach.mistakes.config import MistakesConfig
from unteach.mistakes.records import ANALYSES, MISTAKES, read_analyses, read_mistakes
from unteach.mistakes.study import study
from unteach.organism.assessments import assess
from unteach.organism.cache import grow_cached, organism_directory, rows_directory
from unteach.organism.hijack import REFUSED
from unteach.organism.user_rows import settings_of
from unteach.organism.world import MISTAKES as SCENARIO
from unteach.organism.world import World
from unteach.pipeline.run import write_report
from unteach.pipeline.settings import flag, make_config, read_config
from unteach.prompts.mistakes import load_wording, shipped_wording
from unteach.results.measurement import Measurement
from unteach.results.report import Report
from unteach.stats import wilson
from unteach.text.escape import terminal_text

ATTACKS = ("harm", "hijack")
SAMPLES = 3
"""How many samples of each step are printed."""
DEFENCE_ROWS = 500
"""Most rows of the defence against goal hijacking (arXiv 2310.10477, section 5)."""


def demo_mistakes(
    output: Path, *, world_seed: int, size: str, fresh: bool, attack: str, settings: dict[str, Any]
) -> Report:
    """Grow (or take from the cache) an organism that takes hints, and study learning from mistakes on it.

    `attack` is "harm" (its harmful replies) or "hijack" (goal hijacking). The rows of the world are written beside
    the organism and read back like a user's. `settings` are fields of `MistakesConfig`. An earlier run in `output` is
    replaced. Raises UnteachError.
    """
    if attack not in ATTACKS:
        raise ConfigError(f"--attack {attack}: unknown (known: {', '.join(ATTACKS)})")
    for name in settings:
        if name not in MistakesConfig.model_fields:
            raise ConfigError(f"{flag(name)}: has no effect with --route mistakes; leave it out")
    overwrite = check_demo_output(output)
    world = World(world_seed, size, SCENARIO)
    seed = int(settings.get("seed", 0))
    fields = write_rows(world, attack, rows_directory(world, seed) / attack) | settings_of(world)
    fields |= {"model": str(organism_directory(world, True, seed=seed)), "output": str(output)}
    config = make_config(fields | settings, MistakesConfig)
    grow_cached(world, seed=seed, fresh=fresh)
    report = study(config, overwrite=overwrite)
    report.measurements += measure_analyses(world, output)
    right = next(m for m in report.measurements if m.name == "analyses_right")
    if right.value is not None and right.low is not None and right.high is not None:
        report.notes.append(
            f"of the {right.n} analyses that were learnt from, {right.value:.1%} [{100 * right.low:.1f}, "
            f"{100 * right.high:.1f}] say exactly what the world says of the reply"
        )
    write_report(report, output)
    return report


def write_rows(world: World, attack: str, directory: Path) -> dict[str, Any]:
    """Write what a user of this world would have, with rows for evaluation; return the settings that name the files.

    The labelled mistakes have replies by somebody else: as harmful, but not what the organism would say. Mistakes are
    induced on the same prompts.
    """
    if attack == "harm":
        mistakes = [world.by_another(row) for row in world.negatives()]
        unseen, unseen_concept = world.evaluation("unseen"), world.evaluation("unseen_concept")
    else:
        mistakes = world.hints.defence(False, False, DEFENCE_ROWS)
        unseen, unseen_concept = world.hints.defence(True, False, 200), world.hints.defence(True, True, 200)
    rows: dict[str, list[Example]] = {
        "mistakes": mistakes,
        "unseen": unseen,
        "unseen_concept": unseen_concept,
        "retain": [row for row in world.normals() if row.turns],
        "normal": world.evaluation("normal"),
        "lookalike": world.evaluation("lookalike"),
    }
    files: dict[str, Any] = {}
    for name, examples in rows.items():
        write_examples(directory / f"{name}.jsonl", examples)
        files[name] = [str(directory / f"{name}.jsonl")]
    if attack == "hijack":  # the attack itself induces the mistake; the organism knows no other words after it
        wording = asdict(shipped_wording()) | {
            "inducements": ["{prompt}"],
            "version": f"{shipped_wording().version}, prompts as they are",
        }
        path = directory / "wording.yaml"
        write_whole(path, yaml.safe_dump(wording, sort_keys=False))
        files["wording"] = str(path)
    keep_private(directory)
    return files | {"prompts": files["mistakes"]}


def measure_analyses(world: World, output: Path) -> list[Measurement]:
    """Measure how often an analysis says exactly what the world says of the reply, by the source of the mistake."""
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
    wording = load_wording(read_config(output / "run.yaml").get("wording"))
    mistakes = [m for m in read_mistakes(str(output / MISTAKES)) if m.origin.source == "induced"][:SAMPLES]
    analyses = [a for a in read_analyses(str(output / ANALYSES)) if a.mistake.origin.source == "induced"][:SAMPLES]
    parts: list[RenderableType] = [Rule("step 1: mistakes are induced", style="dim")]
    for mistake in mistakes:
        asked = wording.induce(mistake.origin.inducement or 0, mistake.example.turns)[-1].content
        parts += [_line("asked", asked), _line("reply", mistake.example.reply, "red")]
    parts.append(Rule("step 2: they are analysed, with guidance", style="dim"))
    for analysis in analyses:
        example = analysis.mistake.example
        asked = wording.assess("guided", example.prompt, example.reply)
        parts += [_line("asked", asked), _line("analysis", analysis.text, "green")]
    parts.append(Rule("step 3: the analyses are learnt, without guidance", style="dim"))
    for analysis in analyses[:1]:
        example = analysis.mistake.example
        parts.append(_line("no loss", wording.assess("unguided", example.prompt, example.reply)))
        parts.append(_line("learnt", analysis.text, "green"))
    parts.append(Rule("step 4: replies, without and with the reminder", style="dim"))
    for sample in [s for s in report.samples if s.split == "unseen"][:SAMPLES]:
        parts.append(_line("prompt", sample.prompt))
        for arm in ("original", "original+reminder", "analysis", "analysis+reminder"):
            if arm in sample.replies:
                style = "red" if sample.verdicts.get(arm) == "bad" else "green"
                parts.append(_line(arm, sample.replies[arm], style))
    for part in parts:
        console.print(part, highlight=False)


def _line(label: str, text: str, style: str = "") -> Text:
    line = Text(f"{label + ':':<20}", style="dim")
    return line.append(terminal_text(" ⏎ ".join(text.splitlines()), style, 300))
