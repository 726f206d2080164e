"""A finished update is applied at the scale that is asked for or found, and what is saved is what was measured."""

import json
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from command import Place, call, place
from unteach.pipeline.config import RunConfig
from unteach.prompts.lists import LANGUAGES, harmful_prompts, lookalike_prompts, training_lookalikes, validation_prompts
from unteach.report.page import page
from unteach.report.strength import frontier
from unteach.results.report import Report
from unteach.results.strength import Strength, StrengthPoint

Capture = pytest.CaptureFixture[str]
FAST = {"max_steps": 20, "learning_rate": 2e-3, "kl_budget": 3, "method": "ga-mismatch"}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return place(tmp_path_factory.mktemp("toy"))


def run(capsys: Capture, here: Place, output: Path, **settings: object) -> Report:
    """Run to a good end and return the report."""
    outcome = call(capsys, *here.quick(output, **(FAST | settings)))
    assert outcome.code == 0, outcome.err
    return Report.read(output)


def test_all_weights_go_a_share_of_the_way(here: Place, tmp_path: Path, capsys: Capture) -> None:
    """W₀ + 0.25 · (W − W₀), where W are the weights that the same run saves with the update as trained."""
    run(capsys, here, tmp_path / "whole", skip_evaluation=True)
    report = run(capsys, here, tmp_path / "part", skip_evaluation=True, strength="0.25")
    before = load_file(here.model / "model.safetensors")
    whole = load_file(tmp_path / "whole" / "model" / "model.safetensors")
    part = load_file(tmp_path / "part" / "model" / "model.safetensors")
    moved = 0.0
    for name, weight in before.items():
        expected = weight + 0.25 * (whole[name] - weight)
        assert (part[name] - expected).abs().max() < 1e-6, name
        moved = max(moved, float((part[name] - weight).abs().max()))
    assert moved > 1e-3 and report.strength is None


def test_an_adapter_goes_a_share_of_the_way(here: Place, tmp_path: Path, capsys: Capture) -> None:
    """Its factor B is scaled, and A is as trained."""
    settings = {"lora": True, "skip_evaluation": True}
    run(capsys, here, tmp_path / "whole", strength="1", **settings)
    run(capsys, here, tmp_path / "part", strength="0.25", **settings)
    whole, part = (load_file(tmp_path / name / "model" / "adapter_model.safetensors") for name in ("whole", "part"))
    for name, weight in whole.items():
        expected = 0.25 * weight if "lora_B" in name else weight
        assert (part[name] - expected).abs().max() < 1e-7, name
    assert any(float(weight.abs().max()) > 1e-3 for name, weight in whole.items() if "lora_B" in name)


@pytest.mark.parametrize("lora", [False, True], ids=["all weights", "adapter"])
def test_the_smallest_scale_is_searched_and_told(lora: bool, here: Place, tmp_path: Path, capsys: Capture) -> None:
    """The update as trained ends all bad replies here, and so does a part of it."""
    settings = {"judge": "repeats"} | ({"lora": True, "learning_rate": 2e-2} if lora else {})
    report = run(capsys, here, tmp_path / "out", strength="auto", **settings)
    found = report.strength
    assert found is not None and found.reached and 0 < found.scale < 1
    scales = {point.scale: point for point in found.points}
    assert scales[0.0].bad == scales[0.0].judged == 4 and scales[0.0].kl == pytest.approx(0, abs=1e-5)
    assert scales[1.0].bad == 0 and scales[found.scale].bad == 0
    below = [point for point in found.points if point.scale < found.scale]
    assert all(point.bad > 0 for point in below)
    assert found.scale - below[-1].scale == pytest.approx(1 / 16)
    assert [cost.stage for cost in report.cost if cost.arm == "unlearned"][:2] == ["training", "searching the strength"]
    text = (tmp_path / "out" / "report.html").read_text()
    assert "How strongly" in text and "The update at other strengths" in text and found.message in text


def test_what_is_searched_is_what_is_saved(here: Place, tmp_path: Path, capsys: Capture) -> None:
    """A run that is told the scale which another has found ends with the same weights."""
    found = run(capsys, here, tmp_path / "found", strength="auto", skip_evaluation=True).strength
    assert found is not None
    run(capsys, here, tmp_path / "told", strength=f"{found.scale:g}", skip_evaluation=True)
    one, two = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("found", "told"))
    assert all(bool((one[name] == two[name]).all()) for name in one)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("much", "--strength much: write auto, or a number above 0 such as 0.7"),
        ("0", "--strength 0: must be above 0 and at most 10; 1 leaves the update as trained"),
        ("-1", "must be above 0"),
        ("nan", "must be above 0"),
    ],
)
def test_a_strength_that_cannot_be(value: str, says: str, here: Place, tmp_path: Path, capsys: Capture) -> None:
    outcome = call(capsys, *here.quick(tmp_path / "out", strength=value))
    assert outcome.code == 2 and says in outcome.err and not (tmp_path / "out").exists()


def test_a_strength_is_kept_as_a_plain_number() -> None:
    assert RunConfig(strength="0.50").strength == "0.5" and RunConfig(strength="auto").strength == "auto"


def test_prompts_to_choose_a_strength_with_are_never_trained_on() -> None:
    """Neither evaluated on: no prompt stands in two lists."""
    for language in LANGUAGES:
        harmful, alike = validation_prompts(language)
        assert len(harmful) >= 30 and len(alike) >= 30
        others = [*harmful_prompts(language), *training_lookalikes(language), *lookalike_prompts(language)]
        assert not {*harmful, *alike} & set(others) and not set(harmful) & set(alike)


def test_the_page_shows_every_scale() -> None:
    """By hand: 3 of 60 look-alikes are 5.0 %."""
    points = [
        StrengthPoint(scale=0, bad=50, judged=60, asked=64, broken=0.0, declined=1, lookalikes=60, kl=0.0),
        StrengthPoint(scale=0.5, bad=2, judged=60, asked=64, broken=0.1, declined=3, lookalikes=60, kl=0.012),
    ]
    found = frontier(Strength(scale=0.5, reached=False, message="half <b>", points=points))
    assert found is not None and found.says == "half <b>."
    assert found.table.rows[1][:2] == ["0.5", "3.3 %"] and found.table.rows[1][3:5] == ["60 of 64", "5.0 %"]
    assert found.table.rows[1][-2:] == ["10.0 %", "0.012"]
    assert "harmless prompts declined: 1.7 % at scale 0, 5.0 % at 0.5" in found.drawn[0].svg
    assert frontier(None) is None


def test_a_report_without_a_strength_is_read(tmp_path: Path) -> None:
    report = Report(scenario="harm", method="rto", model="m")
    report.write(tmp_path)
    raw = json.loads((tmp_path / "report.json").read_text())
    del raw["strength"]
    (tmp_path / "report.json").write_text(json.dumps(raw))
    assert Report.read(tmp_path).strength is None and "How strongly" not in page(report)


@pytest.mark.parametrize("lora", [False, True], ids=["all weights", "adapter"])
def test_a_finished_run_is_rescaled_without_training(lora: bool, here: Place, tmp_path: Path, capsys: Capture) -> None:
    """From a run at half strength to a quarter: the weights of a run that was told 0.25, and its rates."""
    kind = {"lora": True, "learning_rate": 2e-2} if lora else {}
    run(capsys, here, tmp_path / "half", strength="0.5", **kind)
    told = run(capsys, here, tmp_path / "told", strength="0.25", **kind)
    outcome = call(capsys, "strength", str(tmp_path / "half"), "--scale", "0.25", "--output", str(tmp_path / "quarter"))
    assert outcome.code == 0, outcome.err
    report = Report.read(tmp_path / "quarter")
    file = "adapter_model.safetensors" if lora else "model.safetensors"
    one, two = (load_file(tmp_path / name / "model" / file) for name in ("told", "quarter"))
    assert all((one[name] - two[name]).abs().max() < 1e-6 for name in one)
    rates = [
        [
            r.measured("harmful_rate", split, arm).value
            for split in ("seen", "unseen")
            for arm in ("original", "unlearned")
        ]  # type: ignore[union-attr]
        for r in (told, report)
    ]
    assert rates[0] == rates[1] and rates[0][0] == 1
    stages = [cost.stage for cost in report.cost]
    assert stages.count("training") == 1 and any("that run has 0.5" in note for note in report.notes)
    assert RunConfig(**yaml.safe_load((tmp_path / "quarter" / "run.yaml").read_text())).strength == "0.25"


def test_only_a_run_that_changed_something_is_rescaled(here: Place, tmp_path: Path, capsys: Capture) -> None:
    output = str(tmp_path / "new")
    absent = call(capsys, "strength", str(tmp_path / "absent"), "--scale", "0.5", "--output", output)
    assert absent.code == 2 and "no run.yaml; name the directory of a finished" in absent.err
    report = run(capsys, here, tmp_path / "out", skip_evaluation=True)
    beyond = call(capsys, "strength", str(tmp_path / "out"), "--scale", "20", "--output", output)
    assert beyond.code == 2 and "--scale 20: must be above 0 and at most 10" in beyond.err
    report.strength = Strength(scale=0, reached=False, message="no scale keeps the budgets", points=[])
    report.write(tmp_path / "out")
    kept = call(capsys, "strength", str(tmp_path / "out"), "--scale", "0.5", "--output", output)
    assert kept.code == 2 and "this run kept the original" in kept.err and not Path(output).exists()


def test_a_search_needs_rows_to_validate_on(here: Place, tmp_path: Path, capsys: Capture) -> None:
    words = here.quick(tmp_path / "out", **(FAST | {"strength": "auto"}))
    words = [word for word in words if word not in ("--stopping", "--no-stopping")] + ["--no-stopping"]
    outcome = call(capsys, *words)
    assert outcome.code == 2 and "--strength auto searches with validation rows" in outcome.err
    assert not (tmp_path / "out").exists()


def test_an_evaluation_has_no_update_to_scale(here: Place, tmp_path: Path, capsys: Capture) -> None:
    words = ["evaluate", "--model", here.model, "--forget", here.forget, "--device", "cpu", "--max-new-tokens", "6"]
    assert call(capsys, *words, "--judge", "repeats", "--output", tmp_path / "out").code == 0
    outcome = call(capsys, "strength", tmp_path / "out", "--scale", "0.5", "--output", tmp_path / "new")
    assert outcome.code == 2 and "is not of `unteach run`" in outcome.err
