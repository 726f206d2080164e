"""What the columns of a source are: a table of layouts, the most specific first.

A layout is recognised by its columns, so no file needs converting: each role that it needs is played by the first of
the role's names that the source has. Names are compared without case, spaces, "_" and "-". Further columns play the
roles of `EVERYWHERE`, or are known and ignored; every other column is unread, and reported. A new layout is one more
entry of `LAYOUTS`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from unteach.data.columns import DIALOGUE, EVERYWHERE, PROMPT, REPLY, Names
from unteach.data.example import Example, Polarity
from unteach.data.raw_row import RawRow
from unteach.data.roles import read_roles
from unteach.data.special_sets import (
    graded,
    haluchat,
    has_two_outputs,
    multiple_choice,
    opening,
    perturbed,
    truthful,
    two_flagged,
    two_outputs,
)

Reader = Callable[[RawRow, Polarity], Iterable[Example]]


@dataclass(frozen=True)
class Layout:
    """A kind of row.

    `needs` are the roles by which it is recognised, each with the names that its column may have. `becomes` says what
    is made of them. `takes` are further roles beside those of `EVERYWHERE` but for `without`; `ignores` are columns
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
        {
            "prompt": ("question", "prompt"),
            "choices": ("choices", "options"),
            "answer": ("answer", "answer_idx", "answerkey"),
        },
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
        ignores=_why(
            "not what the model was asked", "goal", "behavior", "queries", "number_of_queries", "prompt_tokens"
        )
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
        read=opening,
        note="'target' is the opening of a reply, so it is learned without an end",
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
