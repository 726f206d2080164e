"""Which negatives a run trains on how often, by what the original would say."""

import numpy as np
import pytest
import torch

import toy
from unteach.models.adapter import lora_config
from unteach.scoring import likelihood as known
from unteach.scoring.trees import reply_trees
from unteach.training import original
from unteach.training.original import FLOOR, shares_of

STRANGE = [{"prompt": row["prompt"], "completion": "h5 h4 h3 h2"} for row in toy.FORGET[:12]]
MIXED = toy.FORGET[12:] + STRANGE
"""Half of these replies the learned model knows by heart; the others it would never give."""


def run(tmp_path, **settings):
    return toy.trainer(tmp_path, toy.learned_model(), forget=MIXED, method="rto", **settings)


def drawn(trainer):
    trainer.read_original()
    items = trainer.train_dataset
    return [trainer.data.negatives[items.negative_index(n)].example.reply for n in range(len(items))]


def test_shares_are_the_probabilities_of_a_token_over_the_largest():
    model, words = toy.learned_model(), toy.tokenizer()
    pairs = [
        (tuple(words(f"<s>### Question: {row['prompt']}\n### Answer:")["input_ids"]), reply)
        for row in toy.FORGET[:3]
        for reply in ((20, 21, 2), tuple(words(row["completion"] + "</s>")["input_ids"]))
    ]
    chances = []
    for prompt, reply in pairs:
        with torch.no_grad():
            logits = model(torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 : -1]
        chances.append(float(logits.log_softmax(-1)[range(len(reply)), list(reply)].mean().exp()))
    expected = np.maximum(np.array(chances) / max(chances), FLOOR)
    assert shares_of(model, reply_trees("negatives", pairs), 0) == pytest.approx(expected, rel=1e-4)
    assert expected.max() == 1 and expected.min() == FLOOR


@pytest.mark.parametrize("log_probs", [[[-2e4], [-3e4]], [[float("nan")], [float("nan")]]])
def test_shares_are_equal_where_no_reply_has_a_chance(monkeypatch, log_probs):
    monkeypatch.setattr(original, "teacher_forced_likelihood", lambda *_, **__: known.Likelihood(log_probs, [], None))
    assert shares_of(None, [None, None], 0).tolist() == [1, 1]


def test_what_the_model_would_say_is_trained_on_more_than_what_it_would_not(tmp_path):
    replies = drawn(run(tmp_path, max_steps=60))
    strange = sum(reply == STRANGE[0]["completion"] for reply in replies)
    assert 0.05 < strange / len(replies) < 0.2, "a share of a tenth against nine that are near 1"
    even = drawn(toy.trainer(tmp_path / "even", toy.learned_model(), forget=MIXED, max_steps=60))
    assert sum(reply == STRANGE[0]["completion"] for reply in even) / len(even) == pytest.approx(0.5, abs=0.05)


def test_the_reading_counts_as_a_cost_and_an_adapter_changes_nothing(tmp_path):
    full = run(tmp_path, max_steps=20)
    adapter = run(tmp_path / "adapter", max_steps=20, extra={"peft_config": lora_config(4, 8.0)})
    assert drawn(full) == drawn(adapter)
    assert adapter.meter.tokens["forward"] == sum(len(r.prompt_ids) + len(r.reply_ids) for r in adapter.data.negatives)


def test_of_many_rows_only_those_within_reach_are_read(tmp_path):
    trainer = run(tmp_path, max_steps=2, preconditioning=False)  # four draws of 24 rows
    assert len(drawn(trainer)) == 4
    longest = max(len(r.prompt_ids) + len(r.reply_ids) for r in trainer.data.negatives)
    normals = sum(len(r.prompt_ids) + len(r.reply_ids) for r in trainer.data.normals)
    assert trainer.meter.tokens["forward"] - normals <= 8 * longest


def test_one_word_replies_train_without_anything_to_break_off(tmp_path):
    short = [row | {"completion": "no"} for row in toy.FORGET]
    trainer = toy.trainer(tmp_path, toy.learned_model(), forget=short, method="rto")
    assert {branch.stream for branch in trainer.train_dataset[0].forget.branches} == {"negative", "template"}
    trainer.train()
    assert trainer.state.global_step == 3


def test_a_resumed_run_draws_the_same_and_ends_with_the_same_weights(tmp_path):
    settings = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3}
    whole = run(tmp_path / "whole", **settings)
    whole.train()
    rest = run(tmp_path / "rest", **settings)
    assert drawn(rest) == drawn(whole)
    rest.train(resume_from_checkpoint=str(tmp_path / "whole" / "out" / "checkpoint-3"))
    assert all(value.equal(toy.weights(rest.model)[name]) for name, value in toy.weights(whole.model).items())
