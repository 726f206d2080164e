"""The reply cache: what counts as the same question, what is ignored, what is removed, and who uses it."""

import json
import os
import stat
from pathlib import Path

import pytest
import torch

import toy
from command import call, place
from unteach.evaluation import evaluation
from unteach.models import generate
from unteach.models import kept_replies as replies
from unteach.models.fingerprint import model_fingerprint
from unteach.models.kept_replies import KeptReplies, generate_cached
from unteach.pipeline import measure, run
from unteach.results.report import Report

PROMPTS = [[1, 20, 21], [1, 22], [1, 23, 24, 25]]


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def entries(directory: Path) -> list[Path]:
    return sorted((directory / "unteach" / "replies").rglob("*.json"))


def ask(model=None, words=None, prompts=PROMPTS, key="weights", max_new_tokens=5, **settings):
    return generate_cached(
        model or toy.model(), words or toy.tokenizer(), prompts, key=key, max_new_tokens=max_new_tokens, **settings
    )


def test_known_replies_are_those_that_were_generated_and_the_model_is_not_asked(tmp_path, monkeypatch):
    first = ask()
    assert not isinstance(first, KeptReplies) and len(entries(tmp_path)) == 1
    assert first == generate.generate(toy.model(), toy.tokenizer(), PROMPTS, max_new_tokens=5)
    monkeypatch.setattr(generate, "generate", lambda *args, **kwargs: pytest.fail("it was asked again"))
    seen = []
    again = ask(progress=lambda *done: seen.append(done))
    assert isinstance(again, KeptReplies) and list(again) == first and seen == [(3, 3)]
    assert stat.S_IMODE(entries(tmp_path)[0].stat().st_mode) == 0o600


def test_nothing_asked_is_nothing_kept(tmp_path):
    assert ask(prompts=[]) == [] and entries(tmp_path) == []


def test_without_a_key_nothing_is_kept_or_taken(tmp_path):
    ask()
    assert not isinstance(ask(key=None), KeptReplies)
    assert len(entries(tmp_path)) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"key": "others"},
        {"prompts": [*PROMPTS[:2], [1, 23, 24, 26]]},
        {"prompts": PROMPTS[::-1]},
        {"max_new_tokens": 6},
        {"temperature": 1.0},
        {"words": toy.tokenizer(eos_token="<pad>")},
        {"model": toy.model(rope_parameters={"rope_type": "default", "rope_theta": 50.0})},
        {"model": toy.model().to(torch.bfloat16)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_another_question_is_asked_anew(tmp_path, changed):
    ask()
    assert not isinstance(ask(**changed), KeptReplies)
    assert len(entries(tmp_path)) == 2


def test_the_seed_counts_where_replies_are_drawn_only(tmp_path):
    ask(seed=1)
    assert isinstance(ask(seed=2), KeptReplies)
    drawn = ask(seed=1, temperature=2.0)
    other = ask(seed=2, temperature=2.0)
    assert not isinstance(other, KeptReplies) and other != drawn
    assert ask(seed=1, temperature=2.0) == drawn


BROKEN = ["", "{", "[]", '{"replies": ["a"]}', '{"replies": [1, 2, 3]}', "\ud800", "[" * 9999]
BROKEN += ['{"replies": [["a"], [1], [2]]}', '{"replies": ["a", "b", "c"]}', '{"replies": [[-1], [1], [2]]}']


@pytest.mark.parametrize("content", BROKEN)
def test_a_broken_entry_is_made_again(tmp_path, content):
    first = ask()
    [path] = entries(tmp_path)
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    assert not isinstance(ask(), KeptReplies)
    assert json.loads(path.read_text())["content"]["replies"] == [list(reply.ids) for reply in first]


def test_an_entry_with_another_token_in_it_is_made_again(tmp_path):
    """Of the right form and length, so that only the checksum tells."""
    first = ask()
    [path] = entries(tmp_path)
    kept = json.loads(path.read_text())
    kept["content"]["replies"][0][0] += 1
    path.write_text(json.dumps(kept))
    again = ask()
    assert not isinstance(again, KeptReplies) and again == first


def test_a_disk_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "unteach").write_text("a file in the way")
    assert len(ask()) == 3

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    monkeypatch.setattr(os, "fsync", full)
    assert len(ask()) == 3
    assert [path for path in (tmp_path / "other").rglob("*") if path.is_file()] == []


def test_what_was_not_used_for_longest_goes(tmp_path, monkeypatch):
    for number in range(4):
        ask(key=f"weights {number}")
        for path in entries(tmp_path):  # an hour passes
            os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 3600))
    size = max(path.stat().st_size for path in entries(tmp_path))
    assert isinstance(ask(key="weights 0"), KeptReplies)  # used again: now the newest
    monkeypatch.setattr(replies, "MOST_BYTES", 3 * size)
    ask(key="weights 4")
    assert len(entries(tmp_path)) <= 3
    assert isinstance(ask(key="weights 0"), KeptReplies) and isinstance(ask(key="weights 4"), KeptReplies)
    assert not isinstance(ask(key="weights 1"), KeptReplies)


def test_a_second_check_takes_the_replies_of_unchanged_models_from_disk(tmp_path, capsys):
    here = place(tmp_path / "toy")
    words = [
        "evaluate",
        "--model",
        here.retrained,
        "--original",
        here.model,
        "--forget",
        here.forget,
        "--device",
        "cpu",
    ]
    words += ["--evaluation-prompts", 4, "--max-new-tokens", 6, "--samples", 2]
    reports = []
    for name in ("first", "again"):
        assert call(capsys, *words, "--output", tmp_path / name).code == 0
        reports.append(Report.read(tmp_path / name))
    first, again = reports
    assert first.samples == again.samples and first.measurements == again.measurements
    checking = [[cost.tokens for cost in report.cost if cost.stage == "evaluation"] for report in reports]
    assert all(before > 2 * after > 0 for before, after in zip(*checking, strict=True))  # type: ignore[operator]


def test_a_model_that_training_moved_is_always_asked(tmp_path, capsys, monkeypatch):
    keys = {}
    real = evaluation.evaluate_arm

    def noted(checked, arm, model, reference=None, key=None):
        keys[arm] = (key, model_fingerprint(model))
        real(checked, arm, model, reference, key)

    for module in (measure, run):
        monkeypatch.setattr(module, "evaluate_arm", noted)
    here = place(tmp_path / "toy")
    for number in range(2):
        done = call(capsys, *here.quick(tmp_path / f"out{number}", retrained=here.retrained, lora=bool(number) or None))
        assert done.code == 0, done.err
        assert keys["unlearned"][0] is None
        assert keys["retrained"][0] == keys["retrained"][1]
    assert keys["original"][0] == model_fingerprint(toy.learned_model())  # without the adapter that stood on it
    samples = Report.read(tmp_path / "out1").samples
    assert {s.prompt: s.replies["original"] for s in samples} == {
        s.prompt: s.replies["original"] for s in Report.read(tmp_path / "out0").samples
    }
