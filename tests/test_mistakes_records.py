"""Mistakes and analyses on disk and back, with where they come from; prompts out of whatever a user has."""

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from command import write_rows
from unteach.data.example import Example
from unteach.data.reading import HowToRead, read_examples
from unteach.errors import ConfigError, DataError
from unteach.mistakes.records import (
    MISTAKE_SOURCES,
    Analysis,
    Mistake,
    MistakeSource,
    Origin,
    read_analyses,
    read_mistakes,
    read_prompts,
    write_analyses,
    write_mistakes,
)
from unteach.prompts.turn import Turn

TALK = (Turn("system", "s"), Turn("user", "q1"), Turn("assistant", "a1"), Turn("user", "q2 \u2028 end"))
FULL = Origin("induced", "models/a", 7, "1", 2, "rules", "unknown")
MISTAKES = [
    Mistake(Example.of("q", "bad"), Origin("labelled")),
    Mistake(Example.of("q {x}\n", "bad\nworse", good="g", concept="theft"), Origin("reported", judge="a person")),
    Mistake(Example(TALK, "bad", good="g\u2029g", concept="c"), FULL),
    Mistake(Example.of("q0", "bad"), Origin("induced", "m", 0, "0", 0, "j", "bad")),
]
PKU = {
    "prompt": "q",
    "response_0": "w0",
    "response_1": "w1",
    "is_response_0_safe": False,
    "is_response_1_safe": False,
}
HH = {"chosen": "\n\nHuman: q\n\nAssistant: good", "rejected": "\n\nHuman: q\n\nAssistant: bad"}
PAIR = {"prompt": "q", "chosen": "good", "rejected": "bad"}
TRUTH = {"question": "q", "best_answer": "g", "incorrect_answers": ["w1", "w2"], "source": "https://example.org/a"}


def kept(mistake: Mistake) -> tuple[Any, ...]:
    """All of a mistake but the file and row it stands in."""
    example = mistake.example
    return example.turns, example.reply, example.good, example.concept, mistake.origin


def rows_at(tmp_path: Path, *rows: dict[str, Any]) -> str:
    return str(write_rows(tmp_path / "rows.jsonl", rows))


def table_at(tmp_path: Path, text: str) -> str:
    (tmp_path / "rows.csv").write_text(text)
    return str(tmp_path / "rows.csv")


def asked(examples: list[Example]) -> list[tuple[str, str | None, str | None]]:
    """Prompt, bad and good of prompts; none has a reply."""
    assert [example.reply for example in examples] == [""] * len(examples)
    return [(example.prompt, example.bad, example.good) for example in examples]


class TestWrittenAndReadBack:
    def test_mistakes_come_back_whole(self, tmp_path: Path) -> None:
        path = write_mistakes(tmp_path / "new" / "mistakes.jsonl", MISTAKES)
        back = read_mistakes(str(path), "reported")  # the default is for rows without a source alone
        assert [kept(mistake) for mistake in back] == [kept(mistake) for mistake in MISTAKES]
        assert [mistake.example.where for mistake in back][2] == "mistakes.jsonl line 3"

    def test_analyses_come_back_whole(self, tmp_path: Path) -> None:
        analyses = [
            Analysis(mistake, f"Bad.\nIt is {n}.", analyst, version)
            for n, (mistake, analyst, version) in enumerate(
                zip(MISTAKES, ["m", "openai:x", "", "a person"], ["1", "", "2", "3"], strict=True)
            )
        ]
        back = read_analyses(str(write_analyses(tmp_path / "analyses.jsonl", analyses)))
        assert [kept(analysis.mistake) for analysis in back] == [kept(mistake) for mistake in MISTAKES]
        assert [(a.text, a.analyst, a.wording) for a in back] == [
            ("Bad.\nIt is 0.", "m", "1"),
            ("Bad.\nIt is 1.", "openai:x", ""),
            ("Bad.\nIt is 2.", "", "2"),
            ("Bad.\nIt is 3.", "a person", "3"),
        ]

    def test_a_person_can_read_the_rows(self, tmp_path: Path) -> None:
        path = write_mistakes(tmp_path / "mistakes.jsonl", [MISTAKES[0], MISTAKES[2]])
        assert [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]] == [
            {"prompt": "q", "completion": "bad", "label": False, "source": "labelled"},
            {
                "prompt": [
                    {"role": "system", "content": "s"},
                    {"role": "user", "content": "q1"},
                    {"role": "assistant", "content": "a1"},
                    {"role": "user", "content": "q2 \u2028 end"},
                ],
                "completion": [{"role": "assistant", "content": "bad"}],
                "label": False,
                "good": "g\u2029g",
                "concept": "c",
                "source": "induced",
                "model": "models/a",
                "seed": 7,
                "wording": "1",
                "inducement": 2,
                "judge": "rules",
                "verdict": "unknown",
            },
        ]
        analysed = write_analyses(tmp_path / "a.jsonl", [Analysis(MISTAKES[0], "Bad.", "m", "1")])
        assert json.loads(analysed.read_text(encoding="utf-8")) == {
            "prompt": "q",
            "reply": "bad",
            "analysis": "Bad.",
            "label": False,
            "source": "labelled",
            "analyst": "m",
            "analysis_wording": "1",
        }

    def test_the_forget_set_of_a_run_reads_the_same_file_as_negatives(self, tmp_path: Path) -> None:
        path = str(write_mistakes(tmp_path / "mistakes.jsonl", MISTAKES))
        negatives = read_examples(path, "negative")
        assert [(e.turns, e.reply, e.good, e.concept) for e in negatives] == [kept(m)[:4] for m in MISTAKES]
        with pytest.raises(
            DataError, match=r"none of its 4 rows \(layout: labelled replies with their source\) gives a normal"
        ):
            read_examples(path, "normal")

    def test_half_a_character_crashes_no_writing(self, tmp_path: Path) -> None:
        mistake = Mistake(Example.of("q\ud83d", "bad \udc00!", good="\ud83d\ude00"), Origin(model="m\ud800"))
        [back] = read_mistakes(str(write_mistakes(tmp_path / "m.jsonl", [mistake])))
        assert kept(back) == (
            (Turn("user", "q\ufffd"),),
            "bad \ufffd!",
            "\U0001f600",
            None,
            Origin("labelled", model="m\ufffd"),
        )
        [analysis] = read_analyses(str(write_analyses(tmp_path / "a.jsonl", [Analysis(mistake, "Bad \ud800.")])))
        assert analysis.text == "Bad \ufffd."
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "m.jsonl"]

    def test_a_blank_turn_beside_others_is_no_plain_prompt(self, tmp_path: Path) -> None:
        turns = (Turn("system", "s"), Turn("user", " "))
        [back] = read_mistakes(str(write_mistakes(tmp_path / "m.jsonl", [Mistake(Example(turns, "bad"))])))
        assert back.example.turns == turns


class TestMistakesOfOthers:
    @pytest.mark.parametrize("default", MISTAKE_SOURCES)
    @pytest.mark.parametrize(
        ("row", "found"),
        [
            (PAIR, [("bad", "good", "rows.jsonl line 1")]),
            (HH, [("bad", "good", "rows.jsonl line 1")]),
            ({"prompt": "q", "response": "bad", "is_safe": False}, [("bad", None, "rows.jsonl line 1")]),
            (TRUTH, [("w1", "g", "rows.jsonl line 1"), ("w2", "g", "rows.jsonl line 1")]),
            (
                PKU,
                [("w0", None, "rows.jsonl line 1, response_0"), ("w1", None, "rows.jsonl line 1, response_1")],
            ),
            (PKU | {"is_response_0_safe": True}, [("w1", "w0", "rows.jsonl line 1, response_1")]),
        ],
    )
    def test_negatives_of_any_format_are_mistakes_of_the_default_source(
        self, tmp_path: Path, row: dict[str, Any], found: list[Any], default: MistakeSource
    ) -> None:
        mistakes = read_mistakes(rows_at(tmp_path, row), default)
        assert [(m.example.reply, m.example.good, m.example.where) for m in mistakes] == found
        assert {m.example.prompt for m in mistakes} == {"q"} and {m.origin for m in mistakes} == {Origin(default)}

    @pytest.mark.parametrize("row", [PAIR, HH, PKU])
    def test_rows_of_any_format_may_say_where_they_come_from(self, tmp_path: Path, row: dict[str, Any]) -> None:
        source = rows_at(tmp_path, row | {"source": "reported", "model": "m", "seed": 3})
        assert {mistake.origin for mistake in read_mistakes(source)} == {Origin("reported", "m", 3)}

    def test_files_of_one_name_in_one_folder_are_not_confused(self, tmp_path: Path) -> None:
        for folder, source in (("a", "reported"), ("b", "labelled")):
            (tmp_path / folder).mkdir()
            write_rows(tmp_path / folder / "rows.jsonl", [{"prompt": folder, "completion": "x", "source": source}])
        mistakes = read_mistakes(str(tmp_path))
        assert [(m.example.prompt, m.origin.source) for m in mistakes] == [("a", "reported"), ("b", "labelled")]

    def test_columns_can_be_named(self, tmp_path: Path) -> None:
        source = rows_at(tmp_path, {"source": "q", "said": "bad", "model": "m"})  # here "source" is the prompt
        [mistake] = read_mistakes(source, how=HowToRead({"prompt": "source", "reply": "said"}))
        assert (mistake.example.prompt, mistake.example.reply, mistake.origin) == ("q", "bad", Origin(model="m"))


class TestEditedByHand:
    def test_more_columns_and_less_provenance(self, tmp_path: Path) -> None:
        row = {"prompt": "q", "completion": "bad", "label": False}
        source = rows_at(tmp_path, row | {"checked by": "Ann", "model": None}, row | {"source": None, "seed": 4}, row)
        origins = [mistake.origin for mistake in read_mistakes(source, "reported")]
        assert origins == [Origin("reported"), Origin("reported", seed=4), Origin("reported")]
        analysis = {"prompt": "q", "reply": "bad", "analysis": " Bad. \n", "note": 1}
        [found] = read_analyses(rows_at(tmp_path, analysis))
        assert (found.text, found.analyst, found.wording, found.mistake.origin) == ("Bad.", "", "", Origin())

    def test_rows_called_right_are_no_mistakes(self, tmp_path: Path) -> None:
        row = {"prompt": "q", "completion": "a", "source": "induced"}
        source = rows_at(tmp_path, row | {"label": True}, row | {"label": False, "completion": "b"})
        assert [(m.example.reply, m.example.where) for m in read_mistakes(source)] == [("b", "rows.jsonl line 2")]
        with pytest.raises(DataError, match="none of its 1 rows .* gives a negative; check the file"):
            read_mistakes(rows_at(tmp_path, row | {"label": True}))

    def test_a_table_has_text_and_blanks_only(self, tmp_path: Path) -> None:
        source = table_at(
            tmp_path,
            "prompt,completion,label,source,model,seed,inducement,verdict\n"
            "q1,b1,False,induced,m, 12 ,0,bad\n"
            "q2,b2,False,,,,, \n",
        )
        first, second = [mistake.origin for mistake in read_mistakes(source)]
        assert first == Origin("induced", "m", 12, inducement=0, verdict="bad") and second == Origin("labelled")

    def test_a_column_with_gaps_makes_numbers_fractions(self, tmp_path: Path) -> None:
        seeds = pyarrow.array([12.0, float("nan"), None], pyarrow.float64())
        columns = {"prompt": ["q"] * 3, "completion": ["a"] * 3, "seed": seeds}
        pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "rows.parquet")
        mistakes = read_mistakes(str(tmp_path / "rows.parquet"))
        assert [mistake.origin.seed for mistake in mistakes] == [12, None, None]


BAD = {"prompt": "q", "completion": "b", "label": False}
WHY = {"prompt": "q", "reply": "b", "analysis": "Bad."}


class TestErrorsNameRowAndField:
    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            (
                {"source": "inducd"},
                "field 'source' must be one of induced, collected, labelled, reported, "
                "not 'inducd'; did you mean 'induced'?",
            ),
            (
                {"source": "zendesk"},
                "field 'source' must be one of induced, collected, labelled, reported, not 'zendesk';",
            ),
            (
                {"source": ["induced"]},
                "field 'source' must be one of induced, collected, labelled, reported, not \"['induced']\"",
            ),
            ({"source": 0}, "field 'source' must be one of induced, collected, labelled, reported, not '0'"),
            ({"seed": "soon"}, "field 'seed' must be a whole number"),
            ({"seed": 1.5}, "field 'seed' must be a whole number"),
            ({"seed": True}, "field 'seed' must be a whole number"),
            ({"seed": [1]}, "field 'seed' must be a whole number"),
            ({"seed": "²"}, "field 'seed' must be a whole number"),
            ({"inducement": "first"}, "field 'inducement' must be a whole number"),
            ({"model": 3}, "field 'model' must be text, not a number"),
            ({"wording": 1}, "field 'wording' must be text, not a number"),
            ({"judge": {"name": "x"}}, "field 'judge' must be text, not an object"),
            ({"verdict": False}, "field 'verdict' must be text, not true or false"),
        ],
    )
    def test_of_where_a_row_comes_from(self, tmp_path: Path, changed: dict[str, Any], said: str) -> None:
        for read, row in ((read_mistakes, BAD), (read_analyses, WHY)):
            with pytest.raises(DataError) as caught:
                read(rows_at(tmp_path, row, row | changed))
            assert str(caught.value).startswith(f"rows.jsonl line 2: {said}")

    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            ({"analysis": " \n"}, "field 'analysis' is empty; fill it in or remove the row; columns found: prompt, re"),
            ({"analysis": None}, "field 'analysis' is null"),
            ({"analysis": 3}, "field 'analysis' must be text, not a number"),
            ({"reply": ""}, "field 'reply' is empty; fill it in or remove the row"),
            ({"prompt": " "}, "field 'prompt' is empty; fill it in or remove the row"),
            ({"analyst": 1}, "field 'analyst' must be text, not a number"),
        ],
    )
    def test_of_analyses(self, tmp_path: Path, changed: dict[str, Any], said: str) -> None:
        with pytest.raises(DataError) as caught:
            read_analyses(rows_at(tmp_path, WHY, WHY | changed))
        assert str(caught.value).startswith(f"rows.jsonl line 2: {said}")

    def test_of_an_analysis_without_its_column(self, tmp_path: Path) -> None:
        with pytest.raises(DataError) as caught:
            read_analyses(rows_at(tmp_path, {"prompt": "q", "reply": "b"}))
        said = "rows.jsonl line 1: field 'analysis' is missing; columns found: prompt, reply"
        assert str(caught.value) == said

    @pytest.mark.parametrize("row", [BAD | {"prompt": " "}, {"text": "a book"}, BAD | {"prompt": []}])
    def test_of_a_mistake_without_prompt(self, tmp_path: Path, row: dict[str, Any]) -> None:
        with pytest.raises(DataError) as caught:
            read_mistakes(rows_at(tmp_path, row))
        assert str(caught.value).startswith("rows.jsonl line 1: there is no prompt in it; remove the row, or name")


MESSAGES = [
    {"role": "user", "content": "q1"},
    {"role": "assistant", "content": "a1"},
    {"role": "user", "content": "q2"},
]
ASSISTANT = {"role": "assistant", "content": "a2"}


class TestPrompts:
    def test_a_text_file_has_a_prompt_per_line(self, tmp_path: Path) -> None:
        path = tmp_path / "asked.TXT"
        path.write_bytes("\ufeffHow {x}?\r\n\r\n  Why\u2028not?\n\x0c\nlast".encode())
        found = read_prompts(str(path))
        assert asked(found) == [("How {x}?", None, None), ("Why\u2028not?", None, None), ("last", None, None)]
        assert [example.where for example in found] == ["asked.TXT line 1", "asked.TXT line 3", "asked.TXT line 5"]
        assert all(len(example.turns) == 1 and example.turns[0].role == "user" for example in found)

    @pytest.mark.parametrize(
        ("content", "said"),
        [(b"", "the file is empty"), (b" \n\n", "no rows in it"), (b"\xff", "byte 0 (0xff) is not UTF-8")],
    )
    def test_a_text_file_without_prompts(self, tmp_path: Path, content: bytes, said: str) -> None:
        path = tmp_path / "asked.txt"
        path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            read_prompts(str(path))
        assert str(caught.value).startswith(f"{path}: {said}")

    def test_a_text_file_that_is_not_there(self, tmp_path: Path) -> None:
        for name in (str(tmp_path / "none.txt"), "no\0ne.txt", "~nobody-of-this-name/asked.txt"):
            with pytest.raises(DataError):
                read_prompts(name)

    def test_prompts_alone_as_text_and_messages(self, tmp_path: Path) -> None:
        rows = [{"prompt": "q", "id": 3}, {"prompt": MESSAGES, "good": "g", "category": ["a", "b"]}]
        first, second = read_prompts(rows_at(tmp_path, *rows))
        assert (first.turns, first.where) == ((Turn("user", "q"),), "rows.jsonl line 1")
        assert second.turns == (Turn("user", "q1"), Turn("assistant", "a1"), Turn("user", "q2"))
        assert asked([first, second])[0] == ("q", None, None)
        assert (second.good, second.concept) == ("g", "a, b")

    @pytest.mark.parametrize(
        ("row", "found"),
        [
            ({"prompt": "q", "completion": "b"}, ("q", "b", None)),
            ({"prompt": "q", "reply": " b ", "good": "g"}, ("q", "b", "g")),
            ({"prompt": "q", "completion": [ASSISTANT]}, ("q", "a2", None)),
            ({"prompt": "q", "good": "g"}, ("q", None, "g")),
            ({"prompt": "q", "bad": "b"}, ("q", "b", None)),
            ({"prompt": "q", "good": "g", "bad": "b"}, ("q", "b", "g")),
            ({"prompt": "q", "good": " ", "bad": None}, ("q", None, None)),
            (PAIR, ("q", "bad", "good")),
            (HH, ("q", "bad", "good")),
            ({"messages": [*MESSAGES[2:], ASSISTANT]}, ("q2", "a2", None)),
            ({"instruction": "do", "input": "it", "output": "b"}, ("do\nit", "b", None)),
            ({"prompt": "q", "response": "r", "type": "Insult"}, ("q", None, None)),
        ],
    )
    def test_a_reply_goes_to_what_it_is_known_as(
        self, tmp_path: Path, row: dict[str, Any], found: tuple[Any, ...]
    ) -> None:
        assert asked(read_prompts(rows_at(tmp_path, row))) == [found]

    def test_a_row_gives_its_prompt_once(self, tmp_path: Path) -> None:
        assert asked(read_prompts(rows_at(tmp_path, PKU))) == [("q", "w0", None)]
        assert asked(read_prompts(rows_at(tmp_path, TRUTH))) == [("q", "w1", "g")]

    def test_rows_with_good_replies_are_left_out(self, tmp_path: Path) -> None:
        safe = {"prompt": "p", "response": "a", "is_safe": True}
        source = rows_at(tmp_path, safe, safe | {"prompt": "q", "is_safe": False})
        assert asked(read_prompts(source)) == [("q", "a", None)]
        with pytest.raises(DataError, match=r"none of its 1 rows \(layout: BeaverTails\) gives a negative"):
            read_prompts(rows_at(tmp_path, safe))
        assert asked(read_prompts(rows_at(tmp_path, safe, {"prompt": "alone"}))) == [("alone", None, None)]

    def test_rows_with_and_without_a_reply_stand_side_by_side(self, tmp_path: Path) -> None:
        rows = [
            {"prompt": "q1"},
            {"prompt": "q2", "completion": "b2", "concept": "c"},
            {"prompt": "q3", "completion": None},
            {"prompt": "q4", "completion": " "},
            {"prompt": "q5", "completion": []},
            {"prompt": "q6", "completion": "b6", "good": "g6"},
        ]
        found = read_prompts(rows_at(tmp_path, *rows))
        assert asked(found) == [
            ("q1", None, None),
            ("q2", "b2", None),
            ("q3", None, None),
            ("q4", None, None),
            ("q5", None, None),
            ("q6", "b6", "g6"),
        ]
        assert [example.where for example in found] == [f"rows.jsonl line {n}" for n in range(1, 7)]
        assert [example.concept for example in found] == [None, "c", None, None, None, None]
        table = table_at(tmp_path, "prompt,completion\nq1,\nq2,b2\n")
        assert asked(read_prompts(table)) == [("q1", None, None), ("q2", "b2", None)]

    def test_columns_can_be_named(self, tmp_path: Path) -> None:
        row = {"question": "q", "said": "b", "right": "g", "topic": "t", "prompt": "not this"}
        source = rows_at(tmp_path, row)
        assert asked(read_prompts(source, HowToRead({"prompt": "question", "reply": "said"}))) == [("q", "b", None)]
        [alone] = read_prompts(source, HowToRead({"prompt": "question", "good": "right", "concept": "topic"}))
        assert asked([alone]) == [("q", None, "g")] and alone.concept == "t"
        assert asked(read_prompts(rows_at(tmp_path, {"text": "q"}), HowToRead({"prompt": "text"}))) == [
            ("q", None, None)
        ]

    @pytest.mark.parametrize(
        ("columns", "kind", "said"),
        [
            ({"prompt": "questin"}, DataError, "there is no column 'questin'; did you mean 'question'?"),
            ({"promt": "question"}, ConfigError, "unknown name 'promt'; did you mean 'prompt'?"),
            (None, DataError, "no known layout has the columns question"),
        ],
    )
    def test_columns_that_are_wrong(
        self, tmp_path: Path, columns: dict[str, str] | None, kind: type[Exception], said: str
    ) -> None:
        with pytest.raises(kind) as caught:
            read_prompts(rows_at(tmp_path, {"question": "q"}), HowToRead(columns or {}))
        assert said in str(caught.value)

    @pytest.mark.parametrize(
        ("row", "said"),
        [
            ({"prompt": ""}, "there is no prompt in it; remove the row, or name its column with --column prompt=…"),
            ({"prompt": " \n"}, "there is no prompt in it"),
            ({"prompt": []}, "there is no prompt in it"),
            ({"prompt": [{"role": "user", "content": " "}]}, "there is no prompt in it"),
            ({"prompt": None}, "field 'prompt' is null"),
            ({"prompt": 5}, "field 'prompt' must be text or a list of messages, not a number"),
            ({"prompt": "half \ud800"}, "field 'prompt' holds half a Unicode character at 5"),
            ({"prompt": "", "completion": "b"}, "there is no prompt in it"),
            ({"text": "a book"}, "there is no prompt in it"),
            ({"prompt": [*MESSAGES, ASSISTANT]}, "the prompt ends with a message of the assistant; end it with"),
            ({"prompt": [{"role": "system", "content": "s"}]}, "the prompt ends with a message of the system"),
        ],
    )
    def test_a_row_without_a_prompt_is_named(self, tmp_path: Path, row: dict[str, Any], said: str) -> None:
        rows = [row] if "text" in row else [{"prompt": "q"}, row]
        with pytest.raises(DataError) as caught:
            read_prompts(rows_at(tmp_path, *rows))
        assert str(caught.value).startswith(f"rows.jsonl line {len(rows)}: {said}")

    def test_an_empty_file_and_no_file(self, tmp_path: Path) -> None:
        (tmp_path / "rows.jsonl").write_text("")
        with pytest.raises(DataError, match="rows.jsonl: the file is empty"):
            read_prompts(str(tmp_path / "rows.jsonl"))
        (tmp_path / "rows.jsonl").write_text("\n\n")
        with pytest.raises(DataError, match="no rows in it"):
            read_prompts(str(tmp_path / "rows.jsonl"))
        with pytest.raises(DataError, match="no such file or directory; did you mean 'rows.jsonl'"):
            read_prompts(str(tmp_path / "row.jsonl"))


HIJACKING = {
    "Goal_Hijacking": [
        {"prompt": "p1", "response": "r1", "type": "Goal_Hijacking"},
        {"prompt": "p2", "response": "r2", "type": "Goal_Hijacking"},
    ],
    "Prompt_Leaking": [{"prompt": "other", "response": "x", "type": "Prompt_Leaking"}],
}


class TestGoalHijackingOfSafetyPrompts:
    @pytest.fixture(autouse=True)
    def copies(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A local copy of the hub's file, and what `datasets` keeps beside it."""
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "kept"))
        monkeypatch.setenv("UNTEACH_DATA", str(tmp_path))
        (tmp_path / "safety-prompts").mkdir()
        (tmp_path / "safety-prompts" / "instruction_attack_scenarios.json").write_text(json.dumps(HIJACKING))

    def test_its_prompts_without_replies_that_nobody_called_bad(self) -> None:
        found = read_prompts("safety-prompts:Goal_Hijacking")
        assert asked(found) == [("p1", None, None), ("p2", None, None)]
        assert [example.where for example in found] == [f"safety-prompts:Goal_Hijacking row {n}" for n in (1, 2)]
        assert {example.concept for example in found} == {"Goal_Hijacking"}

    def test_its_replies_are_mistakes_only_where_a_user_says_so(self) -> None:
        mistakes = read_mistakes("safety-prompts:goal_hijacking", "reported")
        assert [(m.example.prompt, m.example.reply, m.origin) for m in mistakes] == [
            ("p1", "r1", Origin("reported")),
            ("p2", "r2", Origin("reported")),
        ]

    def test_the_file_itself_has_the_prompts_of_every_type(self, tmp_path: Path) -> None:
        path = tmp_path / "safety-prompts" / "instruction_attack_scenarios.json"
        found = read_prompts(str(path))
        assert [(e.prompt, e.bad, e.concept) for e in found] == [
            ("p1", None, "Goal_Hijacking"),
            ("p2", None, "Goal_Hijacking"),
            ("other", None, "Prompt_Leaking"),
        ]

    def test_the_bare_name_asks_which(self) -> None:
        with pytest.raises(DataError, match="which configuration.*Goal_Hijacking, Prompt_Leaking"):
            read_prompts("safety-prompts")
