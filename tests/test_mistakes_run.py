"""Learning from mistakes on an organism that takes hints, through the command line: all steps, by hand and at once."""

import contextlib
import io
import json
import shutil
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from command import Outcome, call
from unteach.cli.app import main
from unteach.data.written import write_examples
from unteach.mistakes.guide import read_guidance
from unteach.mistakes.records import read_analyses, read_mistakes
from unteach.organism.grow import grow
from unteach.organism.recipe import recipe_of
from unteach.organism.world import MISTAKES, World
from unteach.pipeline.directory import CONTRACT
from unteach.prompts.mistakes import shipped_wording
from unteach.results.arms import REMINDED
from unteach.results.report import Report
from unteach.training.log_file import LogFile

pytestmark = pytest.mark.slow

Capture = pytest.CaptureFixture[str]
SPLITS = {"seen", "unseen", "unseen_concept", "normal", "lookalike"}
ARMS = ("original", "original" + REMINDED, "tuned", "tuned" + REMINDED)
COUNT = 8
LESSONS = {"harm": 4, "help": 5, "facts": 3, "induced": 3, "reminded": 5, "guided": 5, "unguided": 5, "misleading": 2}
"""Rows of a step of growth: fewer than the recipe's, and only of the lessons that these tests ask about."""


@dataclass(frozen=True)
class Home:
    """The organism, the world's judge, and rows as a user would have them."""

    model: Path
    rows: Path
    judge: str

    def words(self, verb: str, output: Path, **changed: object) -> list[str]:
        """Words of a small run; None takes a flag away."""
        rows = ("unseen", "unseen_concept", "retain", "normal", "lookalike")
        flags: dict[str, Any] = {"model": self.model, "output": output, "device": "cpu", "max_new_tokens": 48}
        if verb in ("run", "study", "tune"):
            flags |= {name: self.rows / f"{name}.jsonl" for name in rows} | {"judge": self.judge}
            flags |= {"evaluation_prompts": COUNT, "epochs": 2}
        if verb in ("run", "study", "induce"):
            flags |= {"prompts": self.rows / "mistakes.jsonl", "judge": self.judge}
        words = ["mistakes", verb]
        for name, value in (flags | changed).items():
            if value is not None:
                words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
        return words


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    world = World(0, "micro", MISTAKES)
    model = tmp_path_factory.mktemp("organism") / "model"
    recipe = replace(recipe_of("micro", MISTAKES), rows=tuple(LESSONS.items()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unteach.organism.grow.measure_abilities", lambda *_: ())  # the report of a run tells of them
        grow(world, model, require=False, recipe=recipe)
    rows = tmp_path_factory.mktemp("rows")
    sets = {
        "mistakes": world.negatives()[:16],
        "retain": [row for row in world.normals() if row.turns][:30],
        "normal": world.evaluation("normal")[:COUNT],
    }
    sets |= {name: world.evaluation(name)[:COUNT] for name in ("unseen", "unseen_concept", "lookalike")}
    for name, examples in sets.items():
        write_examples(rows / f"{name}.jsonl", examples)
    return Home(model, rows, world.name)


@pytest.fixture(scope="module")
def whole(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, which tests read and do not change."""
    output = tmp_path_factory.mktemp("whole") / "out"
    with pytest.MonkeyPatch.context() as patch:
        validation = home.rows / "unseen_concept.jsonl"
        patch.setattr("sys.argv", ["unteach", *home.words("run", output, validation=validation, validations=3)])
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code
    return output


def fine(outcome: Outcome) -> Outcome:
    assert outcome.code == 0, outcome.err
    assert outcome.err == "", outcome.err  # progress apart, nothing is said there
    return outcome


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model" / "model.safetensors")


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    assert left.keys() == right.keys()
    return all(torch.equal(left[name], right[name]) for name in left)


class TestRun:
    def test_leaves_what_was_promised(self, whole: Path, home: Home) -> None:
        assert {path.name for path in whole.iterdir()} == set(CONTRACT) - {"stress.json"}
        mistakes = read_mistakes(str(whole / "mistakes.jsonl"))
        assert len(mistakes) > COUNT and (whole / "unseen_mistakes.jsonl").read_text() == ""
        for mistake in mistakes:
            origin = mistake.origin
            assert (origin.source, origin.model, origin.seed) == ("induced", str(home.model), 0)
            assert origin.wording == shipped_wording().version and origin.judge == "world"
        analyses = read_analyses(str(whole / "analyses.jsonl"))
        bad = [analysis for analysis in analyses if analysis.reply_is == "bad"]
        good = [analysis for analysis in analyses if analysis.reply_is == "good"]
        assert {a.mistake.example.prompt_key for a in bad} <= {m.example.prompt_key for m in mistakes}
        assert 0 < len(good) <= len(bad) and all(a.text.startswith("Good") for a in good)
        assert all(a.text.startswith("Bad") and a.analyst == str(home.model) for a in bad)
        AutoModelForCausalLM.from_pretrained(whole / "model")
        lines = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines if "loss" in line] == list(range(1, lines[-1]["step"] + 1))
        assert not any(path.suffix == ".bin" for path in (whole / "model").iterdir())

    def test_the_report_has_every_arm_on_every_split(self, whole: Path) -> None:
        report = Report.read(whole)
        assert {metric.arm for metric in report.measurements} == set(ARMS)
        for split in SPLITS:
            name = "right_rate" if split in ("normal", "lookalike") else "harmful_rate"
            for arm in ARMS:
                metric = report.measured(name, split, arm)
                assert metric is not None and metric.n == COUNT, (name, split, arm)
                assert 0 <= metric.low <= metric.value <= metric.high <= 1  # type: ignore[operator]
        # The organism was grown to harm, to harm less when reminded, and to do all else well.
        harm = {arm: report.measured("harmful_rate", "unseen", arm).value for arm in ARMS}  # type: ignore[union-attr]
        assert harm["original"] >= 0.5 > harm["original" + REMINDED]
        assert report.measured("right_rate", "normal", "original").value >= 0.8  # type: ignore[union-attr]
        assert all(set(sample.replies) == set(ARMS) for sample in report.samples)
        stages = [(cost.stage, cost.arm) for cost in report.cost]
        assert {("inducing mistakes", "original"), ("tuning", "tuned"), ("evaluation", "tuned")} < set(stages)
        assert len(stages) == len(set(stages))
        notes = "\n".join(report.notes)
        assert "induction rate" in notes and "analyses kept" in notes and "tuned on" in notes
        assert "<table" in (whole / "report.html").read_text() and "# " in (whole / "README.md").read_text()

    def test_the_validation_prompts_are_asked_with_the_reminder(self, whole: Path) -> None:
        report = Report.read(whole)
        assert [(point.arm, point.stage) for point in report.curve] == [("tuned" + REMINDED, "tuning")] * 3
        costs = {cost.stage: cost.flops or 0 for cost in report.cost}
        prepared = sum(costs[stage] for stage in costs if stage.startswith(("inducing mis", "analysing")))
        assert [point.flops for point in report.curve] == sorted(point.flops for point in report.curve)
        assert prepared > 0 and report.curve[-1].flops == pytest.approx(prepared + costs["tuning"])

    def test_the_model_carries_its_reminder(self, whole: Path, capsys: Capture, monkeypatch: Any) -> None:
        reminder = shipped_wording().reminder
        assert read_guidance(whole / "model") == reminder
        assert reminder in (whole / "README.md").read_text()
        sample = next(s for s in Report.read(whole).samples if s.split == "unseen")
        for flags, arm in (([], "tuned" + REMINDED), (["--unguided"], "tuned")):
            monkeypatch.setattr("sys.stdin", io.StringIO(sample.prompt + "\n"))
            words = ["mistakes", "chat", "--model", whole / "model", "--max-new-tokens", 48, "--device", "cpu"]
            assert fine(call(capsys, *words, *flags)).out.strip() == sample.replies[arm]

    def test_run_yaml_replays_it(self, whole: Path, tmp_path: Path, capsys: Capture) -> None:
        fine(call(capsys, "mistakes", "run", "--config", whole / "run.yaml", "--output", tmp_path / "out"))
        assert same(weights(whole), weights(tmp_path / "out"))
        for name in ("mistakes.jsonl", "analyses.jsonl"):
            assert (whole / name).read_text() == (tmp_path / "out" / name).read_text()
        one, two = Report.read(whole), Report.read(tmp_path / "out")
        assert [f.model_dump() for f in one.measurements] == [f.model_dump() for f in two.measurements]
        assert one.samples == two.samples and one.notes == two.notes
        first, second = (yaml.safe_load((at / "run.yaml").read_text()) for at in (whole, tmp_path / "out"))
        assert first | {"output": ""} == second | {"output": ""}


class TestByHand:
    def test_each_step_on_its_own_does_what_the_run_does(
        self, whole: Path, home: Home, tmp_path: Path, capsys: Capture
    ) -> None:
        mistakes, analyses = tmp_path / "new" / "mistakes.jsonl", tmp_path / "analyses.jsonl"
        said = fine(call(capsys, *home.words("induce", mistakes))).out
        assert "induction rate" in said and str(mistakes) in said
        assert mistakes.read_text() == (whole / "mistakes.jsonl").read_text()
        said = fine(call(capsys, *home.words("analyse", analyses, mistakes=mistakes))).out
        assert "analyses kept" in said and str(analyses) in said
        made = [json.loads(line) for line in (whole / "analyses.jsonl").read_text().splitlines()]
        assert [json.loads(line) for line in analyses.read_text().splitlines()] == [
            row for row in made if not row["label"]
        ]

    def test_edited_analyses_are_what_is_tuned_on(
        self, whole: Path, home: Home, tmp_path: Path, capsys: Capture
    ) -> None:
        """A person cuts the list to three, rewrites one, adds one of a good reply and one that is checked on."""
        rows = [json.loads(line) for line in (whole / "analyses.jsonl").read_text().splitlines()]
        bad, good = [row for row in rows if not row["label"]][:3], [row for row in rows if row["label"]][:1]
        bad[0]["analysis"] = "Bad. It would harm the temple."
        checked = json.loads((home.rows / "unseen.jsonl").read_text().splitlines()[0])["prompt"]
        met = {"prompt": checked, "reply": "r", "analysis": "Bad. It would harm."}
        file = tmp_path / "edited.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in [*bad, *good, met]))
        output = tmp_path / "out"
        fine(call(capsys, *home.words("tune", output, analyses=file)))
        report = Report.read(output)
        assert {metric.arm for metric in report.measurements} == set(ARMS)
        kept = read_analyses(str(output / "analyses.jsonl"))
        assert [a.text for a in kept] == [row["analysis"] for row in [*bad, *good]]
        assert "left out 1 analyses whose prompts stand in --unseen or --unseen-concept" in report.notes
        assert any(note.startswith("tuned on 3 analysis, 1 good analysis, 3 normal rows") for note in report.notes)
        # The good reply is no mistake, and not checked as one.
        assert [m.example.prompt for m in read_mistakes(str(output / "mistakes.jsonl"))] == [r["prompt"] for r in bad]
        assert report.measured("harmful_rate", "seen", "original").n == 3  # type: ignore[union-attr]
        assert report.command.startswith("unteach mistakes tune")

    def test_editing_a_finished_run_and_resuming_it_trains_anew(
        self, whole: Path, home: Home, tmp_path: Path, capsys: Capture
    ) -> None:
        output = tmp_path / "out"
        shutil.copytree(whole, output)
        again = call(capsys, "mistakes", "run", "--resume", "--output", output)
        assert again.code == 2 and "is finished" in again.err
        (output / "report.json").unlink()
        shutil.rmtree(output / "model")
        fine(call(capsys, "mistakes", "run", "--resume", "--output", output))
        assert same(weights(whole), weights(output))  # nothing was edited: from the last checkpoint
        assert "the analyses were taken from analyses.jsonl, which was there" in Report.read(output).notes

        (output / "report.json").unlink()
        rows = (output / "analyses.jsonl").read_text().splitlines()
        (output / "analyses.jsonl").write_text("\n".join(rows[:4]) + "\n")
        fine(call(capsys, "mistakes", "run", "--resume", "--output", output))
        assert not same(weights(whole), weights(output))
        lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
        assert lines[0]["step"] == 1 and len(read_analyses(str(output / "analyses.jsonl"))) == 4

    def test_other_settings_are_refused_on_resuming(self, whole: Path, capsys: Capture) -> None:
        outcome = call(capsys, "mistakes", "run", "--resume", "--output", whole, "--epochs", 9)
        assert outcome.code == 2 and "--epochs 9" in outcome.err


class TestInterrupt:
    def test_in_training_and_then_resumed_gives_the_same_weights(
        self, whole: Path, home: Home, tmp_path: Path, capsys: Capture
    ) -> None:
        log = LogFile.on_log

        def pressed(callback: LogFile, args: Any, state: Any, *rest: Any, **more: Any) -> None:
            log(callback, args, state, *rest, **more)
            if state.global_step == 2:
                signal.raise_signal(signal.SIGTERM)

        words = home.words("run", tmp_path / "out")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LogFile, "on_log", pressed)
            outcome = call(capsys, *words)
        assert outcome.code == 143 and "go on with --resume" in outcome.err
        assert not (tmp_path / "out" / "model").exists()
        fine(call(capsys, *words, "--resume"))
        assert same(weights(whole), weights(tmp_path / "out"))
        metrics = [[f.model_dump() for f in Report.read(at).measurements] for at in (whole, tmp_path / "out")]
        assert metrics[0] == metrics[1]

    def test_while_inducing_nothing_is_left(self, home: Home, tmp_path: Path, capsys: Capture) -> None:
        def pressed(*args: Any, **more: Any) -> None:
            raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("unteach.mistakes.steps.induce", pressed)
            outcome = call(capsys, *home.words("run", tmp_path / "out"))
        assert outcome.code == 130 and not (tmp_path / "out").exists()


class TestAModelThatWillNotBeInduced:
    """Here it is the judge who finds nothing bad; the rest is the same."""

    def strict(self, tmp_path: Path) -> str:
        (tmp_path / "rules.yaml").write_text("keywords: [unheardofword]\n")
        return f"rule:{tmp_path / 'rules.yaml'}"

    @pytest.mark.parametrize("verb", ["run", "induce", "study"])
    def test_is_told_with_what_can_be_done(self, verb: str, home: Home, tmp_path: Path, capsys: Capture) -> None:
        outcome = call(capsys, *home.words(verb, tmp_path / "out", judge=self.strict(tmp_path)))
        assert outcome.code == 2 and outcome.err.count("\n") == 1
        for word in ("no mistake was induced", "refuses", "--mistakes", "--wording", "--judge"):
            assert word in outcome.err
        assert not (tmp_path / "out").exists()

    def test_goes_on_with_labelled_mistakes(self, home: Home, tmp_path: Path, capsys: Capture) -> None:
        words = home.words(
            "run",
            tmp_path / "out",
            judge=self.strict(tmp_path),
            mistakes=home.rows / "mistakes.jsonl",
            skip_evaluation=True,
        )
        fine(call(capsys, *words))
        report = Report.read(tmp_path / "out")
        assert any("induction rate 0.0%" in note and "will not be induced" in note for note in report.notes)
        assert {m.origin.source for m in read_mistakes(str(tmp_path / "out" / "mistakes.jsonl"))} == {"labelled"}
        assert report.measurements == [] and (tmp_path / "out" / "model" / "model.safetensors").exists()


class TestStudy:
    @pytest.fixture(scope="class")
    def studied(self, home: Home, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, str]:
        output = tmp_path_factory.mktemp("study") / "out"
        words = home.words("study", output, arms="sft, analysis,analysis", seeds=2)
        shown = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(shown):
            patch.setattr("sys.argv", ["unteach", *words])
            patch.setenv("COLUMNS", "200")
            with pytest.raises(SystemExit) as ended:
                main()
        assert not ended.value.code
        return Report.read(output), shown.getvalue()

    def test_arms_have_as_many_tokens(self, studied: tuple[Report, str]) -> None:
        report, _ = studied
        [note] = [note for note in report.notes if note.startswith("every arm was trained on")]
        budget = int(note.split("trained on ")[1].split(" tokens")[0].replace(",", ""))
        tokens = {cost.arm: cost.tokens for cost in report.cost if cost.stage == "training"}
        assert tokens.keys() == {"sft", "analysis"}
        for spent in tokens.values():  # two seeds, each over by less than a row of at most 100 tokens
            assert spent is not None and 2 * budget <= spent < 2 * budget + 200

    def test_every_stage_is_counted_once(self, studied: tuple[Report, str]) -> None:
        report, _ = studied
        stages = [(cost.stage, cost.arm) for cost in report.cost]
        assert len(stages) == len(set(stages))
        assert {("inducing mistakes", "original"), ("evaluation", "original"), ("evaluation", "sft")} <= set(stages)

    def test_comparisons_have_intervals_and_single_seeds(self, studied: tuple[Report, str]) -> None:
        report, _ = studied
        arms = {(one.arm, one.against) for one in report.comparisons}
        assert arms == {
            ("original" + REMINDED, "original"),
            ("analysis" + REMINDED, "original" + REMINDED),
            ("analysis", "original"),
            ("analysis" + REMINDED, "sft" + REMINDED),
            ("analysis", "sft"),
        }
        for one in report.comparisons:
            assert one.n == COUNT and one.low is not None and one.value is not None and one.high is not None
            assert -1 <= one.low <= one.value <= one.high <= 1 and len(one.seeds) == 2
            both = [report.measured(one.name, one.split, arm) for arm in (one.arm, one.against)]
            assert one.value == pytest.approx(both[0].value - both[1].value)  # type: ignore[union-attr, operator]

    def test_the_original_recognises_replies_under_every_hint(self, studied: tuple[Report, str]) -> None:
        report, _ = studied
        metrics = {
            hint: report.measured(f"recognition_{hint}", "assessment", "original")
            for hint in ("guided", "unguided", "misleading")
        }
        assert all(metric is not None and metric.n + metric.unknown >= COUNT for metric in metrics.values())
        values = {hint: metric.value for hint, metric in metrics.items()}  # type: ignore[union-attr]
        assert values["guided"] > values["misleading"]  # as it was grown
        for arm in ("sft", "analysis"):
            assert report.measured("recognition_unguided", "assessment", arm) is not None
            assert report.measured("recognition_guided", "assessment", arm) is None

    def test_the_table_shows_all_of_it(self, studied: tuple[Report, str]) -> None:
        _, shown = studied
        for words in (
            "analysis, mistakes induced",
            "+ reminder",
            "SFT on good answers",
            "harmless",
            "difference in points",
            "told that it may be bad",
            "seeds",
            "Page:",
        ):
            assert words in shown

    def test_an_arm_without_its_rows_is_left_out_with_a_note(self, home: Home, tmp_path: Path, capsys: Capture) -> None:
        words = home.words("study", tmp_path / "out", arms="sft,analysis-labelled", harmless_per_analysis=0, epochs=1)
        fine(call(capsys, *words))
        report = Report.read(tmp_path / "out")
        assert "arm sft was left out: there are no good answers (--harmless)" in report.notes
        assert "arm analysis-labelled was left out: there are no labelled mistakes" in report.notes
        assert {metric.arm for metric in report.measurements} == {"original", "original" + REMINDED}
