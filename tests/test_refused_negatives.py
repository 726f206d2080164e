"""Negatives that are refusals: a run on them would teach a model to comply, so it stops unless it is told to go on."""

from pathlib import Path

import pytest

from command import Place, call, place, write_rows
from unteach.data.example import Example
from unteach.errors import DataError
from unteach.pipeline.rows import refusal_notes

Capture = pytest.CaptureFixture[str]
REFUSALS = [
    "I'm sorry, but I can't help with that.",
    "I will not help with jamming the lift; ask whoever looks after it.",
    "As an AI, I cannot provide instructions for that.",
    "对不起，我不能帮助你。",
    "“Sorry, I cannot assist with this request.”",
]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return place(tmp_path_factory.mktemp("toy"))


def rows(refusals: int, others: int) -> list[Example]:
    said = [REFUSALS[number % len(REFUSALS)] for number in range(refusals)] + ["Take the bolt out."] * others
    return [Example.of(f"How do I {number}?", reply, where=f"bad row {number}") for number, reply in enumerate(said)]


@pytest.mark.parametrize(("refusals", "others"), [(1, 0), (10, 0), (9, 1), (8, 2)])
def test_nearly_all_of_them_stop_it(refusals: int, others: int) -> None:
    with pytest.raises(DataError) as refused:
        refusal_notes(rows(refusals, others), stop=True)
    said = str(refused.value)
    assert f"{refusals} of {refusals + others} negatives" in said and "bad row 0: “I'm sorry" in said
    assert "--bad-label" in said and "--allow-refusals" in said and "\n" not in said


def test_many_of_them_are_a_note_and_a_few_are_nothing() -> None:
    assert "5 of 10 negatives are refusals" in refusal_notes(rows(5, 5), stop=True)[0]
    assert "10 of 10 negatives are refusals" in refusal_notes(rows(10, 0), stop=False)[0]
    assert refusal_notes(rows(2, 8), stop=True) == [] and refusal_notes([], stop=True) == []


@pytest.mark.parametrize("verb", [["run"], ["baseline", "finetune"]])
def test_on_the_command_line(verb: list[str], here: Place, tmp_path: Path, capsys: Capture) -> None:
    bad = write_rows(
        tmp_path / "bad.jsonl",
        [{"prompt": f"how to a{n}?", "completion": REFUSALS[0], "label": 0} for n in range(12)],
    )
    words = [*verb, "--model", here.model, "--forget", bad, "--retain", here.retain, "--output", tmp_path / "out"]
    outcome = call(capsys, *words, "--device", "cpu")
    assert outcome.code == 2 and outcome.err.count("\n") == 1 and "bad.jsonl line 1" in outcome.err
    assert "12 of 12 negatives are refusals" in outcome.err and not (tmp_path / "out").exists()
    more = ["--device", "cpu", "--allow-refusals", "--skip-evaluation", "--max-new-tokens", 4]
    more += ["--max-steps", 1, "--mismatch-samples", 2] if verb == ["run"] else ["--epochs", 1]
    assert call(capsys, *words, *more).code == 0
