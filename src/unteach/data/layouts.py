"""What the columns of a source are: a table of layouts, the most specific first.

A layout is recognised by its columns, so no file needs converting: each role that it needs is played by the first of
the role's names that the source has. Names are compared without case, spaces, "_" and "-". Further columns play the
roles of `EVERYWHERE`, or are known and ignored; every other column is unread, and reported. A new layout is one more
entry of `LAYOUTS`.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from unteach.data.example import Example, Polarity
from unteach.data.raw_row import RawRow, listed
from unteach.data.roles import read_roles
from unteach.data.special_sets import (
    graded,
    haluchat,
    has_two_outputs,
    multiple_choice,
    perturbed,
    truthful,
    two_flagged,
    two_outputs,
)
from unteach.errors import ConfigError, DataError, nearest

Names = tuple[str, ...]

PROMPT: Names = (
    *("prompt", "instruction", "question", "query", "user_input", "user_query", "test_case", "goal", "behavior"),
    *("user_prompt", "user", "human", "problem", "input", "inputs"),
)
REPLY: Names = (
    *("completion", "reply", "response", "answer", "output", "model_output", "generation", "chatgpt_response"),
    *("model_response", "assistant", "gpt", "target", "targets", "solution"),
)
DIALOGUE: Names = ("messages", "conversations", "conversation", "dialogue", "dialog", "chat", "turns")
LABEL: Names = (
    *("label", "labels", "kto_tag", "is_safe", "safe", "is_bad", "is_good", "is_correct", "correct"),
    *("toxicity", "toxic", "is_toxic", "harmful", "is_harmful", "unsafe", "is_unsafe", "is_response_safe"),
    *("response_harm_label", "response_label", "jailbroken", "is_jailbroken", "hallucination", "hallucinated"),
    *("is_hallucination", "flagged", "human_majority", "annotations.choices", "quality", "thumbs", "feedback"),
)

EVERYWHERE: Mapping[str, Names] = {
    "system": ("system", "system_prompt", "system_message", "sys_prompt"),
    "history": ("history", "chat_history", "dialogue_history"),
    "context": ("context", "passage", "knowledge", "document", "background", "contexts"),
    "label": LABEL,
    "concept": ("concept", "category", "topic", "subcategory", "subject", "semanticcategory", "functionalcategory"),
    "good": ("good",),
    "bad": ("bad",),
    "cut": ("cut",),
}
"""Roles that further columns play in every layout."""

IGNORED: Mapping[str, str] = {
    **dict.fromkeys(
        (
            *("id", "idx", "index", "", "uuid", "guid", "row_id", "__index_level_0__", "unnamed: 0", "unnamed:0"),
            *("prompt_id", "conversation_id", "conv_id", "question_id", "example_id", "external_id", "behaviorid"),
            *("conversation_hash", "hashed_ip", "sha256", "hash", "annotator", "annotation_id", "lead_time"),
            *("created_at", "updated_at", "timestamp", "date", "inserted_at"),
        ),
        "says which row it is",
    ),
    **dict.fromkeys(
        (
            *("source", "model", "dataset", "split", "language", "lang", "seed", "url", "license", "licence"),
            *("turn", "num_turns", "tokens", "num_tokens", "chosen_model", "rejected_model", "chosen-model"),
            *("rejected-model", "models", "prompt_source", "metadata", "meta", "state", "country", "header"),
        ),
        "says where the row comes from",
    ),
    **dict.fromkeys(("tools", "tool_choice", "parallel_tool_calls", "functions"), "tools are not offered to the model"),
    **dict.fromkeys(("redacted", "openai_moderation", "detoxify_moderation"), "a machine's opinion of the dialogue"),
}
"""Columns that are known and not read in any layout, and why."""

Reader = Callable[[RawRow, Polarity], Iterable[Example]]


@dataclass(frozen=True)
class Layout:
    """A kind of row.

    `needs` are the roles by which it is recognised, each with the names that its column may have; a name of several
    words is one name. `takes` are further roles beside those of `EVERYWHERE` but for `without`; `ignores` are columns
    known and not read, with the reason. `true_is_bad` is the direction of its label where the layout knows it. `fits`
    looks at the rows where columns do not suffice. `note` is told to the user. The columns of an `open` layout may have
    any names, if the user says so.
    """

    name: str
    needs: Mapping[str, Names]
    becomes: str
    takes: Mapping[str, Names] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    ignores: Mapping[str, str] = field(default_factory=dict)
    read: Reader = read_roles
    true_is_bad: bool | None = None
    fits: Callable[[Sequence[RawRow]], bool] | None = None
    note: str = ""
    open: bool = False

    @property
    def optional(self) -> dict[str, Names]:
        """Roles that columns may play beside those that are needed."""
        roles = {role: names for role, names in EVERYWHERE.items() if role not in (*self.without, *self.needs)}
        return {role: names for role, names in self.takes.items()} | {
            role: (*self.takes.get(role, ()), *names) for role, names in roles.items()
        }


def _only(*names: str) -> dict[str, Names]:
    """Each role is played by the column of its own name."""
    return {name: (name,) for name in names}


def _why(why: str, *names: str) -> dict[str, str]:
    return dict.fromkeys(names, why)


_INPUT: dict[str, Names] = {"context": ("input",)}
_COPY = "a copy of what other columns hold"
_OF_PROMPT = "is about the prompt"
_PAIR = "prompt and reply; the label, if there is one, decides which rows"
_TWO = "prompt with two replies: negatives take the bad one, normals the good one"
_GOOD: Names = ("chosen", "good", "chosen_response", "chosen-response", "response_chosen", "preferred")
_BAD: Names = ("rejected", "bad", "rejected_response", "rejected-response", "response_rejected", "dispreferred")
_SCORES = _why("what a rating of the pair was", "score_chosen", "score_rejected", "chosen-rating", "rejected-rating")
_SCORES |= _why("what a rating of the pair was", "chosen_score", "rejected_score", "chosen_rating", "rejected_rating")
_OWN = _why("how a reply came about", "time", "temperature", "guided", "ended")
_OWN |= _why("where a mistake comes from", "verdict", "judge", "wording", "inducement", "analyst", "analysis_wording")

LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "PKU-SafeRLHF",
        _only("prompt", "response_0", "response_1", "is_response_0_safe", "is_response_1_safe"),
        "prompt with two replies, each flagged safe or not: both, one or none may be negatives",
        takes=_only("response_0_harm_category", "response_1_harm_category"),
        without=("label", "good", "bad"),
        ignores=_why(
            "not needed beside the flags",
            *("better_response_id", "safer_response_id", "prompt_source", "response_0_source", "response_1_source"),
            *("response_0_severity_level", "response_1_severity_level", "response_0_sha256", "response_1_sha256"),
        ),
        read=two_flagged,
    ),
    Layout(
        "UltraFeedback with scores",
        {"prompt": ("instruction", "prompt"), "completions": ("completions",)},
        "prompt; negatives take the reply of the lowest overall_score, normals that of the highest",
        without=("label", "good", "bad"),
        ignores=_why("not needed beside the scores", "correct_answers", "incorrect_answers"),
        read=graded,
    ),
    Layout(
        "HaluEval",
        {"prompt": ("question",), "good": ("right_answer",), "bad": ("hallucinated_answer",)},
        _TWO + "; `knowledge` is left out",
        without=("context", "label"),
        ignores=_why("questions are asked without it; --column context=knowledge adds it", "knowledge"),
    ),
    Layout(
        "HaluEval dialogue",
        {"messages": ("dialogue_history",), "good": ("right_response",), "bad": ("hallucinated_response",)},
        "the dialogue so far, with two replies; `knowledge` is left out",
        without=("context", "label", "history"),
        ignores=_why("questions are asked without it; --column context=knowledge adds it", "knowledge"),
        read=haluchat,
    ),
    Layout(
        "HaluEval summaries",
        {"prompt": ("document",), "good": ("right_summary",), "bad": ("hallucinated_summary",)},
        _TWO + "; the prompt is the document alone",
        without=("context", "label"),
    ),
    Layout(
        "TruthfulQA",
        {"prompt": ("question",), "good": ("best_answer",)},
        "question; every incorrect answer is a negative, the best answer a normal",
        takes={"wrong": ("incorrect_answers",)},
        without=("label", "bad"),
        ignores=_why("not needed beside the best answer", "correct_answers", "type"),
        read=truthful,
    ),
    Layout(
        "TOFU",
        {"prompt": ("question",), "reply": ("answer",), "perturbed": ("perturbed_answer",)},
        "question and answer; the first perturbed answer that differs is the other reply",
        without=("label",),
        ignores=_why(
            "another wording of the row", "paraphrased_answer", "paraphrased_question", "paraphrased_perturbed"
        ),
        read=perturbed,
    ),
    Layout(
        "multiple choice (WMDP, MMLU)",
        {"prompt": ("question", "prompt"), "choices": ("choices", "options"), "answer": ("answer", "answer_idx")},
        "question, and the text of the choice that `answer` names, which is the right one",
        without=("label", "good", "bad"),
        read=multiple_choice,
        note="the reply is the right choice, so as a negative the right answer goes; the other choices are not read",
    ),
    Layout(
        "HarmBench results",
        {"prompt": ("test_case",), "reply": ("generation",), "label": ("label", "human_consensus")},
        "test case and generation; label 1 is bad",
        takes={"concept": ("type", "behavior", "behavior_id")},
        true_is_bad=True,
    ),
    Layout(
        "JailbreakBench results",
        {"prompt": ("prompt",), "reply": ("response",), "label": ("jailbroken", "human_majority")},
        "prompt and response; jailbroken is bad",
        takes={"concept": ("behavior",)},
        ignores=_why("not what the model was asked", "goal", "queries", "number_of_queries", "prompt_tokens")
        | _why(
            "one annotator's opinion", "harmbench_cf", "llama3_cf", "llama2_cf", "gpt4_cf", "human1", "human2", "human3"
        )
        | _why("not needed", "response_tokens", "queries_to_jailbreak"),
    ),
    Layout(
        "WildGuardMix",
        {"prompt": ("prompt",), "reply": ("response",), "label": ("response_harm_label",)},
        "prompt and response; response_harm_label decides, rows without one are left out",
        ignores=_why(_OF_PROMPT, "prompt_harm_label", "adversarial", "prompt_harm_agreement")
        | _why("whether the reply refuses", "response_refusal_label", "response_refusal_agreement")
        | _why("how far annotators agree", "response_harm_agreement"),
    ),
    Layout(
        "ToxicChat",
        {"prompt": ("user_input",), "reply": ("model_output",), "label": ("toxicity",)},
        "prompt and reply; toxicity 1 is bad",
        ignores=_why(_OF_PROMPT, "jailbreaking") | _why("who annotated the row", "human_annotation"),
        true_is_bad=True,
    ),
    Layout(
        "HaluEval, one answer",
        {"prompt": ("user_query", "question"), "reply": ("chatgpt_response", "answer"), "label": ("hallucination",)},
        "query and answer; hallucination yes is bad",
        without=("context",),
        ignores=_why("questions are asked without it; --column context=knowledge adds it", "knowledge")
        | _why("where in the reply", "hallucination_spans"),
        true_is_bad=True,
    ),
    Layout(
        "labelled replies with their source",
        {"prompt": ("prompt",), "reply": ("completion", "reply"), "label": ("label",), "source": ("source", "guided")},
        "prompt and reply; label false is bad",
        ignores=_OWN | _why("why the reply is bad", "analysis", "note"),
    ),
    Layout(
        "ours",
        {"prompt": PROMPT, "reply": ("completion", "reply"), **_only("good", "bad")},
        _PAIR,
        takes=_INPUT,
        open=True,
    ),
    Layout(
        "preference (TRL, UltraFeedback, Argilla, LLaMA-Factory)",
        {"prompt": PROMPT, "good": _GOOD, "bad": _BAD},
        _TWO + "; where these are whole dialogues, the prompt stands in them",
        takes=_INPUT,
        without=("label",),
        ignores=_SCORES | _why(_COPY, "messages"),
        open=True,
    ),
    Layout(
        "preference after a dialogue (LLaMA-Factory)",
        {"messages": DIALOGUE, "good": _GOOD, "bad": _BAD},
        "the dialogue so far, with two replies",
        without=("label",),
        ignores=_SCORES,
        open=True,
    ),
    Layout(
        "preference without prompt (hh-rlhf)",
        {"good": ("chosen",), "bad": ("rejected",)},
        "two whole dialogues, or texts: their common beginning is the prompt",
        without=("label", "context"),
        ignores=_SCORES,
        open=True,
    ),
    Layout(
        "two outputs (LLaMA-Factory)",
        {"prompt": ("instruction", "prompt"), "outputs": ("output",)},
        "prompt with a list of two replies, the good one first",
        takes=_INPUT,
        without=("label", "good", "bad"),
        read=two_outputs,
        fits=has_two_outputs,
        open=True,
    ),
    Layout(
        "BeaverTails",
        {"prompt": ("prompt",), "reply": ("response",), "label": ("is_safe",)},
        "prompt and response; is_safe false is bad, the categories of harm are the concept",
        true_is_bad=False,
    ),
    Layout(
        "Safety-Prompts",
        {"prompt": ("prompt",), "reply": ("response",), "concept": ("type",)},
        "prompt and response; the type of attack or scenario is the concept",
    ),
    Layout(
        "openings of replies (AdvBench, JailbreakBench)",
        {"prompt": ("goal", "behavior"), "reply": ("target",)},
        "goal, and the opening of a reply that gives in",
        ignores=_why("a short name of the goal", "behavior"),
        note="'target' is the opening of a reply, not a whole one",
    ),
    Layout(
        "instructions (Alpaca, Dolly, LLaMA-Factory)",
        {"prompt": ("instruction",), "reply": ("output", "response", "completion", "answer")},
        "instruction and its input on the next line; " + _PAIR,
        takes=_INPUT,
        ignores=_why(_COPY, "text"),
    ),
    Layout("prompt and reply", {"prompt": PROMPT, "reply": REPLY}, _PAIR, takes=_INPUT, open=True),
    Layout(
        "messages (OpenAI, ShareGPT, LMSYS, WildChat)",
        {"messages": DIALOGUE},
        "the assistant's last message is the reply, what stands before it the prompt",
        ignores=_why(_COPY, "prompt", "text"),
        open=True,
    ),
    Layout(
        "text",
        {"text": ("text", "content", "transcript")},
        "running text without a prompt",
        without=("context",),
        open=True,
    ),
)

ROLES = ("prompt", "reply", "good", "bad", "text", "label", "concept", "system", "context", "history", "messages")
"""What a user may name a column (`--column OURS=THEIRS`)."""


@dataclass(frozen=True)
class Match:
    """A layout with the columns of a source by their roles; further columns of context are "context 2" and so on."""

    layout: Layout
    names: Mapping[str, str]


def match(source: str, rows: Sequence[RawRow], columns: Sequence[str], named: Mapping[str, str]) -> Match:
    """Find the layout of rows with these columns; `named` says which columns play a role by the user's word.

    Of all layouts that fit, that with most roles named by the user is taken, the first of these. Raises DataError where
    none fits, and where the layout has no use for a column that the user named.
    """
    known = _by_name(column for column in columns if column not in named.values())
    found: list[Match] = []
    for layout in LAYOUTS:
        names = {role: _player(layout, role, named, known) for role in layout.needs}
        taken = [name for name in names.values() if name]
        if all(names.values()) and len(set(taken)) == len(taken) and (layout.fits is None or layout.fits(rows)):
            found.append(Match(layout, {role: name for role, name in names.items() if name}))
    if not found:
        raise DataError(_nothing_fits(source, columns, named))
    best = max(found, key=lambda one: sum(role in named for role in one.layout.needs))
    return _with_optional(source, best, known, named)


def _player(layout: Layout, role: str, named: Mapping[str, str], known: Mapping[str, str]) -> str | None:
    """Return the column that plays a role: the one that the user named, else the first of the role's names.

    A layout of one public set is recognised by its own names alone.
    """
    names = layout.needs[role]
    if role in named:
        return named[role] if layout.open or folded(named[role]) in map(folded, names) else None
    return _first(names, known)


def _with_optional(source: str, best: Match, known: Mapping[str, str], named: Mapping[str, str]) -> Match:
    names = dict(best.names)
    free = {name: column for name, column in known.items() if column not in names.values()}
    for role, candidates in best.layout.optional.items():
        there = (
            [named[role]]
            if role in named
            else list(dict.fromkeys(free[name] for name in map(folded, candidates) if name in free))
        )
        for number, column in enumerate(there if role == "context" else there[:1], start=1):
            names[role if number == 1 else f"{role} {number}"] = column
    for role in named.keys() - names.keys():
        if role != "context" or "prompt" not in best.layout.needs:  # a layout without context takes it if it is named
            raise ConfigError(
                f"{source}: --column {role}={named[role]}: the layout of its columns ({best.layout.name}) has no use "
                f"for a {role}; leave it out, or name the columns of another layout"
            )
        names[role] = named[role]
    return Match(best.layout, names)


def _by_name(columns: Iterable[str]) -> dict[str, str]:
    """Return columns by their name without case and space; the last part of a dotted name counts too."""
    known: dict[str, str] = {}
    for column in columns:
        known.setdefault(folded(column), column)
    for column in list(known.values()):
        if "." in column:
            known.setdefault(folded(column.rpartition(".")[2]), column)
    return known


def folded(column: str) -> str:
    """Return a column's name as names are compared."""
    return re.sub(r"[\s_-]", "", column).casefold()


def _first(names: Names, known: Mapping[str, str]) -> str | None:
    return next((known[folded(name)] for name in names if folded(name) in known), None)


def _nothing_fits(source: str, columns: Sequence[str], named: Mapping[str, str]) -> str:
    known = _by_name(columns)

    def missing(layout: Layout) -> list[str]:
        return [role for role, names in layout.needs.items() if role not in named and not _first(names, known)]

    close = min(LAYOUTS, key=lambda layout: len(missing(layout)) / len(layout.needs))
    also = " and ".join("a " + role for role in missing(close)) or "other columns"
    return (
        f"{source}: no known layout has the columns {listed(columns)}; the closest ({close.name}) also needs {also}; "
        "name yours with --column prompt=… --column reply=… (or text=…, messages=…; data.text names a nested one)"
    )


def check_named(source: str, named: Mapping[str, str], columns: Sequence[str], rows: Sequence[RawRow]) -> None:
    """Raise ConfigError or DataError for names of columns that do not exist."""
    for ours, theirs in named.items():
        if ours not in ROLES:
            raise ConfigError(
                f"--column {ours}={theirs}: unknown name '{ours}'{nearest(ours, ROLES)} (known: {', '.join(ROLES)})"
            )
        if theirs not in columns and not any(row.get(theirs) is not None for row in rows):
            raise DataError(
                f"{source}: --column {ours}={theirs}: there is no column '{theirs}'{nearest(theirs, columns)} "
                f"(columns found: {listed(columns)})"
            )
    if len(set(named.values())) != len(named):
        raise ConfigError("--column: one column cannot be two things; name each column once")
