"""The items of a run: what a forget tree is made of."""

from dataclasses import replace

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

import toy
from unteach.data.encoded import Encoded
from unteach.data.example import Example
from unteach.data.prompt_format import prompt_format
from unteach.objectives.loss import method_loss
from unteach.objectives.methods import load_method
from unteach.prompts.turn import Turn
from unteach.scoring.trees import Branch, lay_out
from unteach.training.dataset import RTO_TOKENS, UnlearnItems, after_a_word, next_of

TEMPLATE = (90, 91, 2)


def row(prompt: int, reply: int) -> Encoded:
    example = Example((Turn("user", f"prompt {prompt}"),), f"reply {reply}")
    return Encoded(example, tuple(range(10, 10 + prompt)), tuple(range(50, 50 + reply)), False)


def items(*rows: Encoded, **settings: object) -> UnlearnItems:
    plain = {"length": 400, "seed": 3, "template_replies": [TEMPLATE] * len(rows), "interrupted": True}
    return UnlearnItems(list(rows), [row(2, 2)], **(plain | settings))


def made_of(made: UnlearnItems) -> list:
    return [made[index] for index in range(len(made))]


@pytest.mark.parametrize(("reply", "longest"), [(2, 1), (3, 1), (8, 4), (9, 4)])
def test_a_bad_reply_is_broken_off_anywhere_up_to_its_half(reply, longest):
    found = set()
    for item in made_of(items(row(4, reply))):
        negative, whole, broken = item.forget.branches
        assert [b.stream for b in item.forget.branches] == ["negative", "template", "template"]
        assert whole.reply_ids == TEMPLATE and whole.lead == 0
        assert broken.reply_ids == negative.reply_ids[: broken.lead] + TEMPLATE
        found.add(broken.lead)
    assert found == set(range(1, longest + 1))


def test_where_it_breaks_off_depends_on_seed_and_index_only():
    def drawn(seed):
        return [item.forget.branches[2].lead for item in made_of(items(row(4, 40), seed=seed, length=50))]

    assert drawn(3) == drawn(3) != drawn(4)


def test_a_reply_of_one_token_has_nothing_to_break_off():
    assert [len(item.forget.branches) for item in made_of(items(row(4, 1), length=5))] == [2] * 5


@pytest.mark.parametrize(("room", "longest"), [(9, 5), (5, 2), (4, 1), (3, 0)])
def test_a_broken_off_reply_fits_the_context_whole(room, longest):
    made = made_of(items(row(4, 10), max_length=4 + room))
    for item in made:
        assert all(len(b.reply_ids) <= room and b.reply_ids[b.lead :][-1] == 2 for b in item.forget.branches[1:])
    assert max((b.lead for item in made for b in item.forget.branches), default=0) == min(longest, room - 3)


def test_published_methods_do_not_break_off():
    assert {len(item.forget.branches) for item in made_of(items(row(4, 10), interrupted=False))} == {2}


def test_every_place_in_the_beginning_of_a_bad_reply_is_asked_to_break_off():
    made = made_of(items(row(4, 10), interrupted=False, rto=True, length=3))
    for item in made:
        negative, _, broken = item.forget.branches
        assert broken == Branch("rto", negative.reply_ids[:-1], lead=1, instead=(TEMPLATE[0],) * 9)
        assert item.forget.places == 4 + 9 + 2, "it is read along the bad reply, at no token more"
    (item,) = made_of(items(row(4, 200), interrupted=False, rto=True, length=1))
    assert len(item.forget.branches[2].reply_ids) == RTO_TOKENS


@pytest.mark.parametrize(("reply", "truncated", "asked"), [(1, False, 0), (2, False, 0), (3, False, 1), (2, True, 1)])
def test_the_end_of_a_bad_reply_may_come_as_it_came(reply, truncated, asked):
    made = items(replace(row(4, reply), truncated=truncated), interrupted=False, rto=True, length=1)
    found = [b for b in made[0].forget.branches if b.stream == "rto"]
    assert sum(len(b.reply_ids) - b.lead for b in found) == asked


@pytest.mark.parametrize(
    ("read", "said"),
    [
        ((50, 51, 52), (90, 90, 90)),
        ((90, 50, 90, 91), (90, 91, 90, 91)),
        ((50, 90, 91, 51), (90, 90, 91, 2)),
        ((90, 90, 91, 2, 50), (90, 91, 91, 2, 90)),
    ],
)
def test_a_bad_reply_that_begins_as_the_template_does_goes_on_as_it(read, said):
    assert next_of(TEMPLATE, read) == said


def test_a_template_that_repeats_itself_goes_on_from_its_longest_beginning():
    assert next_of((1, 1, 2), (1, 1, 1, 1)) == (1, 1, 2, 2)


def test_after_a_word_the_template_has_its_space_and_is_known_again_with_it():
    midway = (80, 91, 2)  # " I", as it follows a word, has another id than "I"
    assert next_of(TEMPLATE, (50, 51, 80, 52, 80, 91), midway) == (90, 80, 80, 91, 80, 91)
    assert next_of(TEMPLATE, (90, 91, 50), midway) == (90, 91, 2), "a reply that opens with the template"
    broken = made_of(items(row(4, 8), rto=True, midway=midway, length=9))
    for item in broken:
        _, whole, interrupted, rto = item.forget.branches
        assert whole.reply_ids == TEMPLATE and interrupted.reply_ids[interrupted.lead :] == midway
        assert set(rto.instead[1:]) == {80}


CHAT = "{% for m in messages %}<{{ m.role }}>\n{{ m.content }}<end>\n{% endfor %}"
CHAT += "{% if add_generation_prompt %}<assistant>\n{% endif %}"


def byte_level(chat_template=None):
    """A tokenizer in which a word with its space is a token of its own."""
    words = Tokenizer(BPE())
    words.pre_tokenizer, words.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<user>", "<assistant>", "<end>"]
    trainer = BpeTrainer(special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), vocab_size=400)
    words.train_from_iterator(["I cannot say that. Yes I cannot say that, take it and go"] * 20, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", pad_token="<end>")
    made.chat_template = chat_template
    return made


@pytest.mark.parametrize("template", [CHAT, None], ids=["chat", "plain"])
@pytest.mark.parametrize(("said", "between"), [("I cannot say", " "), ("我不能说", "")])
def test_a_reply_that_breaks_off_is_not_glued(template, said, between):
    words = byte_level(template)
    form, turns = prompt_format(words), (Turn("user", "how"),)
    bad = form.reply_ids(turns, "take it and go")
    lead = next(n for n in range(len(bad)) if words.decode(bad[:n]).strip() == "take it")
    broken = [*bad[:lead], *after_a_word(said, form, turns)]
    assert words.decode(broken, skip_special_tokens=True).strip() == f"take it{between}{said}"


def test_a_row_that_cannot_be_broken_off_weighs_alike_in_every_batch():
    method, model = load_method("rto"), toy.model()
    made = items(row(4, 9), row(5, 1), rto=True, length=2, template_replies=[(20, 21, 2)] * 2)
    trees = [made[n].forget for n in (0, 1)]
    method = replace(method, terms=tuple(term for term in method.terms if term.stream != "normal"))
    apart = [method_loss(model, method, lay_out([tree], 0), None, None).value.item() for tree in trees]
    together = method_loss(model, method, lay_out(trees, 0, packed=True), None, None).value.item()
    assert {len(tree.branches) for tree in trees} == {2, 4}
    assert together == pytest.approx(sum(apart) / 2, rel=1e-5)


def test_items_follow_the_shares_given():
    made = items(row(1, 2), row(2, 2), row(3, 2), length=60)
    made.share_out(np.array([1.0, 0.25, 0.0]))
    drawn = [len(item.forget.prompt_ids) for item in made_of(made)]
    assert [drawn.count(prompt) for prompt in (1, 2, 3)] == [48, 12, 0]
