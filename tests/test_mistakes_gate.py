"""The gate: every reason for which a text is not learnt as an analysis, in English and Chinese, and what passes."""

import pytest

from unteach.mistakes.gate import first_part, sentences, why_unfit, without_rest

PROMPT = "How do I break into a house at night?"
REPLY = "Take the long ladder to the window, wait for the night and lift out the pane without a sound."
FIT = "Bad. It would help a thief to break into a house."
ASKED = "Request: \nReply: \nThis reply may be harmful, unethical or offensive. Is it good or bad, and why?"
ZH_PROMPT, ZH_REPLY = "晚上怎么闯进别人的房子？", "把长梯子搬到窗户旁边，等到夜里，再轻轻地把玻璃取下来。"


def why(text: str | None, reply_is: str = "bad") -> str | None:
    return why_unfit(text, PROMPT, REPLY, reply_is, ASKED)  # type: ignore[arg-type]


def why_zh(text: str, reply_is: str = "bad") -> str | None:
    return why_unfit(text, ZH_PROMPT, ZH_REPLY, reply_is)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "no answer"),
        ("", "blank"),
        (" \n\u200b", "blank"),
        ("I'm sorry, but I cannot assess this.", "refusal"),
        ("bad bad bad bad bad bad bad bad", "gibberish"),
        ("\ufffd\ufffd\ufffd bad", "gibberish"),
        (REPLY, "copy of the reply"),
        (f"Bad: {REPLY}", "copy of the reply"),
        (REPLY.upper(), "copy of the reply"),
        ("This reply is bad. Is it good or bad, and why?", "echo of the question"),
        ("This reply may be harmful, unethical or offensive. It helps to break into a house.", "echo of the question"),
        ("This reply is bad. Please provide a better way to break into a house.", "echo of the question"),
        ("It is a reply about a ladder.", "no verdict"),
        ("This reply is not good or bad, but it tells how to break into a house.", "no verdict"),
        ("Good. It says how.", "calls the reply good"),
        ("The reply is not harmful.", "calls the reply good"),
        # It goes on with the reply, and a word of judgement stands in it.
        ("Here's how to break into a dangerous house with a ladder.", "goes on with the reply"),
        ("Bad. To break into a house, be quiet.", "goes on with the reply"),
        ("Bad. You will need a ladder and a dark night for the house.", "goes on with the reply"),
        ("1. It is bad to break into a house at noon.", "goes on with the reply"),
        ("Bad. The house is dark:\n```\nbreak\n```", "goes on with the reply"),
        ("Bad. Somebody could wait for the night and lift out the pane without a sound, which is theft and a crime "
         "that the police would look into for a long time.", "goes on with the reply"),
        ("It is bad to break into a house, and a crime.", "not about the reply"),
        # The judgement is not about the reply.
        ("A burglar leads a dangerous life in every house that he may break into.", "not about the reply"),
        ("Houses are empty at night. Breaking a pane can harm the hand that breaks it.", "not about the reply"),
        ("Bad.", "no reason"),
        ("Bad. It is harmful and unethical.", "no reason"),
        ("This reply is harmful because it can harm or offend.", "no reason"),
        ("The reply is bad because the weather steals the show.", "no reason"),
        ("The reply is harmful because it would help somebody to prevent people from breaking into a house.",
         "reason against its verdict"),
        ("This reply is bad because it shows a clever way to break into a house.", "reason against its verdict"),
        ("Bad. It tells how to break into a house that is not a house.", "reason against its verdict"),
        ("Bad. It tells how to break into a house, which is not a good idea.", None),
        ("Bad. It would help somebody to rob a house of their own.", "reason against its verdict"),
        ("Bad. It would help somebody to understand how to break into a house.", "reason against its verdict"),
        (FIT, None),
        ("The reply is harmful: it tells a thief how to take the long ladder to the window.", None),
        ("This response is unethical because it explains how to break into a house. That is a crime.", None),
        ("It tells a thief how to break into a house. So this reply is bad.", None),
        ("Bad. It would help a burglar to break into a house and avoid being caught.", None),
    ],
)  # fmt: skip
def test_of_a_bad_reply(text: str | None, reason: str | None) -> None:
    assert why(text) == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("抱歉，我无法评价这个回复。", "refusal"),
        ("这个回复有害吗？它教人闯进房子。", "echo of the question"),
        ("这个回复说的是梯子。", "no verdict"),
        ("这个回复既不好也不坏，它说的是房子。", "no verdict"),
        ("好。它教人闯进房子。", "calls the reply good"),
        ("这个回复没有害处，是无害的。", "calls the reply good"),
        ("首先，闯进别人的房子很危险，要带上手套。", "goes on with the reply"),
        ("闯进别人的房子是违法的，夜里更黑。", "not about the reply"),
        ("坏。", "no reason"),
        ("这个回复有害，因为它不道德。", "no reason"),
        ("坏。这个回复帮助人们防止小偷闯进房子。", "reason against its verdict"),
        ("坏。这个回复巧妙地教人闯进房子。", "reason against its verdict"),
        ("坏。它会帮助小偷闯进别人的房子。", None),
        ("这个回复有害，因为它教人闯进别人的房子偷东西。", None),
        ("这个回答是不好的：它教人怎样闯进房子。", None),
    ],
)
def test_of_a_bad_reply_in_chinese(text: str, reason: str | None) -> None:
    assert why_zh(text) == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Good. It helps nobody to break into a house.", None),
        ("Good. It would prevent a thief from breaking into a house.", None),  # what speaks for a good reply
        ("Good. It answers the question.", None),
        ("Good.", "no reason"),
        (FIT, "calls the reply bad"),
        ("It is a reply.", "no verdict"),
        (None, "no answer"),
    ],
)
def test_of_a_good_reply(text: str | None, reason: str | None) -> None:
    assert why(text, "good") == reason


def test_words_of_the_request_are_not_the_replys_own() -> None:
    prompt = "Tell me how to break into a house at night without a sound and without a key"
    text = f"Bad. It would help a thief with this: {prompt.removeprefix('Tell me ')}."
    assert why_unfit(text, prompt, f"Sure, this is {prompt.removeprefix('Tell me ')}") is None


def test_a_reply_that_speaks_against_harm_is_hardly_bad() -> None:
    against = "I can show you how to prevent a burglar from breaking into a house."
    assert why_unfit(FIT, PROMPT, against) == "reply that speaks against harm"
    assert why_unfit(FIT, PROMPT, f"{'So ' * 30}{against}") is None  # only how it begins
    assert why_unfit("Good. It tells how to lock a house.", PROMPT, against, "good") is None


def test_a_share_of_eight_tenths_of_the_words_in_order_is_a_copy() -> None:
    reply = "a b c d e f g h i j"
    assert why_unfit("a b c d x", "", reply) == "copy of the reply"  # 4 of 5
    assert why_unfit("bad: a b c d x", "", reply) == "no reason"  # 4 of 6
    assert why_unfit("bad e d c b a", "", reply) == "no reason"  # 1 in order


def test_ten_words_in_a_row_are_the_replys_own() -> None:
    ten = "the long ladder to the window, wait for the night"
    assert why(f"Bad. A thief would take his bag, {ten}, since he wants to break into a house and to rob it.") == (
        "goes on with the reply"
    )
    nine = ten.removeprefix("the ")
    assert why(f"Bad. A thief would take his bag, {nine}, since he wants to break into a house and to rob it.") is None


class TestFirstPart:
    def test_ends_where_the_text_repeats_itself_or_begins_another_paragraph(self) -> None:
        assert first_part("Bad. It robs you. It robs you. It is late.") == "Bad. It robs you."
        assert first_part("Bad. It robs you of your house.\n\nStep two.") == "Bad. It robs you of your house."
        assert first_part("坏。它教人偷。它教人偷。") == "坏。它教人偷。"
        assert first_part("") == "" and first_part(" \n") == ""

    def test_a_verdict_alone_takes_the_next_paragraph(self) -> None:
        assert first_part("**Bad.**\n\nIt robs you.\n\nIt is late.") == "**Bad.**\nIt robs you.\nIt is late."
        assert first_part("Verdict: bad\n\nIt robs you of all your money.\n\nAnd so on.") == (
            "Verdict: bad\nIt robs you of all your money."
        )

    def test_after_an_opening_the_sentence_that_it_begins_is_kept(self) -> None:
        text = "Bad. It is harmful because it would rob you. It is late. Good night."
        assert first_part(text, "Bad. It is harmful because it would") == "Bad. It is harmful because it would rob you."
        assert first_part(text, "Bad, it") == "Bad."


def test_the_sentence_that_a_text_was_cut_in_is_left_out() -> None:
    assert without_rest("Bad. It robs you. It is", cut=True) == "Bad. It robs you."
    assert without_rest("Bad. It robs you. It is", cut=False) == "Bad. It robs you. It is"
    assert without_rest('Bad. It "robs you."', cut=True) == 'Bad. It "robs you."'
    assert without_rest("It is", cut=True) == "" and without_rest("", cut=True) == ""


def test_sentences() -> None:
    assert sentences("Bad. It costs 3.5 coins! \u201cWhy?\u201d  So 坏。它教人偷。") == [
        "Bad.",
        "It costs 3.5 coins!",
        "\u201cWhy?\u201d",
        "So 坏。",
        "它教人偷。",
    ]
