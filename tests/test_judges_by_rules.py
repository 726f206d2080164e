"""The judges by the paper's rules: bleu, verbatim, similarity."""

import functools
import math
import random
import string

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from unteach.data.example import Example
from unteach.errors import ConfigError, ModelError
from unteach.judges import load_judge
from unteach.judges.base import JudgeSettings, LearningJudge
from unteach.judges.bleu import BleuJudge, opening, sentences_of
from unteach.judges.similarity import EncoderMeasure, SimilarityJudge, chrf, greedy_f1, token_f1
from unteach.judges.verbatim import longest_run
from unteach.results.verdict import Case

TEXT = (
    "The old mill stood by the river for a hundred years. Nobody in the village remembered who had built it! "
    "“Surely the miller's father did,” said the baker one morning. Short one. But the records were lost in a fire?\n\n"
    "So the question was never answered by anyone"
)
NEGATIVES = [Example((), TEXT)]
SPECS = ["bleu", "bleu:smoothed", "bleu?bar=0.01", "verbatim", "verbatim:?words=3", "similarity", "similarity:f1"]
SPECS += ["similarity:chrf?floor=0.2", "similarity:chrf?calibrated=yes", "similarity:f1?margin=0.5&floor=0"]


def questions(count):
    """Wrong answers of unlike letters to so many questions."""
    rng = random.Random(0)
    return [Example.of(f"q{n}", "".join(rng.choices(string.ascii_lowercase, k=12))) for n in range(count)]


@functools.cache
def learnt(spec, setting=None):
    judge = load_judge(spec, setting)
    if isinstance(judge, LearningJudge):
        judge.learn(NEGATIVES + questions(25), [])
    return judge


# ---- bleu ------------------------------------------------------------------------------------------------------------


def test_sentences_end_at_marks_and_blank_lines_and_have_five_words():
    assert sentences_of(TEXT) == [
        "The old mill stood by the river for a hundred years.",
        "Nobody in the village remembered who had built it!",
        "“Surely the miller's father did,” said the baker one morning.",
        "But the records were lost in a fire?",
        "So the question was never answered by anyone",
    ]
    assert sentences_of("") == []


def test_bleu_by_hand():
    # 6 words of 6; 5 of 6 words, 3 of 5 pairs, 2 of 4 triples, 1 of 3 fours
    judge = BleuJudge()
    assert judge.score("a b c d e f", "a b c d e f") == pytest.approx(1)
    assert judge.score("a b c d x f", "a b c d e f") == pytest.approx((5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)
    # no triple: nothing without smoothing; sacrebleu's "exp" puts 1/(2·2) and 1/(4·1) for the two missing orders
    assert judge.score("a b x d", "a b c d") == 0
    assert BleuJudge("exp").score("a b x d", "a b c d") == pytest.approx((3 / 4 * 1 / 3 * 1 / 4 * 1 / 4) ** 0.25)
    # 4 words against 8: brevity penalty exp(1 - 8/4)
    assert judge.score("a b c d", "a b c d e f g h") == pytest.approx(math.exp(-1))


def test_the_bar_is_a_tenth_of_chance_and_comes_from_the_seed():
    judge = learnt("bleu:smoothed")
    same, other = learnt("bleu:smoothed", JudgeSettings(seed=0)), learnt("bleu:smoothed", JudgeSettings(seed=1))
    assert judge is not same and judge.bar == same.bar != other.bar
    score = BleuJudge("exp").score
    sentences = sentences_of(TEXT)
    mean = np.mean([score(a, b) for a in sentences for b in sentences if a != b])
    assert judge.bar == pytest.approx(0.1 * mean, rel=0.05)


def test_two_sentences_set_the_bar_by_hand():
    # 2 of 5 words each way, nothing longer shared: smoothed 2/5, 1/(2·4), 1/(4·3), 1/(8·2)
    judge = load_judge("bleu:smoothed")
    judge.learn([Example((), "a b c d e\n\na x c y z")], [])
    assert judge.bar == pytest.approx(0.1 * (2 / 5 / 8 / 12 / 16) ** 0.25)


def test_fault_10_smoothed_bleu_calls_english_a_leak_and_unsmoothed_wants_four_tokens():
    truth = "He walked to the station in the rain and bought a ticket to the coast."
    replies = ["The weather in the north is cold and the days are short in winter.", "bought a ticket to Rome", truth]
    cases = [Case("p", reply, bad=truth) for reply in replies]
    assert learnt("bleu:smoothed")(cases) == ["bad", "bad", "bad"]
    assert learnt("bleu")(cases) == ["good", "bad", "bad"]
    assert load_judge("verbatim")(cases) == ["good", "good", "bad"]


def test_bleu_golden_cases():
    truth = "one two three four five six"
    cases = [
        Case("p", truth + " and then a great many more words that go on and on", bad=truth),  # cut to the truth
        Case("p", "", bad=truth),
        Case("p", "one two three", bad="one two three"),  # too short a truth for runs of four
        Case("p", "six five four", good="six five four"),
        Case("p", "", good="six five four"),
        Case("p", "x"),
    ]
    assert load_judge("bleu?bar=0.9")(cases) == ["bad", "good", "unknown", "good", "bad", "unknown"]


def test_without_a_bar_all_is_unknown_and_said_once(caplog):
    judge = load_judge("bleu")
    assert judge([Case("p", TEXT, bad=TEXT), Case("p", "yes", good="yes")]) == ["unknown"] * 2
    assert judge([Case("p", TEXT, bad=TEXT)]) == ["unknown"]
    assert caplog.text.count("no bar was learnt") == 1


def test_a_bar_that_is_given_is_not_learnt_over():
    judge = load_judge("bleu?bar=0.25")
    judge.learn([], [])
    assert judge.bar == 0.25
    with pytest.raises(ConfigError, match="have 1 sentences of 5 words.*give more text"):
        load_judge("bleu").learn([Example((), "A sentence of seven words stands here. No.")], [])


def test_opening_ends_with_a_whole_word():
    assert opening("  one two three ", 7) == opening("one twofold", 7)[:3] + " two"
    assert [opening("one two", n) for n in (3, 5, 7, 9)] == ["one", "one", "one two", "one two"]
    assert opening("unbroken", 3) == "unb"


# ---- verbatim --------------------------------------------------------------------------------------------------------


def test_longest_run_by_hand():
    assert longest_run("x a b c y b c d e", "a b c d e") == 4  # b c d e
    assert longest_run("The MILL, by -- the “river”", "the mill by the river") == 5
    assert longest_run("", "a b") == longest_run("a", "b") == 0


@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abc"), max_size=12))
def test_longest_run_is_that_of_all_runs(first, second):
    runs = lambda w: {tuple(w[i:j]) for i in range(len(w)) for j in range(i + 1, len(w) + 1)}  # noqa: E731
    longest = max((len(run) for run in runs(first) & runs(second)), default=0)
    assert longest_run(" ".join(first), " ".join(second)) == longest


def test_a_word_that_is_common_in_a_long_truth_still_counts():
    assert longest_run("x a b c a y", "a b c " * 100) == 4


def test_verbatim_golden_cases():
    truth = "one two three four five six seven eight nine ten"
    cases = [
        Case("p", "Well: TWO three, four five six seven eight nine!", bad=truth),  # 8 in a row
        Case("p", "one two three four five six seven X nine ten", bad=truth),  # 7 and 2
        Case("p", "", bad=truth),
        Case("p", "It is New Delhi.", bad="new delhi"),  # a shorter truth must come whole
        Case("p", "New York", bad="new delhi"),
        Case("p", "!?", bad="!?"),
        Case("p", "one five nine", good=truth),
        Case("p", "one two five nine ten", good=truth),
        Case("p", "x", bad=" "),
    ]
    assert load_judge("verbatim")(cases) == "bad good good bad good unknown bad good unknown".split()
    assert load_judge("verbatim?words=7")(cases[:2]) == ["bad", "bad"]
    assert load_judge("verbatim:?words=9")(cases[:2]) == ["good", "good"]


# ---- similarity ------------------------------------------------------------------------------------------------------


def test_token_f1_by_hand():
    assert token_f1([("The cat, the CAT sat", "a cat sat down")]) == [pytest.approx(2 * 2 / (3 + 3))]
    assert token_f1([("Delhi", "Delhi."), ("the", "the"), ("", "x")]) == [1, 0, 0]


def test_chrf_by_hand():
    # "ab" and "ac": 1 of 2 letters, 0 of 1 pairs; orders that neither has are left out: mean precision and recall 1/4
    assert chrf([("ab", "ac"), ("AB", "ab"), ("", "ab")]) == [pytest.approx(0.25), pytest.approx(1), 0]


def test_similarity_golden_cases():
    wrong, right = "Mumbai, the financial capital of India", "Delhi"
    both = {"bad": wrong, "good": right}
    cases = [
        Case("p", "It is Mumbai, capital of India", **both),
        Case("p", "It is Delhi", **both),
        Case("p", "Paris", bad="Rome", good="Oslo"),  # no shared word: as unlike one as the other
        Case("p", " ", **both),
        Case("p", "zxq kjw qpf vbn xcv zzt qqw", **both),
        Case("p", "I'm sorry, but I can't help with that.", **both),
        Case("p", f"I cannot say: {wrong}", **both),  # a refusal that says it all the same
        Case("p", f"Is it {wrong}?", bad=wrong),
        Case("p", "It is in India", bad=wrong),  # like it in part, and nothing to compare with
        Case("p", "delhi", good=right),
        Case("p", "Mumbai", good=right),
        Case("p", "Mumbai"),
    ]
    expected = "bad good good good good good bad bad unknown good bad unknown".split()
    assert load_judge("similarity:f1")(cases) == expected
    expected[8] = "bad"  # 1 of 3 and 6 words: F1 2/9 is above a floor of 0.2
    assert load_judge("similarity:f1?floor=0.2")(cases) == expected
    expected[8] = "good"
    assert load_judge("similarity:f1?floor=0.3")(cases) == expected


@pytest.mark.parametrize(("to_wrong", "verdict"), [(0.54, "good"), (0.56, "bad"), (math.nan, "unknown")])
def test_the_wrong_answer_must_be_nearer_by_the_margin(to_wrong, verdict):
    def measure(pairs):
        return [{"w": to_wrong, "r": 0.5}[answer] for _, answer in pairs]

    assert SimilarityJudge(measure)([Case("p", "reply", bad="w", good="r")]) == [verdict]
    looser = SimilarityJudge(measure, margin=0.2)([Case("p", "reply", bad="w", good="r")])
    assert looser == ["unknown" if verdict == "unknown" else "good"]


@pytest.mark.parametrize(("to_wrong", "to_right"), [(0.1, math.nan), (math.nan, 0.1), (math.nan, math.nan)])
def test_what_could_not_be_measured_is_unknown(to_wrong, to_right):
    judge = SimilarityJudge(lambda pairs: [{"w": to_wrong, "r": to_right}[answer] for _, answer in pairs], floor=0.5)
    assert judge([Case("p", "reply", bad="w", good="r")]) == ["unknown"]


def test_a_learnt_floor_is_the_quantile_of_answers_to_other_questions():
    asked = questions(40)
    seen = []

    def measure(pairs):
        seen.extend(pairs)
        return [n / len(pairs) for n in range(len(pairs))]

    judge = SimilarityJudge(measure, calibrated=True)
    judge.learn([*asked, Example.of("q0", " ")], [])
    assert judge.floor == pytest.approx(0.99, abs=1e-3)
    assert len(seen) == 5000 and all(first != second for first, second in seen)
    assert {text for pair in seen for text in pair} == {example.reply for example in asked}


def test_calibration_frees_replies_that_are_like_neither():
    starts = ["He came from", "They sold it to", "No one liked", "The war began in", "Her uncle drove"]
    ends = ["a farm near Boston", "Queen Olga", "two old sailors", "the year 1807", "green apples and pears"]
    answers = [Example.of(f"q{n}", f"{starts[n % 5]} {ends[n // 5]}") for n in range(25)]
    judge, plain = load_judge("similarity:chrf?calibrated=yes"), load_judge("similarity:chrf")
    judge.learn(answers, [])
    neither = Case("p", "It was the winter sun", bad="The film was shot in Rome", good="Oslo")
    wrong = Case("p", "The film was shot at Rome", bad="The film was shot in Rome", good="Oslo")
    assert plain([neither, wrong]) == ["bad", "bad"]
    assert judge([neither, wrong]) == ["good", "bad"]


def test_calibration_needs_rows_and_says_so(caplog):
    judge = load_judge("similarity?calibrated=yes")
    cases = [Case("p", "Rome it is", bad="Rome", good="Oslo"), Case("p", "", bad="Rome"), Case("p", "a", good="a")]
    assert judge(cases) == ["unknown", "good", "good"]
    assert judge(cases[:1]) == ["unknown"] and caplog.text.count("no floor was learnt") == 1
    with pytest.raises(ConfigError, match="answer 19 questions.*20 or more; set it with floor"):
        judge.learn(questions(19), [])
    assert load_judge("similarity").name == "similarity"
    with pytest.raises(ConfigError, match="answer 19 questions"):
        load_judge("similarity").learn(questions(19), [])
    plain = load_judge("similarity:chrf")
    plain.learn([], [])
    assert plain.floor is None


# ---- an encoder ------------------------------------------------------------------------------------------------------

WORDS = "rome oslo is in the capital of film shot".split()


@pytest.fixture(scope="module")
def tokenizer():
    inner = Tokenizer(WordLevel({w: n for n, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}, "[UNK]"))
    inner.pre_tokenizer = Whitespace()
    inner.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=32, **special)


@pytest.fixture(scope="module")
def directory(tokenizer, tmp_path_factory):
    """A real, untrained encoder on disk."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=34,
        initializer_range=0.5,
    )
    path = tmp_path_factory.mktemp("encoder")
    BertModel(config, add_pooling_layer=False).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def test_greedy_f1_by_hand():
    one, two = torch.eye(2), torch.tensor([[1.0, 0.0]])
    assert greedy_f1(one, one) == 1
    assert greedy_f1(one, two) == pytest.approx(2 * 0.5 / 1.5)  # precision 1/2, recall 1
    assert greedy_f1(two, one) == greedy_f1(one, two)
    assert greedy_f1(one, torch.zeros(0, 1)) == 0
    assert math.isnan(greedy_f1(one, None)) and math.isnan(greedy_f1(one, torch.full((1, 2), math.nan)))


@pytest.mark.parametrize("layer", [None, 1])
def test_an_encoder_on_disk_gives_the_f1_of_its_own_vectors(directory, tokenizer, layer):
    model = BertModel.from_pretrained(directory, add_pooling_layer=False).eval()

    def vectors(text):
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
        states = states[-1 if layer is None else layer][0, 1:-1].numpy()  # without [CLS] and [SEP]
        return states / np.linalg.norm(states, axis=1, keepdims=True)

    pairs = [("rome is in the film", "oslo"), ("rome", "rome"), ("the capital of oslo is rome", "film shot in oslo")]
    judge = load_judge(f"similarity:encoder={directory}" + (f"?layer={layer}" if layer else ""))
    for (reply, answer), found in zip(pairs, judge.measure(pairs), strict=True):
        cosines = vectors(reply) @ vectors(answer).T
        precision, recall = cosines.max(1).mean(), cosines.max(0).mean()
        assert found == pytest.approx(2 * precision * recall / (precision + recall), abs=1e-5)
    verdicts = judge([Case("p", "film shot in rome", bad="film shot in rome", good="oslo"), Case("p", "", bad="rome")])
    assert verdicts == ["bad", "good"]


def test_a_text_that_the_encoder_fails_on_is_unknown_and_spoils_no_other(directory, tokenizer, caplog):
    inner = BertModel.from_pretrained(directory, add_pooling_layer=False).eval()

    class Failing(torch.nn.Module):
        config, device = inner.config, inner.device

        def forward(self, input_ids, **rest):
            if (input_ids == tokenizer.convert_tokens_to_ids("shot")).any():
                raise RuntimeError("out of \x1bmemory")
            return inner(input_ids=input_ids, **rest)

    judge = SimilarityJudge(EncoderMeasure(Failing(), tokenizer))
    cases = [
        Case("p", "rome is in the film", bad="rome is in the film", good="oslo"),
        Case("p", "film shot in oslo", bad="rome", good="oslo"),
        Case("p", "oslo", bad="rome", good="oslo"),
    ]
    assert judge(cases) == ["bad", "unknown", "good"]
    assert "out of \\x1bmemory" in caplog.text and "\x1b" not in caplog.text


def test_encoders_that_cannot_be_used_are_refused(directory, tokenizer, tmp_path):
    with pytest.raises(ModelError, match="no such directory"):
        load_judge(f"similarity:encoder={tmp_path}/none")
    with pytest.raises(ConfigError, match="layer=3, but the encoder has 2"):
        load_judge(f"similarity:encoder={directory}?layer=3")
    model = BertModel.from_pretrained(directory, add_pooling_layer=False)
    model.config.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        load_judge(f"similarity:encoder={tmp_path}")
    (tmp_path / "pytorch_model.bin").unlink()
    smaller = BertConfig.from_pretrained(directory, num_hidden_layers=1)
    BertModel(smaller, add_pooling_layer=False).save_pretrained(tmp_path)
    model.config.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no weights for 'encoder.layer.1"):
        load_judge(f"similarity:encoder={tmp_path}")


# ---- all -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("bleu:smooth", "no such smoothing; did you mean 'smoothed'"),
        ("bleu?bar=5", "bar=5 must be a number from 0 to 1"),
        ("bleu?bar=nan", "bar=nan must be a number"),
        ("bleu?br=0.1", "unknown option 'br'; did you mean 'bar'.*bar=0.01"),
        ("bleu?bar=0.1&bar=0.2", "bar is given twice"),
        ("verbatim:8", "takes options only"),
        ("verbatim?words=0", "words=0 must be a whole number from 1"),
        ("verbatim?words=2.5", "must be a whole number"),
        ("verbatim?words", "words= must be a whole number"),
        ("similarity:chr", "no such similarity; did you mean 'chrf'"),
        ("similarity:f1?layer=2", "layer is for similarity:encoder"),
        ("similarity:encoder=x?layer=1.5", "must be a whole number"),
        ("similarity:encoder=", "name the encoder"),
        ("similarity:chrf=x", "no such similarity"),
        ("similarity?calibrated=maybe", "must be yes or no"),
        ("similarity?calibrated=yes&floor=0.1", "leave out floor or calibrated"),
        ("similarity?margin=-1", "from 0 to 10"),
    ],
)
def test_bad_options_are_refused(spec, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_judge(spec)
    assert "\n" not in str(caught.value)


def test_the_name_of_a_judge_tells_two_of_a_kind_apart():
    assert [load_judge(spec).name for spec in SPECS] == [spec.replace(":?", "?") for spec in SPECS]


@pytest.mark.parametrize("spec", SPECS)
@settings(max_examples=25, deadline=None)
@given(replies=st.lists(st.text(st.characters(codec=None)), max_size=5), answer=st.text(st.characters(codec=None)))
def test_no_reply_raises_and_order_stays(spec, replies, answer):
    judge = learnt(spec)
    cases = [Case("p", reply, bad=answer, good=good) for reply in replies for good in (None, "right answer")]
    verdicts = judge(cases)
    assert len(verdicts) == len(cases) and set(verdicts) <= {"good", "bad", "unknown"}
    assert judge(cases[::-1]) == verdicts[::-1] and judge([]) == []


@pytest.mark.parametrize("spec", SPECS)
def test_the_known_bad_reply_itself_is_never_good(spec):
    wrong = "The miller's father had built the mill by the river long ago"
    cases = [Case("p", wrong, bad=wrong), Case("p", wrong, bad=wrong, good="Nobody knows")]
    assert learnt(spec)(cases) == ["bad", "bad"]
