"""`unteach data show`: what it says of a file, of its columns and labels, and of the rows as a model will see them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import toy
from command import call, save, write_rows
from unteach.data.shown import form_of
from unteach.prompts.turn import Turn
from unteach.text.escape import inert_line

CASES = Path(__file__).parents[2] / "shared" / "cases" / "data"
ROWS = [
    {"Prompt": f"May I paint the fence {n}?", "Reply": f"Only on day {n}.", "label": n % 2, "mood": "calm", "id": n}
    for n in range(6)
]


def table(out: str, title: str) -> dict[str, str]:
    """The rows of a table by their first cell."""
    lines = out[out.index(f"\n{title} ") :].split("\n")[3:]
    cells = [re.split(r" {2,}", line.strip()) for line in lines[: [*map(str.strip, lines), ""].index("")]]
    return {row[0]: " ".join(row[1:]) for row in cells}


def test_a_file_is_accounted_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = call(capsys, "data", "show", write_rows(tmp_path / "rows.jsonl", ROWS))
    assert shown.code == 0 and not shown.err
    assert "rows.jsonl: 6 rows" in shown.out and "3 negatives with --forget, 3 normal rows with --retain" in shown.out
    assert table(shown.out, "column") == {
        "Prompt": "prompt",
        "Reply": "reply",
        "label": "label",
        "mood": "not read",
        "id": "ignored: says which row it is",
    }
    assert table(shown.out, "label   rows") == {"0": "3 bad", "1": "3 good"}
    assert "3 of 3 negative rows as the model will see them" in shown.out
    assert re.search(r"^user +May I paint the fence 0\?$", shown.out, re.MULTILINE)
    assert re.search(r"^reply +Only on day 0\. *$", shown.out, re.MULTILINE)
    assert "give --bad-label '1'" in shown.out.replace("\n", " ")


def test_what_the_user_says_about_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"ask": {"text": row["Prompt"]}, "said": row["Reply"], "mark": "abc"[row["label"]]} for row in ROWS]
    source = write_rows(tmp_path / "rows.jsonl", rows)
    words = ["--column", "prompt=ask.text", "--column", "reply=said", "--column", "label=mark", "--bad-label", "b"]
    shown = call(capsys, "data", "show", source, *words, "--as", "normal")
    assert shown.code == 0 and "3 normal rows as the model will see them" in shown.out.replace("3 of ", "")
    assert table(shown.out, "column")["ask.text"] == "prompt" and table(shown.out, "mark   rows") == {
        "a": "3 good",
        "b": "3 bad",
    }
    assert "Only on day 0." in shown.out and "Only on day 1." not in shown.out


def test_rows_in_a_model_s_template(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save(toy.model(), tmp_path / "model")
    rows = write_rows(tmp_path / "rows.jsonl", [{"prompt": "q", "completion": "a"}])
    shown = call(capsys, "data", "show", rows, "--model", model)
    form, asked = form_of(str(model)), [Turn("user", "q")]
    ids = form.prompt_ids(asked), form.reply_ids(asked, "a")
    text = form.tokenizer.decode([*ids[0], *ids[1]])
    assert shown.code == 0 and " ".join(text.split()) in " ".join(shown.out.split())
    assert f"prompt {len(ids[0])} to {len(ids[0])}" in shown.out


@pytest.mark.parametrize(
    ("rows", "words", "said"),
    [
        ([{"ask": "q", "told": "a"}], [], "no known layout has the columns ask, told"),
        ([{"prompt": "q", "completion": "a", "label": word} for word in "abc"], [], "'a': 1 rows, 'b': 1 rows"),
        ([{"prompt": "q", "completion": ""}], [], "rows.jsonl line 1: the reply is empty"),
        ([{"prompt": "q", "completion": "a"}], ["--bad-label", "x"], "no column is read as a label"),
        ([{"prompt": "q", "completion": "a"}], ["--as", "norml"], "did you mean 'normal'?"),
    ],
)
def test_an_error_is_one_line_below_what_could_be_found_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: list[dict[str, Any]], words: list[str], said: str
) -> None:
    shown = call(capsys, "data", "show", write_rows(tmp_path / "rows.jsonl", rows), *words)
    assert shown.code == 2 and said in shown.err and shown.err.count("\n") == 1
    assert words[:1] == ["--as"] or table(shown.out, "column").keys() == rows[0].keys()


def test_nothing_in_a_file_takes_effect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nasty = "\x1b[2J[bold]x[/bold]\u202e"
    rows = [{"prompt": nasty, "completion": nasty, "category": nasty, nasty: nasty, "label": f"bad{nasty}"}]
    for words in ([], ["--bad-label", f"bad{nasty}"]):
        shown = call(capsys, "data", "show", write_rows(tmp_path / "rows.jsonl", rows), *words)
        assert "\x1b[2J" not in shown.out + shown.err and "\u202e" not in shown.out + shown.err
        assert "[bold]" in shown.out


@pytest.mark.real
@pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/cases beside the checkout")
class TestSharedCases:
    NAMES = sorted(path.name for path in CASES.iterdir()) if CASES.is_dir() else []
    REFUSED = {"cp1252.csv": "not UTF-8", "rule.yaml": "cannot be read"}

    @pytest.mark.parametrize("name", NAMES)
    def test_every_file_is_shown_or_refused_in_one_line(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        shown = call(capsys, "data", "show", CASES / name)
        if name in self.REFUSED:
            assert shown.code == 2 and self.REFUSED[name] in shown.err and shown.err.count("\n") == 1
            return
        assert shown.code == 0 and not shown.err, shown.err
        first = CASES / name
        if first.suffix == ".jsonl" and first.read_bytes()[:1] == b"{" and name != "pretty.jsonl":
            columns = json.loads(first.read_text().split("\n")[0])
            assert table(shown.out, "column").keys() == {inert_line(column, 40) for column in columns}
        assert "not read" not in table(shown.out, "column").values() or name == "hh_prompt_marks.jsonl"
