"""Names of columns: the roles that columns play and the names that people give them, and what is known and not read."""

import re
from collections.abc import Mapping, Sequence

from unteach.data.raw_row import RawRow, listed
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
DIALOGUE: Names = ("messages", "conversations", "conversation", "dialogue", "dialog", "chat", "turns", "items")
LABEL: Names = (
    *("label", "labels", "kto_tag", "is_safe", "safe", "is_bad", "is_good", "is_correct", "correct"),
    *("toxicity", "toxic", "is_toxic", "harmful", "is_harmful", "unsafe", "is_unsafe", "is_response_safe"),
    *("response_harm_label", "response_label", "jailbroken", "is_jailbroken", "hallucination", "hallucinated"),
    *(
        "is_hallucination",
        "flagged",
        "human_majority",
        "annotations.choices",
        "label.responses",
        "quality.responses",
        "quality",
        "thumbs",
        "feedback",
    ),
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
            *(
                "conversation_hash",
                "hashed_ip",
                "sha256",
                "hash",
                "annotator",
                "annotation_id",
                "lead_time",
                "users",
                "status",
                "suggestion",
            ),
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

ROLES = ("prompt", "reply", "good", "bad", "text", "label", "concept", "system", "context", "history", "messages")
"""What a user may name a column (`--column OURS=THEIRS`)."""


def folded(column: str) -> str:
    """Return a column's name as names are compared."""
    return re.sub(r"[\s_-]", "", column).casefold()


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
