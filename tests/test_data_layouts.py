"""Every layout, both polarities, renamed columns, the errors of rows, and the round trip."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unteach.data.example import Example, Polarity
from unteach.data.reading import read_examples
from unteach.data.written import write_examples
from unteach.errors import ConfigError, DataError
from unteach.prompts.turn import Turn

USER, BOT, SYSTEM = "user", "assistant", "system"


def said(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


def source(tmp_path: Path, *rows: dict[str, Any]) -> str:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(tmp_path: Path, polarity: Polarity, *rows: dict[str, Any], **columns: str) -> list[Example]:
    return read_examples(source(tmp_path, *rows), polarity, columns)


def facts(example: Example) -> tuple[Any, ...]:
    turns = tuple((turn.role, turn.content) for turn in example.turns)
    return turns, example.reply, example.good, example.bad


ASK = ((USER, "q"),)
TALK = [(USER, "q1"), (BOT, "a1"), (USER, "q2")]

# row, what it gives as negative, what it gives as normal (None: refused)
NEUTRAL = (ASK, "a", None, None)
CASES: dict[str, tuple[dict[str, Any], list[Any] | None, list[Any] | None]] = {
    "prompt–completion": ({"prompt": "q", "completion": " a\n"}, [NEUTRAL], [NEUTRAL]),
    "prompt–response": ({"id": 1, "prompt": "q", "response": "a"}, [NEUTRAL], [NEUTRAL]),
    "question–answer": ({"question": "q", "answer": "a", "perturbed": []}, [NEUTRAL], [NEUTRAL]),
    "ours": ({"prompt": "q", "reply": "a", "good": "g", "bad": "b"}, [(ASK, "a", "g", "b")], [(ASK, "a", "g", "b")]),
    "conversational": (
        {"prompt": said(*TALK), "completion": said((BOT, "a"))},
        [(tuple(TALK), "a", None, None)],
        [(tuple(TALK), "a", None, None)],
    ),
    "messages": (
        {"messages": said((SYSTEM, "s"), *TALK, (BOT, "a"), (USER, "thanks"))},
        [(((SYSTEM, "s"), *TALK), "a", None, None)],
        [(((SYSTEM, "s"), *TALK), "a", None, None)],
    ),
    "conversations": (
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        [NEUTRAL],
        [NEUTRAL],
    ),
    "preference": (
        {"prompt": "q", "chosen": "good", "rejected": "bad"},
        [(ASK, "bad", "good", None)],
        [(ASK, "good", None, "bad")],
    ),
    "conversational preference": (
        {"prompt": said(*TALK), "chosen": said((BOT, "good")), "rejected": said((BOT, "bad"))},
        [(tuple(TALK), "bad", "good", None)],
        [(tuple(TALK), "good", None, "bad")],
    ),
    "implicit preference": (
        {"chosen": said(*TALK, (BOT, "good")), "rejected": said(*TALK, (BOT, "bad"))},
        [(tuple(TALK), "bad", "good", None)],
        [(tuple(TALK), "good", None, "bad")],
    ),
    "implicit preference that parts early": (
        {"chosen": said((USER, "q"), (BOT, "good")), "rejected": said(*TALK, (BOT, "bad"))},
        [(tuple(TALK), "bad", None, None)],
        [(ASK, "good", None, None)],
    ),
    "marked text": (
        {
            "chosen": "\n\nHuman: q1\n\nAssistant: a1\n\nHuman: q2\n\nAssistant: good",
            "rejected": "\n\nHuman: q1\n\nAssistant: a1\n\nHuman: q2\n\nAssistant: bad\n\nstill",
        },
        [(tuple(TALK), "bad\n\nstill", "good", None)],
        [(tuple(TALK), "good", None, "bad\n\nstill")],
    ),
    "text that parts": (
        {"chosen": "The sky is blue.", "rejected": "The sky is black."},
        [(((USER, "The sky is"),), "black.", "blue.", None)],
        [(((USER, "The sky is"),), "blue.", None, "black.")],
    ),
    "unpaired, false": ({"prompt": "q", "completion": "a", "label": False}, [NEUTRAL], None),
    "unpaired, true": ({"prompt": "q", "completion": "a", "label": True}, None, [NEUTRAL]),
    "text": ({"chapter": 1, "text": " once \n"}, [((), "once", None, None)], [((), "once", None, None)]),
    "HaluEval": (
        {"knowledge": "k", "question": "q", "right_answer": "r", "hallucinated_answer": "w"},
        [(ASK, "w", "r", None)],
        [(ASK, "r", None, "w")],
    ),
    "TruthfulQA": (
        {"question": "q", "best_answer": "r", "incorrect_answers": ["w1", "w2"]},
        [(ASK, "w1", "r", None), (ASK, "w2", "r", None)],
        [(ASK, "r", None, "w1")],
    ),
    "TruthfulQA, best answers only": ({"question": "q", "best_answer": "r"}, None, [(ASK, "r", None, None)]),
    "alpaca": (
        {"instruction": "do", "input": "this", "output": "a"},
        [(((USER, "do\nthis"),), "a", None, None)],
        [(((USER, "do\nthis"),), "a", None, None)],
    ),
    "alpaca without input": (
        {"instruction": "q", "input": "", "output": "a", "text": "q a"},
        [NEUTRAL],
        [NEUTRAL],
    ),
    "BeaverTails, unsafe": ({"prompt": "q", "response": "a", "is_safe": False}, [NEUTRAL], None),
    "BeaverTails, safe": ({"prompt": "q", "response": "a", "is_safe": True}, None, [NEUTRAL]),
    "PKU, one unsafe": (
        {
            "prompt": "q",
            "response_0": "w",
            "response_1": "r",
            "is_response_0_safe": False,
            "is_response_1_safe": True,
        },
        [(ASK, "w", "r", None)],
        [(ASK, "r", None, "w")],
    ),
    "PKU, both unsafe": (
        {
            "prompt": "q",
            "response_0": "w0",
            "response_1": "w1",
            "is_response_0_safe": False,
            "is_response_1_safe": False,
        },
        [(ASK, "w0", None, None), (ASK, "w1", None, None)],
        None,
    ),
}


@pytest.mark.parametrize("polarity", ["negative", "normal"])
@pytest.mark.parametrize("name", CASES)
def test_formats(tmp_path: Path, name: str, polarity: Polarity) -> None:
    row, *expected = CASES[name]
    wanted = expected[0 if polarity == "negative" else 1]
    if wanted is None:
        with pytest.raises(DataError, match=f"none of its 1 rows .*gives a {polarity}"):
            read(tmp_path, polarity, row)
    else:
        assert [facts(example) for example in read(tmp_path, polarity, row)] == wanted


def test_examples_say_where_they_stand(tmp_path: Path) -> None:
    row = CASES["PKU, both unsafe"][0]
    assert [example.where for example in read(tmp_path, "negative", row)] == [
        "rows.jsonl line 1, response_0",
        "rows.jsonl line 1, response_1",
    ]
    two = {"prompt": "q", "completion": "a"}
    assert [example.where for example in read(tmp_path, "normal", two, two)][1] == "rows.jsonl line 2"


def test_labels_choose_rows_also_as_words_of_a_table(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("prompt,completion,label\nq1,a1,True\nq2,a2,false\nq3,a3,0\n")
    assert [example.reply for example in read_examples(str(path), "negative")] == ["a2", "a3"]
    assert [example.reply for example in read_examples(str(path), "normal")] == ["a1"]


@pytest.mark.parametrize(
    ("value", "concept"),
    [
        ({"category": "Misconceptions"}, "Misconceptions"),
        ({"concept": "theft", "category": "x"}, "theft"),
        ({"category": {"theft": True, "abuse": False, "fraud": True}}, "theft, fraud"),
        ({"category": ["a", "b"]}, "a, b"),
        ({"category": 3}, "3"),
        ({"category": " "}, None),
        ({}, None),
    ],
)
def test_concepts(tmp_path: Path, value: dict[str, Any], concept: str | None) -> None:
    assert read(tmp_path, "normal", {"prompt": "q", "completion": "a"} | value)[0].concept == concept


def test_renamed_columns_come_first(tmp_path: Path) -> None:
    row = {"question": "q", "best_answer": "r", "incorrect_answers": ["w"], "topic": "t", "reply": "not this"}
    [example] = read(tmp_path, "negative", row, prompt="question", reply="best_answer", concept="topic")
    assert (*facts(example), example.concept) == (*NEUTRAL[:1], "r", None, None, "t")


def test_renamed_pairs_labels_and_text(tmp_path: Path) -> None:
    pair = {"x": "q", "yes": "r", "no": "w"}
    assert [e.reply for e in read(tmp_path, "negative", pair, prompt="x", good="yes", bad="no")] == ["w"]
    assert [e.reply for e in read(tmp_path, "normal", pair, prompt="x", good="yes", bad="no")] == ["r"]
    flagged = [{"x": "q", "y": "a1", "ok": 0}, {"x": "q", "y": "a2", "ok": 1}]
    assert [e.reply for e in read(tmp_path, "negative", *flagged, prompt="x", reply="y", label="ok")] == ["a1"]
    assert [facts(e) for e in read(tmp_path, "normal", {"body": "t"}, text="body")] == [((), "t", None, None)]


@pytest.mark.parametrize(
    ("columns", "kind", "expected"),
    [
        ({"prompt": "qestion"}, DataError, "no column 'qestion'; did you mean 'question'? (columns found: question,"),
        ({"promt": "question"}, ConfigError, "unknown name 'promt'; did you mean 'prompt'?"),
        ({"prompt": "question", "reply": "question"}, ConfigError, "one column cannot be two things"),
    ],
)
def test_renaming_errors(tmp_path: Path, columns: dict[str, str], kind: type[Exception], expected: str) -> None:
    with pytest.raises(kind) as caught:
        read(tmp_path, "normal", {"question": "q", "answer": "a"}, **columns)
    assert expected in str(caught.value)


GOOD = {"prompt": "q", "completion": "a"}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "q"}, "field 'completion' is missing; columns found: prompt"),
        ({"prompt": "q", "completion": None}, "field 'completion' is null"),
        ({"prompt": 5, "completion": "a"}, "field 'prompt' must be text or a list of messages, not a number"),
        ({"prompt": "q", "completion": {"x": 1}}, "field 'completion' must be text, not an object"),
        ({"prompt": "q", "completion": True}, "field 'completion' must be text, not true or false"),
        ({"prompt": ["q"], "completion": "a"}, "field 'prompt, message 1' must have role and content, not be text"),
        ({"prompt": [{"role": "judge", "content": "q"}], "completion": "a"}, "'prompt, message 1' needs a role"),
        ({"prompt": [{"role": "user"}], "completion": "a"}, "field 'prompt, message 1' must be text, not nothing"),
        ({"prompt": "q", "completion": said((USER, "a"))}, "field 'completion' has no message of the assistant"),
        ({"prompt": "q", "completion": " \n"}, "the reply is empty"),
        ({"prompt": "q", "completion": "\ud800"}, "field 'completion' holds half a Unicode character"),
    ],
)
def test_row_errors_name_row_field_and_columns(tmp_path: Path, row: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, "normal", GOOD, row)
    message = str(caught.value)
    assert message.startswith("rows.jsonl line 2: ") and expected in message
    assert "columns found: prompt" in message


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (GOOD | {"label": "maybe"}, "column 'label' does not say which replies are bad ('maybe': 1 rows)"),
        ({"messages": "text"}, "field 'messages' must be a list of messages, not text"),
        ({"question": "q", "best_answer": "a", "incorrect_answers": "w"}, "'incorrect_answers' must be a list"),
        ({"chosen": said((USER, "q")), "rejected": said((USER, "q"))}, "has no message of the assistant"),
        ({"chosen": "same", "rejected": [1]}, "field 'rejected' must be text, not a list"),
    ],
)
def test_mistyped_fields_of_other_formats(tmp_path: Path, row: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, "normal", row)
    assert expected in str(caught.value)


def test_unknown_columns_name_the_closest_format(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, "normal", {"id": 1, "question": "q", "reponse": "a"})
    message = str(caught.value)
    assert "id, question, reponse" in message and "also needs" in message and "--column" in message


def test_a_table_without_header_is_shown_in_one_short_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('"how do I\nsteal","' + "x" * 5000 + '"\n"q","a"\n')
    with pytest.raises(DataError) as caught:
        read_examples(str(path), "normal")
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500 and r"'how do I\nsteal', xxx" in message


def test_blank_second_reply_is_no_error(tmp_path: Path) -> None:
    [example] = read(tmp_path, "negative", {"prompt": "q", "chosen": " ", "rejected": "bad"})
    assert example.good is None


CHARACTERS = st.characters(exclude_categories=("Cs",))
WORDS = st.text(CHARACTERS, max_size=12)
REPLIES = WORDS.map(str.strip).filter(bool)
TURNS = st.lists(st.builds(Turn, st.sampled_from([USER, BOT, SYSTEM]), WORDS), max_size=3).map(tuple)
EXAMPLES = st.builds(
    Example,
    TURNS,
    REPLIES,
    good=st.none() | REPLIES,
    bad=st.none() | REPLIES,
    concept=st.none() | REPLIES,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(examples=st.lists(EXAMPLES, min_size=1, max_size=4), polarity=st.sampled_from(["negative", "normal"]))
def test_round_trip(tmp_path: Path, examples: list[Example], polarity: Polarity) -> None:
    path = tmp_path / "written.jsonl"
    write_examples(path, examples)
    back = read_examples(str(path), polarity)
    assert [(*facts(e), e.concept) for e in back] == [(*facts(e), e.concept) for e in examples]


def test_written_rows_are_the_public_formats(tmp_path: Path) -> None:
    path = tmp_path / "written.jsonl"
    talk = tuple(Turn(*turn) for turn in TALK)
    write_examples(path, [Example.of("q", "a", good="g"), Example(talk, "a"), Example((), "a")])
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"prompt": "q", "completion": "a", "good": "g"},
        {"prompt": said(*TALK), "completion": said((BOT, "a"))},
        {"prompt": "", "completion": "a"},
    ]
    write_examples(path, [Example((), "a", concept="c")])
    assert json.loads(path.read_text()) == {"text": "a", "concept": "c"}
