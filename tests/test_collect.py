"""unteach collect: a model's own bad replies as negatives."""

import json
from pathlib import Path
from typing import Any

import pytest

import toy
from command import Place, call, place
from unteach.data.reading import read
from unteach.mistakes import ask as asking
from unteach.models import generate

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return place(tmp_path_factory.mktemp("place"))


def words(here: Place, output: Path, *more: object) -> list[str]:
    given = ["collect", "--model", here.model, "--output", output, "--device", "cpu", "--max-new-tokens", 12, *more]
    return list(map(str, given))


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_bad_replies_become_negatives(here: Place, tmp_path: Path, capsys: Capture) -> None:
    """The model recites the known bad replies; asked as they stand, the prompts bring them all out."""
    output = tmp_path / "negatives.jsonl"
    outcome = call(capsys, *words(here, output, "--prompts", here.forget, "--judge", "repeats"))
    assert outcome.code == 0, outcome.err
    rows = rows_of(output)
    assert f"{len(rows)} negatives are in {output}" in outcome.out
    assert "bad replies 100.0% [" in outcome.out and f"of {len(toy.FORGET)} prompts" in outcome.out
    assert {row["prompt"] for row in rows} == {row["prompt"] for row in toy.FORGET}
    assert {(row["source"], row["wording"], row["judge"], row["label"]) for row in rows} == {
        ("collected", "as asked", "repeats", False)
    }
    assert [example.reply for example in read(str(output), "negative").examples] == [row["completion"] for row in rows]


def test_the_shipped_prompts_are_asked_where_none_are_given(
    here: Place, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [row["prompt"] for row in toy.FORGET]
    monkeypatch.setattr("unteach.mistakes.steps.harmful_prompts", lambda: prompts)
    output, rules = tmp_path / "negatives.jsonl", tmp_path / "rules.yaml"
    rules.write_text("keywords: [take]\n")
    assert call(capsys, *words(here, output, "--judge", f"rule:{rules}")).code == 0
    assert [row["prompt"] for row in rows_of(output)] == prompts
    few = tmp_path / "few.jsonl"
    assert call(capsys, *words(here, few, "--judge", f"rule:{rules}", "--most-rows", 3)).code == 0
    asked = [row["prompt"] for row in rows_of(few)]
    assert len(asked) == 3 and asked != prompts[:3] and asked == [one for one in prompts if one in asked], "drawn"


def test_no_bad_reply_is_an_error_and_leaves_nothing(here: Place, tmp_path: Path, capsys: Capture) -> None:
    """Without --judge, complies decides: these replies share no word with their prompts."""
    output, prompts = tmp_path / "negatives.jsonl", tmp_path / "prompts.txt"
    prompts.write_text("".join(f"{row['prompt']}\n" for row in toy.RETAIN))
    outcome = call(capsys, *words(here, output, "--prompts", prompts))
    assert outcome.code == 2 and "the model gave no bad reply (bad replies 0.0%" in outcome.err
    assert not output.exists()


def test_it_never_overwrites(here: Place, tmp_path: Path, capsys: Capture) -> None:
    output = tmp_path / "negatives.jsonl"
    output.write_text("mine\n")
    outcome = call(capsys, *words(here, output, "--prompts", here.forget, "--judge", "repeats"))
    assert outcome.code == 2 and "is there already" in outcome.err and output.read_text() == "mine\n"


def test_what_was_broken_off_goes_on(
    here: Place, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replies are kept as they come: the same command again asks only what is missing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(asking, "AT_ONCE", 2)
    given, asked = generate.generate, list[int]()

    def breaking(model: Any, tokenizer: Any, prompts: Any, **settings: Any) -> Any:
        if len(asked) == 1:
            asked.append(0)
            raise KeyboardInterrupt
        asked.append(len(prompts))
        return given(model, tokenizer, prompts, **settings)

    monkeypatch.setattr(generate, "generate", breaking)
    output = tmp_path / "negatives.jsonl"
    command = words(here, output, "--prompts", here.forget, "--judge", "repeats")
    assert call(capsys, *command).code == 130 and not output.exists()
    assert call(capsys, *command).code == 0
    assert asked[0] == 2 and sum(asked) == len(toy.FORGET)
