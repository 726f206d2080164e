"""unteach run --dry-run: the same rows and settings as the run, counted; nothing is written."""

import re
from pathlib import Path

import pytest

from command import Place, call, place
from unteach.models import kept_replies
from unteach.pipeline import dry_run as planning
from unteach.pipeline.config import RunConfig, with_defaults
from unteach.pipeline.prepare import prepare
from unteach.pipeline.settings import make_config
from unteach.pipeline.stages import Rates, Stage, Unasked, stages_of
from unteach.pipeline.train import make_trainer
from unteach.results.report import Report

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return place(tmp_path_factory.mktemp("place"))


def planned(capsys: Capture, here: Place, output: Path, **changed: object) -> str:
    outcome = call(capsys, *here.quick(output, **changed), "--dry-run")
    assert outcome.code == 0, outcome.err
    assert not output.exists()
    return outcome.out


def test_it_names_what_the_run_would_use(here: Place, tmp_path: Path, capsys: Capture) -> None:
    out = planned(capsys, here, tmp_path / "out", validation_prompts=8)
    assert re.search(r"^\S+/model: [\d.]+ k parameters, all weights, on cpu", out)
    assert "--method rto" in out and "--learning-rate" in out and "--lookalike-share" in out
    assert re.search(r"^negatives: \d+ to train on, \d+ to validate on$", out, re.MULTILINE)
    for line in ("reading the negatives", "the original on normal rows", "training, 3 steps", "validation, 2 times"):
        assert re.search(rf"^{line} +[\d.]+ ?k? +[\d.]+ [kMG]FLOP +[\d.]+ s$", out, re.MULTILINE), line
    assert re.search(r"^in all ", out, re.MULTILINE) and "memory: " in out and "disk: the model " in out


def test_its_tokens_are_those_of_the_run(here: Place, tmp_path: Path, capsys: Capture) -> None:
    """Training reads what was counted, to the token; the rest is what there is at most."""
    words = here.quick(tmp_path / "out", no_stopping=True)
    assert call(capsys, *words).code == 0
    told = {cost.stage: cost for cost in Report.read(tmp_path / "out").cost}
    config = with_defaults(make_config(as_settings(words), RunConfig))
    prepared = prepare(config, tmp_path)
    made = make_trainer(prepared)
    stages = {stage.name: stage for stage in stages_of(prepared, made.model, made.method)}
    assert stages["training, 3 steps"].backward == told["training"].tokens_backward
    assert stages["reading the negatives"].forward == told["reading the negatives"].tokens_forward
    evaluated = [cost for cost in Report.read(tmp_path / "out").cost if cost.stage in ("evaluation", "fluency")]
    most = stages["evaluation of 2 arms"]
    assert sum(cost.tokens_generated for cost in evaluated) <= most.generated
    assert sum(cost.tokens_forward for cost in evaluated) <= most.forward


def as_settings(words: list[str]) -> dict[str, object]:
    """Flags of `run` as fields of its config."""
    names = {name: number for number, name in enumerate(words) if name.startswith("--")}
    found: dict[str, object] = {}
    for name, number in names.items():
        value = words[number + 1] if number + 1 < len(words) and not words[number + 1].startswith("--") else True
        field = name.removeprefix("--").replace("-", "_")
        if field == "no_stopping":
            field, value = "stopping", False
        found[field] = [value] if field in ("forget", "retain") else value
    return found


def test_no_answer_is_asked_for(here: Place, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_replies, "generate_cached", lambda *args, **settings: pytest.fail("the model was asked"))
    monkeypatch.setattr("unteach.data.own_answers.generate_cached", lambda *args, **settings: pytest.fail("asked"))
    out = planned(capsys, here, tmp_path / "out", retain=None, lookalike_share=0.3)
    assert re.search(r"^own answers +", out, re.MULTILINE)


def test_an_adapter_reads_the_original_inside_its_steps(here: Place, tmp_path: Path, capsys: Capture) -> None:
    out = planned(capsys, here, tmp_path / "out", lora=True)
    assert "LoRA of rank 16" in out and "the original on normal rows" not in out


def test_errors_are_those_of_the_run(here: Place, tmp_path: Path, capsys: Capture) -> None:
    outcome = call(capsys, "run", "--model", here.model, "--dry-run")
    assert outcome.code == 2 and "--forget is missing" in outcome.err
    outcome = call(capsys, *here.quick(tmp_path / "out", method="nop"), "--dry-run")
    assert outcome.code == 2 and "did you mean 'npo'" in outcome.err


def test_time_is_tokens_by_measured_speed() -> None:
    stage = Stage("training", forward=10, backward=100, generated=5, within=1000)
    assert Rates(0.1, 0.5, 2.0).of(stage) == pytest.approx(10 * 0.1 + 100 * 0.5 + 5 * 2.0)
    assert stage.tokens == 1115


def test_stand_ins_are_as_long_as_may_be(here: Place) -> None:
    original = planning.prepare(
        with_defaults(
            RunConfig(model=str(here.model), forget=[str(here.forget)], retain=[str(here.retain)], device="cpu")
        ),
        Path("unused"),
    ).original
    unasked = Unasked()
    (row,) = unasked([("What is it?", "prompt 1")], original.model, original.form, max_new_tokens=12, key=None)
    length = len(original.form.reply_ids(row.turns, row.reply, cut=True))
    assert row.cut and 6 <= length <= 13 and unasked.stages[0].generated == 12


@pytest.mark.parametrize("method", ["repselect", "repselect-template"])
def test_a_direction_is_planned_as_it_is_taken(here: Place, tmp_path: Path, capsys: Capture, method: str) -> None:
    words = here.quick(tmp_path / "out", method=method, validation_prompts=8)
    outcome = call(capsys, *words, "--dry-run")
    assert outcome.code == 0, outcome.err
    assert not (tmp_path / "out").exists()
    assert re.search(r"^finding the direction +[\d.]+ ?k? ", outcome.out, re.MULTILINE)
    assert ("training, 3 steps" in outcome.out) == (method == "repselect-template")
    assert call(capsys, *words).code == 0
    report = Report.read(tmp_path / "out")
    assert any("moved along one direction" in note for note in report.notes)
    if method == "repselect":
        config = with_defaults(make_config(as_settings(words), RunConfig))
        prepared = prepare(config, tmp_path)
        made = make_trainer(prepared)
        planned = {stage.name: stage for stage in stages_of(prepared, made.model, made.method)}
        told = next(cost for cost in report.cost if cost.stage == "training")
        assert 0 < told.tokens_backward <= planned["finding the direction"].backward
        assert report.stop.rule == "disruption budget" and (tmp_path / "out" / "model").is_dir()
