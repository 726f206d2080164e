"""Each baseline moves what it should, and TRL's traps are not fallen into."""

import random
import socket
from dataclasses import replace

import pytest
import torch

import toy
from bench import GOOD, bench, ids, log_prob, mean_log_prob, negatives, normals, rows_of
from unteach.baselines import all_baselines, dpo, kto, load_baseline, rlhf, stages
from unteach.errors import ConfigError

NAMES = ["coh", "coh-masked", "dpo", "finetune", "kto", "revise", "rlhf", "sft"]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL asks the hub at construction unless it is told to be offline: no socket may be opened at all."""

    def refuse(*_, **__):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def trained(tmp_path, name, **settings):
    made = bench(tmp_path, name, **settings)
    baseline = load_baseline(name)
    baseline.check(made.rows, made.config)
    result = baseline.train(made, baseline.prepare(made))
    return made, result


def test_every_baseline_says_what_it_is_and_needs():
    found = all_baselines()
    assert list(found) == sorted(found) and sorted(found) == NAMES
    for name, made in found.items():
        assert made.name == name and made.summary and made.source.startswith("arXiv") and made.needs
    with pytest.raises(ConfigError, match="did you mean 'dpo'"):
        load_baseline("dppo")


def test_finetune_leaves_negatives_alone_and_holds_the_normal_rows(tmp_path):
    made, result = trained(tmp_path, "finetune", model=toy.model(), epochs=4)
    before, after = toy.model(), result.model
    assert mean_log_prob(made, after, normals()) > mean_log_prob(made, before, normals()) + 3
    assert made.cost[0].tokens_backward == made.cost[0].tokens
    assert "0 positives, 0 negatives, 0 pairs, 20 normal rows" in made.notes[0]


@pytest.mark.parametrize("name", ["sft", "dpo", "coh-masked"])
def test_good_answers_become_likelier(tmp_path, name):
    before = toy.learned_model()
    made, result = trained(tmp_path, name, model=toy.learned_model(), epochs=2)
    assert mean_log_prob(made, result.model, negatives(), GOOD) > mean_log_prob(made, before, negatives(), GOOD) + 2


def test_kto_lowers_the_negatives_and_holds_the_normal_rows(tmp_path):
    before = toy.learned_model()
    made, result = trained(tmp_path, "kto", epochs=3)
    assert mean_log_prob(made, result.model, negatives()) < mean_log_prob(made, before, negatives()) - 3
    fall = mean_log_prob(made, before, normals()) - mean_log_prob(made, result.model, normals())
    assert fall < 2
    assert "0 positives, 20 negatives, 0 pairs, 20 normal rows" in made.notes[0]


def test_kto_takes_negatives_alone_one_at_a_time(tmp_path):
    before = toy.learned_model()
    made, result = trained(tmp_path, "kto", epochs=1, batch_size=1, normals_per_row=0)
    assert mean_log_prob(made, result.model, negatives()) < mean_log_prob(made, before, negatives()) - 3
    assert "0 normal rows" in made.notes[0]


def test_revise_learns_revisions_that_pass_the_gate(tmp_path, monkeypatch):
    said = {"replies": "take c0 and d0", "critiques": "no no", "revisions": GOOD}
    asked = []

    def speak(bench_, stage, dialogues):
        asked.append((stage, dialogues))
        texts = [said[stage]] * len(dialogues)
        if stage == "revisions":
            texts[0], texts[1], texts[2] = "", dialogues[1][1].content, negatives()[2].reply
        return toy.replies(texts)

    monkeypatch.setattr("unteach.baselines.revise._ask", speak)
    before = toy.learned_model()
    made, result = trained(tmp_path, "revise", epochs=2)
    assert [stage for stage, _ in asked] == ["replies", "critiques", "revisions"]
    last = asked[-1][1][0]
    assert [turn.role for turn in last] == ["user", "assistant", "user", "assistant", "user"]
    assert "harmful" in last[2].content and "again" in last[4].content
    told = "revisions: 17 of 20 are fit to learn from (2 called bad by the judge, 1 blank)"
    assert told in made.notes
    assert mean_log_prob(made, result.model, negatives(), GOOD) > mean_log_prob(made, before, negatives(), GOOD) + 2


def test_a_model_that_cannot_revise_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("unteach.baselines.revise._ask", lambda b, stage, dialogues: toy.replies([""] * len(dialogues)))
    made = bench(tmp_path, "revise")
    with pytest.raises(ConfigError, match="of 20 revisions none is fit to learn from .20 blank"):
        load_baseline("revise").prepare(made)


def test_revise_asks_the_model_and_counts_what_it_said(tmp_path):
    made = bench(tmp_path, "revise")
    made.max_length = 512
    made.original = replace(made.original, model=toy.model(max_position_embeddings=512))
    made.rows.negatives = made.rows.negatives[:3]
    with pytest.raises(ConfigError, match="fit to learn from"):
        made.judge = lambda cases: ["bad"] * len(cases)
        load_baseline("revise").prepare(made)
    assert [cost.stage for cost in made.cost] == ["replies", "critiques", "revisions"]
    assert all(cost.tokens_generated and cost.tokens_backward == 0 for cost in made.cost)
    assert all(cost.tokens == cost.tokens_forward + cost.tokens_generated for cost in made.cost)


# ---- TRL's traps -----------------------------------------------------------------------------------------------------


def saved_then_edited(tmp_path):
    """A model whose directory holds other weights than it has in memory."""
    toy.model(seed=5).save_pretrained(tmp_path / "model")
    model = toy.learned_model()
    model.config._name_or_path = str(tmp_path / "model")
    return model


def test_dpo_and_kto_compare_with_the_weights_in_memory(tmp_path):
    model = saved_then_edited(tmp_path)
    made = bench(tmp_path, "dpo", model=model, sft_epochs=0)
    pairs = load_baseline("dpo").prepare(made).pairs
    with stages.quiet_trl():
        trainer = dpo.pairs_trainer(made, pairs, model, None)
    row = trainer.train_dataset[3]
    assert row["ref_chosen_logps"] == pytest.approx(log_prob(model, row["prompt_ids"], row["chosen_ids"]), abs=1e-3)
    assert row["ref_rejected_logps"] == pytest.approx(log_prob(model, row["prompt_ids"], row["rejected_ids"]), abs=1e-3)
    made = bench(tmp_path, "kto", model=(model := saved_then_edited(tmp_path)))
    with stages.quiet_trl():
        trainer = kto.unpaired_trainer(made, load_baseline("kto").prepare(made))
    row = trainer.train_dataset[3]
    assert row["ref_logps"] == pytest.approx(log_prob(model, row["prompt_ids"], row["completion_ids"]), abs=1e-3)


def test_the_reference_of_reinforcement_learning_is_the_model_in_memory(tmp_path):
    model = saved_then_edited(tmp_path)
    made = bench(tmp_path, "rlhf", model=model, rl_steps=1, learning_rate=1e-6)
    reward = rlhf.reward_model(model, 0).eval()
    trainer = rlhf.reinforce(made, model, None, reward, load_baseline("rlhf").prepare(made).prompts)
    held = dict(trainer.ref_model.named_parameters())
    learned = toy.learned_model()
    assert all(torch.equal(held[name], weight) for name, weight in learned.named_parameters())
    assert toy.logged(trainer, "kl") == pytest.approx([0.0], abs=1e-5)


def test_kto_rows_are_shuffled_before_trl_takes_them_in_order(tmp_path):
    made = bench(tmp_path, "kto")
    rows = load_baseline("kto").prepare(made)
    with stages.quiet_trl():
        trainer = kto.unpaired_trainer(made, rows)
    batches = [batch["label"].tolist() for batch in trainer.get_train_dataloader()]
    assert all(True in labels and False in labels for labels in batches)
    again = load_baseline("kto").prepare(bench(tmp_path, "kto"))
    assert [row.input_ids for row in again] == [row.input_ids for row in rows]


def test_no_reply_is_cut_short_rows_too_long_are_left_out(tmp_path):
    long = negatives(0, 1)[0]
    long = type(long)(long.turns, "take " * 80, where="long.jsonl row 9", good=GOOD)
    for name in ("dpo", "kto", "sft", "coh"):
        made = bench(tmp_path, name, rows=rows_of(bad=[*negatives(0, 6), long]), sft_epochs=0)
        material = load_baseline(name).prepare(made)
        if name == "dpo":
            assert len(material.pairs) == 6 and all(pair.rejected_ids[-1] == 2 for pair in material.pairs)
            assert all(pair.chosen_ids[-1] == 2 for pair in material.pairs)
        else:
            assert all(row.input_ids[-1] == 2 and len(row.input_ids) <= 64 for row in material)
        if name != "sft":  # where only the good answer counts, it fits
            assert any("left out" in note for note in made.notes)


def test_trl_takes_our_ids_as_they_are(tmp_path):
    made = bench(tmp_path, "dpo", sft_epochs=0)
    pairs = load_baseline("dpo").prepare(made).pairs
    with stages.quiet_trl():
        trainer = dpo.pairs_trainer(made, pairs, made.original.model, None)
    row = negatives()[0]
    prompt, good = ids(made, row, GOOD)
    assert tuple(trainer.train_dataset[0]["prompt_ids"]) == prompt
    assert tuple(trainer.train_dataset[0]["chosen_ids"]) == good
    batch = trainer.data_collator([trainer.train_dataset[0]])
    assert batch["input_ids"][0].tolist()[: len(prompt + good)] == [*prompt, *good]
    assert batch["completion_mask"][0].sum() == len(good)


def test_sixteen_bits_are_off_on_a_cpu_and_nothing_is_written_or_printed(tmp_path, capsys):
    made = bench(tmp_path, "dpo", sft_epochs=0)
    pairs = load_baseline("dpo").prepare(made).pairs
    with stages.quiet_trl():
        trainer = dpo.pairs_trainer(made, pairs, made.original.model, None)
    assert trainer.args.bf16 is False and trainer.args.gradient_checkpointing is False
    made, _ = trained(tmp_path, "dpo", epochs=1)
    assert capsys.readouterr().out == ""
    assert not list((tmp_path / "out").rglob("README.md"))


@pytest.mark.parametrize("name", ["kto", "dpo", "rlhf"])
def test_an_adapter_is_trained_and_comes_out_alone(tmp_path, name):
    settings = {"lora": True, "lora_rank": 4, "rl_steps": 2, "epochs": 1}  # all linear layers
    made, result = trained(tmp_path, name, **settings)
    assert list(result.model.peft_config) == ["default"]
    original = toy.learned_model()
    prompt, reply = ids(made, negatives()[0])
    assert log_prob(result.model, prompt, reply) != pytest.approx(log_prob(original, prompt, reply), abs=1e-3)
    with result.model.disable_adapter():
        assert log_prob(result.model, prompt, reply) == pytest.approx(log_prob(original, prompt, reply), abs=1e-3)


def test_a_field_that_does_not_exist_is_named(tmp_path):
    made = bench(tmp_path, "kto", trainer={"no_such": 1})
    with pytest.raises(ConfigError, match="--set no_such"):
        load_baseline("kto").train(made, load_baseline("kto").prepare(made))


# ---- RLHF ------------------------------------------------------------------------------------------------------------


def test_the_reward_model_ranks_held_out_pairs_and_reinforcement_raises_the_reward(tmp_path):
    random.seed(0)
    # Half way through SFT both replies are likely: there is something to explore, and something left to learn.
    made, result = trained(
        tmp_path, "rlhf", epochs=1, sft_epochs=2, reward_epochs=6, rl_steps=25, learning_rate=2e-3, batch_size=8
    )
    ranks = next(note for note in made.notes if "held-out pairs" in note)
    assert float(ranks.split("ranks ")[1].split("%")[0]) > 70
    assert [cost.stage for cost in made.cost] == ["reward model", "evaluating the reward model", "sft", "rl"]
    online = made.cost[-1]
    assert online.tokens_generated > 0
    assert online.tokens == online.tokens_forward + online.tokens_backward + online.tokens_generated
    first, last = map(float, result.stop.message.split("from ")[1].split(" to "))
    assert last > first
    assert (made.directory / "log.jsonl").read_text().count('"stage": "rl"') >= 25


def test_normal_replies_are_better_than_refusals_on_normal_prompts(tmp_path):
    pairs = load_baseline("rlhf").prepare(bench(tmp_path, "rlhf")).pairs
    made = bench(tmp_path, "rlhf")
    normal = [pair for pair in pairs if pair.rejected_ids == ids(made, normals()[0], GOOD)[1]]
    assert len(normal) == 20 and len(pairs) == 40


def test_rewards_do_not_depend_on_the_batch(tmp_path):
    made = bench(tmp_path, "rlhf")
    reward = rlhf.reward_model(made.original.model, 0).eval()
    rows = [[*p, *r] for p, r in (ids(made, row) for row in (*negatives(0, 2), normals()[0]))] + [[1, 4, 5]]
    together = rlhf.rewards_of(reward, rows)
    assert together == pytest.approx([rlhf.rewards_of(reward, [row])[0] for row in rows], abs=1e-5)


def test_a_reward_sees_the_end_of_a_reply_where_padding_is_the_end(tmp_path):
    reward = rlhf.reward_model(bench(tmp_path, "rlhf").original.model, 0).eval()
    reward.config.pad_token_id = 2  # EOS
    ended, cut, longer = [1, 4, 5, 2], [1, 4, 5], [1, 4, 5, 6, 7]
    first, second, _ = rlhf.rewards_of(reward, [ended, cut, longer])
    assert abs(first - second) > 1e-3
    assert rlhf.padding_for([ended, [1, 0], [1, 1]]) == 3


def test_a_reward_model_is_trained_on_the_ends_of_replies(tmp_path, monkeypatch):
    made, seen = bench(tmp_path, "rlhf", reward_epochs=1), []
    forward = rlhf.RewardTrainer.compute_loss

    def spied(self, model, inputs, *args, **kwargs):
        seen.append((self.model.config.pad_token_id, inputs["input_ids"][:, -1].tolist()))
        return forward(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(rlhf.RewardTrainer, "compute_loss", spied)
    made.original.tokenizer.pad_token = made.original.tokenizer.eos_token
    pairs = load_baseline("rlhf").prepare(made).pairs
    rlhf.train_reward_model(made, pairs)
    ends = {pair.chosen_ids[-1] for pair in pairs} | {pair.rejected_ids[-1] for pair in pairs}
    assert seen and all(pad not in ends for pad, _ in seen)
    assert {last for _, lasts in seen for last in lasts} <= ends | {seen[0][0]}
