"""unteach stress and run --stress on a toy run: what they leave behind, skip, take up again and refuse."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from command import Outcome, Place, call, place
from unteach.evaluation.attacks import attack_names
from unteach.evaluation.attacks.prefilled import Prefilled
from unteach.results.stress import StressCard

Capture = pytest.CaptureFixture[str]


def begun(outcome: Outcome) -> list[str]:
    """The attacks that a command has made, as "arm: title"."""
    lines = [line.removesuffix(" begins") for line in outcome.progress if line.endswith(" begins")]
    return [line.removeprefix("stress, ") for line in lines if line.startswith("stress, ")]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return place(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def run(here: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that changed nothing."""
    from unteach.pipeline.config import RunConfig
    from unteach.pipeline.run import run as unlearn

    output = tmp_path_factory.mktemp("runs") / "out"
    files: dict[str, Any] = {"forget": [str(here.forget)], "retain": [str(here.retain)]}
    models = {"model": str(here.model), "retrained": str(here.retrained), "device": "cpu"}
    quick: dict[str, Any] = {"max_steps": 1, "learning_rate": 0.0, "method": "npo", "validation_prompts": 4}
    quick |= {"batch_size": 2, "max_new_tokens": 6, "evaluation_prompts": 4, "lookalike_share": 0, "harmful_share": 0}
    judged = {"judge": ["repeats"]}
    unlearn(RunConfig(output=str(output), **files, **models, **quick, **judged))
    return output


def test_a_run_that_unlearned_nothing_fails_visibly(run: Path, capsys: Capture) -> None:
    weights = load_file(run / "model" / "model.safetensors")
    outcome = call(capsys, "stress", run)
    assert outcome.code == 0 and outcome.err == ""
    assert "Comes back under" in outcome.out and "report.html" in outcome.out
    card = StressCard.read(run)
    assert card is not None and [attack.name for attack in card.attacks] == attack_names()
    assert card.arms() == ["original", "unlearned", "retrained"]
    for name in ("as_asked", "relearning", "quantised", "prefilled"):
        found = card.attack(name)
        assert found is not None and found.rows[0].verdict == "comes back", name
        for row in found.rows:
            same = {arm: (rate.value, rate.n) for arm, rate in row.rates.items() if arm != "retrained"}
            assert same["original"] == same["unlearned"], (name, row.level)
        assert {cost.arm for cost in found.cost} == set(card.arms())
        assert all(cost.wall_seconds and cost.tokens is not None for cost in found.cost)
    after = load_file(run / "model" / "model.safetensors")
    assert all((weights[name] == after[name]).all() for name in weights)
    assert 'id="stress"' in (run / "report.html").read_text()
    assert "## Stress" in (run / "README.md").read_text()


def test_what_is_measured_is_kept_and_only_that_of_the_same_model(run: Path, capsys: Capture) -> None:
    two = ["stress", run, "--only", "as_asked,prefilled"]
    call(capsys, *two)
    again = call(capsys, *two)
    assert again.code == 0 and begun(again) == []  # nothing left to do
    anew = call(capsys, "stress", run, "--only", "as_asked", "--again")
    assert begun(anew) == ["unlearned: no attack", "original: no attack", "retrained: no attack"]
    path = run / "stress.json"
    raw = json.loads(path.read_text())
    assert {"as_asked", "prefilled"} <= {attack["name"] for attack in raw["attacks"]}
    raw["made_of"]["model unlearned"] = "another"
    path.write_text(json.dumps(raw))
    assert begun(call(capsys, *two)) == ["unlearned: no attack", "unlearned: prefilled opening"]
    other = call(capsys, "stress", run, "--only", "as_asked", "--preset", "full")
    assert len(begun(other)) == 3
    card = StressCard.read(run)
    assert card is not None and [attack.name for attack in card.attacks] == ["as_asked"]


def test_ctrl_c_keeps_what_is_finished(run: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: Any, target: Any) -> Any:
        raise KeyboardInterrupt

    two = ["stress", run, "--only", "as_asked,prefilled"]
    with monkeypatch.context() as patch:
        patch.setattr(Prefilled, "__call__", interrupt)
        stopped = call(capsys, *two, "--again")
    assert stopped.code == 130 and f"go on with: unteach stress {run}" in stopped.err
    card = StressCard.read(run)
    assert card is not None and [attack.name for attack in card.attacks if attack.done("unlearned")] == ["as_asked"]
    went_on = call(capsys, *two)
    assert went_on.code == 0 and begun(went_on)[0] == "unlearned: prefilled opening"
    assert "unlearned: no attack" not in begun(went_on)


def test_run_and_stress_in_one_command(here: Place, tmp_path: Path, capsys: Capture) -> None:
    words = here.quick(tmp_path / "out", method="ga-mismatch", stress="quick", judge="repeats")
    outcome = call(capsys, *words)
    assert outcome.code == 0, outcome.err
    card = StressCard.read(tmp_path / "out")
    assert card is not None and card.arms() == ["original", "unlearned"]
    lens = card.attack("logit_lens")
    assert lens is not None and {row.verdict for row in lens.rows} == {"not measured"}
    assert call(capsys, *words, "--overwrite", "--stress", "never").code == 2
    assert (tmp_path / "out" / "stress.json").exists()  # refused before anything was removed
    assert call(capsys, *here.quick(tmp_path / "out"), "--overwrite").code == 0
    assert not (tmp_path / "out" / "stress.json").exists()


def test_an_adapter_is_stressed_as_whole_weights(here: Place, tmp_path: Path, capsys: Capture) -> None:
    words = here.quick(tmp_path / "out", lora=True, judge="repeats")
    assert call(capsys, *words).code == 0
    before = (tmp_path / "out" / "model" / "adapter_model.safetensors").read_bytes()
    outcome = call(capsys, "stress", tmp_path / "out", "--only", "as_asked,quantised,pruned")
    assert outcome.code == 0, outcome.err
    card = StressCard.read(tmp_path / "out")
    assert card is not None and card.attack("pruned").rows[0].rates["unlearned"].n > 0  # type: ignore[union-attr]
    assert (tmp_path / "out" / "model" / "adapter_model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{nowhere}"], "no run.yaml; name the directory of a finished `unteach run`"),
        (["{run}", "--preset", "long"], "--preset long: unknown"),
        (["{run}", "--only", "prefiled"], "did you mean 'prefilled'?"),
        ([], "RUN is missing"),
    ],
)
def test_what_cannot_be_is_refused(words: list[str], message: str, run: Path, tmp_path: Path, capsys: Capture) -> None:
    before = sorted(os.listdir(run))
    outcome = call(capsys, "stress", *(word.format(run=run, nowhere=tmp_path) for word in words))
    assert outcome.code == 2 and message in outcome.err and outcome.err.count("\n") == 1
    assert sorted(os.listdir(run)) == before


def test_a_run_without_a_model_or_of_another_kind(run: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "run.yaml").write_text("model: x\nforget: [y]\n")
    assert "no model/" in call(capsys, "stress", tmp_path).err
    (tmp_path / "model").mkdir()
    (tmp_path / "run.yaml").write_text("baseline: sft\nmodel: x\n")
    assert "is not of `unteach run`" in call(capsys, "stress", tmp_path).err
    assert call(capsys, "run", "--stress", "quick", "--seeds", "2", "--model", run, "--output", tmp_path).code == 2


def test_the_attacks_are_listed(capsys: Capture) -> None:
    listed = call(capsys, "stress", "--list").out
    assert [line.split()[0] for line in listed.splitlines()] == attack_names()
