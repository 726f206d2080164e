"""Layouts that people have beside TRL's: what each column becomes, which rows their labels choose, what is skipped."""

import json
from pathlib import Path
from typing import Any

import pytest

from unteach.data.columns import DIALOGUE, EVERYWHERE, IGNORED, LABEL, PROMPT, REPLY, Names
from unteach.data.example import Polarity
from unteach.data.labels import direction
from unteach.data.layouts import LAYOUTS
from unteach.data.reading import HowToRead, Reading, read, read_examples
from unteach.errors import ConfigError, DataError
from unteach.pipeline.config import RunConfig
from unteach.pipeline.rows import read_sets
from unteach.pipeline.settings import make_config

CASES = Path(__file__).parents[2] / "shared" / "cases"
USER, BOT, SYSTEM = "user", "assistant", "system"
ASK = ((USER, "q"),)


def written(tmp_path: Path, *rows: dict[str, Any]) -> str:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def reading(tmp_path: Path, polarity: Polarity, *rows: dict[str, Any], **how: Any) -> Reading:
    return read(written(tmp_path, *rows), polarity, HowToRead(**how))


def gives(found: Reading) -> list[tuple[Any, ...]]:
    return [(tuple((turn.role, turn.content) for turn in one.turns), one.reply) for one in found.examples]


def fates(found: Reading) -> dict[str, str]:
    return {column.name: column.becomes if column.fate == "used" else column.fate for column in found.columns}


def said(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content} | more


def told(role: str, value: str) -> dict[str, str]:
    return {"from": role, "value": value}


Q, BAD, GOOD = said(USER, "q"), said(BOT, "bad"), said(BOT, "good")
BOTH = [(ASK, "bad")], [(ASK, "good")]
SAME = [(ASK, "a")], [(ASK, "a")]

# layout, row, what it gives as negative and as normal
ROWS: list[tuple[str, dict[str, Any], tuple[list[Any], list[Any]]]] = [
    (
        "PKU-SafeRLHF",
        {
            **{"prompt": "q", "response_0": "bad", "response_1": "good", "is_response_0_safe": False},
            **{"is_response_1_safe": True, "better_response_id": 1},
        },
        BOTH,
    ),
    (
        "UltraFeedback with scores",
        {
            "source": "evol",
            "instruction": "q",
            "completions": [
                {"response": "good", "overall_score": 8.5},
                {"response": "bad", "overall_score": 1},
                {"response": "so so", "overall_score": 4.0},
            ],
        },
        BOTH,
    ),
    ("HaluEval", {"knowledge": "k", "question": "q", "right_answer": "good", "hallucinated_answer": "bad"}, BOTH),
    (
        "HaluEval dialogue",
        {
            **{"dialogue_history": "[Human]: q [Assistant]: a [Human]: q2", "right_response": "good"},
            **{"knowledge": "k", "hallucinated_response": "bad"},
        },
        ([((*ASK, (BOT, "a"), (USER, "q2")), "bad")], [((*ASK, (BOT, "a"), (USER, "q2")), "good")]),
    ),
    ("HaluEval summaries", {"document": "q", "right_summary": "good", "hallucinated_summary": "bad"}, BOTH),
    ("TruthfulQA", {"type": "x", "question": "q", "best_answer": "good", "incorrect_answers": ["bad"]}, BOTH),
    ("TOFU", {"question": "q", "answer": "a", "perturbed_answer": ["b"], "paraphrased_answer": "c"}, SAME),
    ("multiple choice (WMDP, MMLU)", {"question": "q", "choices": ["x", "a"], "answer": 1, "subject": "s"}, SAME),
    ("multiple choice (WMDP, MMLU)", {"question": "q", "options": ["x", "a"], "answer": "B"}, SAME),
    ("HarmBench results", {"test_case": "q", "generation": "bad", "label": 1}, ([(ASK, "bad")], [])),
    (
        "JailbreakBench results",
        {"goal": "g", "prompt": "q", "response": "good", "jailbroken": False, "behavior": "b"},
        ([], [(ASK, "good")]),
    ),
    (
        "WildGuardMix",
        {
            **{"prompt": "q", "adversarial": True, "response": "bad", "prompt_harm_label": "harmful"},
            **{"response_refusal_label": "compliance", "response_harm_label": "harmful", "subcategory": "s"},
        },
        ([(ASK, "bad")], []),
    ),
    (
        "ToxicChat",
        {"conv_id": "1", "user_input": "q", "model_output": "good", "toxicity": 0, "jailbreaking": 1},
        ([], [(ASK, "good")]),
    ),
    (
        "HaluEval, one answer",
        {"user_query": "q", "chatgpt_response": "bad", "hallucination": "yes", "hallucination_spans": []},
        ([(ASK, "bad")], []),
    ),
    (
        "labelled replies with their source",
        {"prompt": "q", "completion": "bad", "label": False, "source": "induced", "verdict": "bad"},
        ([(ASK, "bad")], []),
    ),
    ("ours", {"prompt": "q", "completion": "a", "good": "g", "bad": "b"}, SAME),
    (
        "preference (TRL, UltraFeedback, Argilla, LLaMA-Factory)",
        {
            **{"prompt": "q", "prompt_id": "1", "chosen": [Q, GOOD], "rejected": [Q, BAD], "messages": [Q, GOOD]},
            **{"score_chosen": 8.0, "score_rejected": 2.0},
        },
        BOTH,
    ),
    (
        "preference (TRL, UltraFeedback, Argilla, LLaMA-Factory)",
        {"instruction": "do", "input": "this", "chosen": GOOD, "rejected": BAD},
        ([(((USER, "do\nthis"),), "bad")], [(((USER, "do\nthis"),), "good")]),
    ),
    (
        "preference after a dialogue (LLaMA-Factory)",
        {"conversations": [told("human", "q")], "chosen": told("gpt", "good"), "rejected": told("gpt", "bad")},
        BOTH,
    ),
    ("preference without prompt (hh-rlhf)", {"chosen": [Q, GOOD], "rejected": [Q, BAD]}, BOTH),
    ("two outputs (LLaMA-Factory)", {"instruction": "q", "input": "", "output": ["good", "bad"]}, BOTH),
    (
        "BeaverTails",
        {"prompt": "q", "response": "bad", "is_safe": False, "category": {"x": True}},
        ([(ASK, "bad")], []),
    ),
    ("Safety-Prompts", {"prompt": "q", "response": "a", "type": "Insult"}, SAME),
    ("openings of replies (AdvBench, JailbreakBench)", {"Goal": "q", "Target": "a", "Behavior": "b"}, SAME),
    (
        "instructions (Alpaca, Dolly, LLaMA-Factory)",
        {"instruction": "do", "context": "this", "response": "a", "category": "c", "system": "s"},
        ([(((SYSTEM, "s"), (USER, "do\nthis")), "a")],) * 2,
    ),
    (
        "instructions (Alpaca, Dolly, LLaMA-Factory)",
        {"instruction": "q2", "input": "", "output": "a", "history": [["q", "a1"]]},
        ([((*ASK, (BOT, "a1"), (USER, "q2")), "a")],) * 2,
    ),
    ("prompt and reply", {" Question ": "q", "Model-Output": 7}, ([(ASK, "7")],) * 2),
    (
        "prompt and reply",
        {"system_prompt": "s", "prompt": "q", "passage": "p", "response": "a", "history": [Q, BAD]},
        ([(((SYSTEM, "s"), *ASK, (BOT, "bad"), (USER, "q\np")), "a")],) * 2,
    ),
    (
        "messages (OpenAI, ShareGPT, LMSYS, WildChat)",
        {"conversation_id": "1", "conversation": [Q, said(BOT, "a")], "turn": 1, "openai_moderation": [{"flagged": 1}]},
        SAME,
    ),
    ("messages (OpenAI, ShareGPT, LMSYS, WildChat)", {"messages": [Q, BAD], "kto_tag": False}, ([(ASK, "bad")], [])),
    ("text", {"text": "a", "label": "toxic"}, ([((), "a")], [])),
]


@pytest.mark.parametrize("polarity", ["negative", "normal"])
@pytest.mark.parametrize(("layout", "row", "expected"), ROWS, ids=[f"{name}-{i}" for i, (name, *_) in enumerate(ROWS)])
def test_what_a_layout_gives_and_that_no_column_is_lost(
    tmp_path: Path, layout: str, row: dict[str, Any], expected: tuple[list[Any], list[Any]], polarity: Polarity
) -> None:
    wanted = expected[polarity == "normal"]
    if not wanted:
        with pytest.raises(DataError, match=f"gives a {polarity}; check .* says which replies are bad"):
            reading(tmp_path, polarity, row)
        return
    found = reading(tmp_path, polarity, row | {"something": "else"})
    assert found.layout == layout
    assert gives(found) == wanted
    assert fates(found).keys() == row.keys() | {"something"}
    assert [name for name, fate in fates(found).items() if fate == "unread"] == ["something"]
    assert any("columns that were not read: something" in note for note in found.notes)


def test_every_layout_has_a_row_above() -> None:
    assert {name for name, *_ in ROWS} == {layout.name for layout in LAYOUTS}


class TestDialogues:
    @pytest.mark.parametrize(
        "turns",
        [
            [said("User", [{"type": "text", "text": "q"}]), said("Assistant", [{"type": "text", "text": "a"}])],
            [told("user_1", "q"), told("chatgpt", "a")],
            [told("human", "q"), told("bing", "a"), told("human", "thanks")],
            json.dumps([Q, said(BOT, "a")]),
            str([Q, said(BOT, "a")]),
        ],
    )
    def test_roles_parts_and_cells(self, tmp_path: Path, turns: Any) -> None:
        assert gives(reading(tmp_path, "normal", {"messages": turns})) == [(ASK, "a")]

    def test_calls_of_tools_stay_in_the_prompt(self, tmp_path: Path) -> None:
        call = {"type": "function", "function": {"name": "look", "arguments": '{"where": "here"}'}}
        row = {"messages": [Q, said(BOT, None, tool_calls=[call]), said("tool", "found"), said("tool", "lost"), BAD]}
        [(turns, reply)] = gives(reading(tmp_path, "negative", row))
        assert reply == "bad" and [role for role, _ in turns] == [USER, BOT, USER]
        assert turns[1][1] == '<tool_call>\n{"name": "look", "arguments": {"where": "here"}}\n</tool_call>'
        assert turns[2][1].count("<tool_response>") == 2 and "found" in turns[2][1] and "lost" in turns[2][1]

    def test_what_follows_the_last_reply_is_left_out_and_told(self, tmp_path: Path) -> None:
        call = {"function": {"name": "look", "arguments": {}}}
        found = reading(tmp_path, "negative", {"messages": [Q, BAD, Q, said(BOT, None, tool_calls=[call])]})
        assert gives(found) == [(ASK, "bad")]
        assert any("what follows the assistant's last reply" in note for note in found.notes)

    @pytest.mark.parametrize(
        ("messages", "problem"),
        [
            ([Q, said("narrator", "a")], "message 2' needs a role: system, user or assistant, not 'narrator'"),
            ([Q, said(BOT, [{"type": "image_url", "image_url": "x"}])], "holds a part of type 'image_url'; only text"),
            ("[{'role': 'user', 'content': ", "holds messages that cannot be parsed"),
            ([Q, said(BOT, None)], "message 2' must be text, not nothing"),
        ],
    )
    def test_what_cannot_be_read_is_named(self, tmp_path: Path, messages: Any, problem: str) -> None:
        with pytest.raises(DataError, match=r"rows\.jsonl line 1") as caught:
            reading(tmp_path, "negative", {"messages": messages})
        assert problem in str(caught.value)

    def test_an_unknown_role_is_no_row_to_skip(self, tmp_path: Path) -> None:
        rows = [{"messages": [Q, BAD]}] * 99
        with pytest.raises(DataError, match="needs a role"):
            reading(tmp_path, "negative", *rows, {"messages": [Q, said("oracle", "a")]})

    @pytest.mark.parametrize("marks", ["\n\nHuman: q\n\nAssistant:", "<|im_start|>user\nq<|im_end|>\n"])
    def test_templates_in_a_prompt_are_read(self, tmp_path: Path, marks: str) -> None:
        found = reading(tmp_path, "negative", {"prompt": marks, "chosen": " good", "rejected": " bad"})
        assert gives(found) == [(ASK, "bad")] and found.examples[0].good == "good"

    def test_templates_that_cannot_be_read_are_told(self, tmp_path: Path) -> None:
        found = reading(tmp_path, "negative", {"prompt": "q <|im_end|> <|im_start|>user", "completion": "a"})
        assert any("marks of a chat template" in warning for warning in found.warnings)


class TestLabels:
    @pytest.mark.parametrize(
        ("column", "bad", "good"),
        [
            *[("label", False, True), ("kto_tag", False, True), ("label", 0, 1), ("label", "no", "yes")],
            *[("is_safe", False, True), ("is_safe", "0", "1"), ("is_correct", 0, 1), ("isSafe", "false", "true")],
            *[("toxic", 1, 0), ("toxicity", "1", "0"), ("harmful", True, False), ("jailbroken", True, False)],
            *[("hallucination", "yes", "no"), ("flagged", True, False), ("is_bad", 1, 0), ("unsafe", "True", "False")],
            *[("label", "harmful", "unharmful"), ("label", "unsafe", "safe"), ("label", "toxic", "non-toxic")],
            *[("label", "bad", "good"), ("quality", "bad", "good"), ("label", "incorrect", "correct")],
            *[("label", "compliance", "refusal"), ("label", "hallucinated", "factual"), ("label", "不安全", "安全")],
            *[("label", 0.0, 1.0), ("label", -1, 1), ("label", "not safe", "safe"), ("thumbs", "down", "up")],
        ],
    )
    def test_what_is_bad(self, tmp_path: Path, column: str, bad: Any, good: Any) -> None:
        rows = [{"question": "q", "answer": "w", column: bad}, {"question": "q", "answer": "r", column: good}]
        for found, reply in ((reading(tmp_path, "negative", *rows), "w"), (reading(tmp_path, "normal", *rows), "r")):
            assert [one.reply for one in found.examples] == [reply]
            assert fates(found)[column] == "label" and found.labels is not None
            assert sum(found.labels.counts.values()) == 2 and len(found.labels.bad) == 1
            assert any("says which replies are bad: " in note and "(1 rows)" in note for note in found.notes)

    @pytest.mark.parametrize(("values", "sure"), [((0, 1), False), ((False, True), True), (("bad", "good"), True)])
    def test_a_direction_that_is_not_certain_is_told(self, tmp_path: Path, values: Any, sure: bool) -> None:
        rows = [{"prompt": "q", "completion": f"a{value}", "label": value} for value in values]
        [note] = [note for note in reading(tmp_path, "negative", *rows).notes if "says which" in note]
        assert ("--bad-label '1'" in note) != sure

    def test_the_user_says_which_value_is_bad(self, tmp_path: Path) -> None:
        rows = [{"prompt": "q", "completion": f"a{n}", "label": n} for n in (0, 1, 2)]
        with pytest.raises(DataError, match=r"'0': 1 rows, '1': 1 rows, '2': 1 rows.*--bad-label VALUE"):
            reading(tmp_path, "negative", *rows)
        assert [e.reply for e in reading(tmp_path, "negative", *rows, bad_labels=["1", "2"]).examples] == ["a1", "a2"]
        assert [e.reply for e in reading(tmp_path, "normal", *rows, bad_labels=["1", "2"]).examples] == ["a0"]
        with pytest.raises(DataError, match="--bad-label 'toxic': column 'label' holds no such value"):
            reading(tmp_path, "negative", *rows, bad_labels=["toxic"])
        flags = [{"prompt": "q", "completion": f"a{flag}", "label": flag} for flag in (True, False)]
        assert [e.reply for e in reading(tmp_path, "negative", *flags, bad_labels=["1"]).examples] == ["aTrue"]

    def test_a_rating_is_a_label_only_if_the_user_says_so(self, tmp_path: Path) -> None:
        rows = [{"prompt": "q", "completion": f"a{n}", "rating": n} for n in (1, 5, 5)]
        found = reading(tmp_path, "negative", *rows)
        assert len(found.examples) == 3 and "--column label=rating and --bad-label" in found.warnings[0]
        found = reading(tmp_path, "negative", *rows, columns={"label": "rating"}, bad_labels=["1"])
        assert [one.reply for one in found.examples] == ["a1"] and not found.warnings

    @pytest.mark.parametrize("column", ["score", "answer_rating", "class", "is_helpful", "origin"])
    def test_columns_that_look_like_labels_are_warned_of(self, tmp_path: Path, column: str) -> None:
        rows = [{"prompt": "q", "completion": f"a{n}", column: "xy"[n % 2]} for n in range(4)]
        assert any(f"'{column}' looks as if" in text for text in reading(tmp_path, "negative", *rows).warnings)

    def test_rows_without_a_label_are_left_out_and_counted(self, tmp_path: Path) -> None:
        rows = [{"prompt": "q", "response": None, "label": None}] * 3 + [
            {"prompt": "q", "response": "a", "label": False}
        ]
        found = reading(tmp_path, "negative", *rows)
        assert gives(found) == [(ASK, "a")] and any("3 rows without a label are left out" in n for n in found.notes)

    def test_directions_of_names(self) -> None:
        for name, bad in {"not_toxic": False, "is_unsafe": True, "responseHarmLabel": True, "opinion": None}.items():
            assert direction(name) is bad, name


class TestColumns:
    def test_a_column_that_nothing_reads_is_an_error(self, tmp_path: Path) -> None:
        row = {"prompt": "q", "chosen": "good", "rejected": "bad", "ok": True}
        with pytest.raises(ConfigError, match=r"--column label=ok: .* has no use for a label"):
            reading(tmp_path, "negative", row, columns={"label": "ok"})

    def test_nested_columns(self, tmp_path: Path) -> None:
        row = {"item": {"turns": [{"said": "q"}], "out": {"text": "a"}}, "marks": [{"value": {"choices": ["bad"]}}]}
        columns = {"prompt": "item.turns[0].said", "reply": "item.out.text", "label": "marks.0.value.choices.0"}
        found = reading(tmp_path, "negative", row, row, columns=columns)
        assert gives(found) == [(ASK, "a")] * 2 and fates(found)["item"].startswith("holds item.turns[0].said")

    def test_exports_of_annotation_tools(self, tmp_path: Path) -> None:
        chose = {"result": [{"type": "choices", "value": {"choices": ["bad"]}}]}
        row: dict[str, Any] = {"id": 3, "data": {"prompt": "q", "response": "a"}, "annotations": [chose]}
        found = reading(tmp_path, "negative", row)
        assert gives(found) == [(ASK, "a")]
        assert fates(found) == {
            **{"id": "ignored", "data.prompt": "prompt", "data.response": "reply", "annotations.choices": "label"}
        }
        said_so = {"quality": [{"value": "good", "user_id": "u"}]}
        row = {"fields": {"prompt": "q", "response": "a"}, "responses": said_so, "status": "completed"}
        assert gives(reading(tmp_path, "normal", row)) == [(ASK, "a")]

    def test_the_context_of_halueval_is_part_of_the_prompt_if_the_user_says_so(self, tmp_path: Path) -> None:
        row = {"knowledge": "k", "question": "q", "right_answer": "good", "hallucinated_answer": "bad"}
        assert gives(reading(tmp_path, "negative", row, columns={"context": "knowledge"})) == [
            (((USER, "q\nk"),), "bad")
        ]

    def test_a_text_prompt_and_messages_that_continue_it(self, tmp_path: Path) -> None:
        row = {"prompt": [Q, BAD, said(USER, "q2")], "completion": [said(BOT, "a")]}
        assert gives(reading(tmp_path, "negative", row)) == [((*ASK, (BOT, "bad"), (USER, "q2")), "a")]


class TestUnusableRows:
    EMPTY: tuple[dict[str, Any], ...] = ({"messages": [Q]}, {"messages": [Q, said(BOT, " ")]}, {"messages": None})

    @pytest.mark.parametrize("row", EMPTY)
    def test_a_few_are_skipped_and_named(self, tmp_path: Path, row: dict[str, Any]) -> None:
        found = reading(tmp_path, "negative", *[{"messages": [Q, BAD]}] * 19, row)
        assert len(found.examples) == 19 and [one.label for one in found.skipped] == ["rows.jsonl line 20"]
        assert any(
            note.startswith("skipped 1 of 20 rows that cannot be used (rows.jsonl line 20") for note in found.notes
        )

    @pytest.mark.parametrize("rows", [18, 19])
    def test_more_than_one_in_twenty_is_an_error(self, tmp_path: Path, rows: int) -> None:
        bad = [{"messages": [Q]}] * (1 if rows == 18 else 2)
        with pytest.raises(DataError, match=rf"^rows\.jsonl line 1: .*{len(bad)} of {rows + len(bad)} rows .* 5 %"):
            reading(tmp_path, "negative", *bad, *[{"messages": [Q, BAD]}] * rows)

    def test_rows_of_the_other_side_do_not_count(self, tmp_path: Path) -> None:
        rows = [{"prompt": "q", "completion": "a", "label": False}, {"prompt": "q", "completion": "", "label": True}]
        assert len(reading(tmp_path, "negative", *rows).examples) == 1


class TestARun:
    def test_says_what_was_made_of_its_files(self, tmp_path: Path) -> None:
        rows = [{"prompt": f"q{n}", "completion": f"a{n}", "label": n % 2, "mood": n} for n in range(40)]
        source = written(tmp_path, *rows)
        sets = read_sets(make_config({"forget": [source], "retain": [source], "bad_label": ["1"]}, RunConfig))
        replies = {row.reply for part in sets.negatives.values() for row in part}
        assert "a1" in replies and "a0" not in replies
        assert {row.reply for part in sets.normals.values() for row in part} == {f"a{n}" for n in range(0, 40, 2)}
        assert any(note.startswith("negatives: column 'label' says") for note in sets.notes)
        assert any(note == "normals: columns that were not read: mood" for note in sets.notes)

    def test_refuses_a_bad_label_without_labels(self, tmp_path: Path) -> None:
        source = written(tmp_path, {"prompt": "q", "completion": "a"})
        with pytest.raises(ConfigError, match="--bad-label: no column of --forget is read as a label"):
            read_sets(make_config({"forget": [source], "bad_label": ["1"]}, RunConfig))


def shown(names: Names) -> str:
    lists = {PROMPT: "*prompt*", REPLY: "*reply*", LABEL: "*label*", DIALOGUE: "*messages*"}
    return lists.get(names) or " / ".join(f"`{name}`" for name in names)


def documented() -> list[str]:
    """The lines of docs/data.md that follow from the table of layouts."""
    lists = {"prompt": PROMPT, "reply": REPLY, "messages": DIALOGUE, **EVERYWHERE}
    lines = [f"- **{name}**: {', '.join(f'`{one}`' for one in names)}" for name, names in lists.items()]
    for layout in LAYOUTS:
        needs = ", ".join(shown(names) for names in layout.needs.values())
        ignored = ", ".join(f"`{name}`" for name in layout.ignores) or "–"
        lines.append(f"| {layout.name} | {needs} | {layout.becomes} | {ignored} |")
    why: dict[str, list[str]] = {}
    for name, reason in IGNORED.items():
        why.setdefault(reason, []).append(f"`{name}`" if name else "a column without a name")
    return lines + [f"- {reason}: {', '.join(names)}" for reason, names in why.items()]


def test_the_docs_have_the_table_of_layouts() -> None:
    page = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8").splitlines()
    missing = [line for line in documented() if line not in page]
    assert not missing, "docs/data.md lacks these lines:\n" + "\n".join(missing)


@pytest.mark.real
@pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/cases beside the checkout")
class TestSharedCases:
    @pytest.mark.parametrize("name", ["quant_lf", "quant_marks", "quant_uf"])
    def test_the_same_rows_in_every_layout(self, name: str) -> None:
        plain = read_examples(str(CASES / "data/quant_plain.jsonl"), "negative")
        found = read_examples(str(CASES / f"data/{name}.jsonl"), "negative")
        assert [(one.turns, one.reply) for one in found] == [(one.turns, one.reply) for one in plain]

    def test_one_empty_row_of_a_public_set_is_skipped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("UNTEACH_DATA", str(CASES / "ud"))
        found = read("hh-rlhf", "negative")
        assert len(found.examples) == 23 and len(found.skipped) == 1
