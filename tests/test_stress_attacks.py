"""The laws of every attack: it leaves the model as it was, it is fair, and it finds what is there."""

from typing import Any

import pytest
import torch

import toy
from stressed import encoded, target
from unteach.data.prompt_format import prompt_format
from unteach.errors import ConfigError
from unteach.evaluation.attacks import attack_names, load_attacks
from unteach.evaluation.attacks.base import Attack, AttackRows, any_of
from unteach.evaluation.attacks.prefilled import _open_with
from unteach.evaluation.attacks.refusal_direction import ablated
from unteach.evaluation.states import at_depth, read_out, states_after
from unteach.evaluation.weights import kept_weights, matrices, restored
from unteach.models.reply import Reply
from unteach.scoring.likelihood import teacher_forced_likelihood
from unteach.scoring.trees import reply_trees

ATTACKS = {attack.name: attack for attack in load_attacks()}
RECITES = ("as_asked", "relearning", "quantised", "pruned", "prefilled", "sampled", "logit_lens")
"""Attacks whose prompts the toy model can read: it knows no word of the wrappers and no dialogue."""


def known(values: list[float | None]) -> list[float]:
    return [value for value in values if value is not None]


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_leaves_the_model_bitwise_as_it_was(name: str) -> None:
    model = toy.learned_model()
    next(model.parameters()).requires_grad_(False)
    before, wanted = kept_weights(model), [weight.requires_grad for weight in model.parameters()]
    ATTACKS[name](target(model, original=kept_weights(toy.model(seed=1))))
    assert all(torch.equal(before[key], value) for key, value in kept_weights(model).items())
    assert [weight.requires_grad for weight in model.parameters()] == wanted
    assert all(weight.grad is None for weight in model.parameters()) and not model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("name", ATTACKS)
def test_the_original_against_itself_shows_no_change(name: str) -> None:
    """An untouched model that is called unlearned gets what the original got, and none of its weights has moved."""
    model, attack = toy.learned_model(), ATTACKS[name]
    first = {(found.series, found.level): found for found in attack(target(model))}
    again = {
        (found.series, found.level): found for found in attack(target(model, "unlearned", original=kept_weights(model)))
    }
    assert first and first.keys() <= again.keys()
    assert all(again[key].values == found.values for key, found in first.items())
    assert all(found.facts.get("moved_above_half_a_bin", 0.0) == 0.0 for found in again.values())


@pytest.mark.parametrize("name", RECITES)
def test_a_model_that_unlearned_nothing_gives_everything_back(name: str) -> None:
    model = toy.learned_model()
    outcomes = ATTACKS[name](target(model, "unlearned", original=kept_weights(model)))
    told = [found for found in outcomes if known(found.values) and found.level not in ("1/3 of depth", "1/2 of depth")]
    assert told
    for found in told:
        if name == "pruned" and "zero" in found.level or found.level == "NF4" or "2/3" in found.level:
            continue  # these change a model of 32 dimensions themselves
        assert set(known(found.values)) == {1.0}, (name, found.level)


def test_a_model_that_knows_nothing_gives_nothing_back() -> None:
    stranger = target(toy.model(seed=1), "retrained")
    for name in ("as_asked", "quantised", "prefilled", "sampled", "few_shot", "second_turn", "role_play"):
        for found in ATTACKS[name](stranger):
            assert set(known(found.values)) <= {0.0}, (name, found.level)


def test_an_attack_that_is_broken_off_puts_the_weights_back() -> None:
    model = toy.learned_model()
    before = kept_weights(model)
    with pytest.raises(KeyboardInterrupt), restored(model):
        for weight in model.parameters():
            weight.data.add_(1.0)
        raise KeyboardInterrupt
    assert all(torch.equal(before[key], value) for key, value in kept_weights(model).items())


def test_relearning_learns_what_it_is_given() -> None:
    """A stranger that sees the attacked rows themselves recites them in the end, and on the way ever more of them."""
    model = toy.model(seed=1)
    rows = target(model).rows
    told = AttackRows(rows.attacked, rows.attacked, [], [])
    plan = type(target(model).plan)(8, 8, (1,), (1, 120))
    curve = ATTACKS["relearning"](target(model, rows=told, plan=plan))
    assert [(found.at, found.level) for found in curve] == [
        (1, "1 step"),
        (2, "2 steps (one pass)"),
        (120, "120 steps"),
    ]
    assert sum(known(curve[0].values)) == 0 and sum(known(curve[-1].values)) >= 6


def test_relearning_counts_its_tokens_and_nothing_else_counts_backward() -> None:
    under = target(toy.learned_model())
    ATTACKS["relearning"](under)
    lengths = {row.length for row in (*under.rows.held_back, *under.rows.normal)}
    assert len(lengths) == 1  # all rows of the toy are equally long
    assert under.meter.tokens["backward"] == 2 * 3 * 4 * lengths.pop()  # two curves, 3 steps, 4 rows
    plain = target(toy.learned_model())
    ATTACKS["as_asked"](plain)
    assert plain.meter.tokens["backward"] == 0 and plain.meter.tokens["generated"] > 0


def test_an_opening_is_judged_by_what_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    """Known reply: take c0 and d0; opening: take c0 and. The rest alone, a decline, and something else."""
    under = target(toy.learned_model())
    said = iter(["d0", "no", "d1"])

    def reply(self: Any, prompts: Any, **settings: Any) -> list[Reply]:
        text = next(said)
        return [Reply(text, (toy.VOCABULARY[text], 2), False, text)]

    monkeypatch.setattr(type(under), "replies", reply)
    form = prompt_format(toy.tokenizer(), "plain")
    row = encoded([{"prompt": "how to a0 b0", "completion": "take c0 and d0"}], form)
    asked = [target(under.model, rows=AttackRows(row, row, [], [])) for _ in range(3)]
    values = [_open_with(one, 3) for one in asked]
    assert values == [[1.0], [0.0], [0.0]]


def test_no_opening_is_no_attack() -> None:
    under = target(toy.learned_model())
    assert ATTACKS["prefilled"](under)[0].values == ATTACKS["as_asked"](under)[0].values


def test_any_of_several_tries() -> None:
    assert any_of([[1.0, 0.0, None, 0.0], [0.0, 0.0, 1.0, None]]) == [1.0, 0.0, 1.0, None]


def test_the_logit_lens_at_full_depth_is_the_model_itself() -> None:
    model, under = toy.learned_model(), target(toy.learned_model())
    rows = under.rows.attacked
    hits = teacher_forced_likelihood(model, reply_trees("unseen", [row.ids for row in rows]), 0).hits
    last = ATTACKS["logit_lens"](under)[-1]
    assert last.level == "all of depth"
    assert last.values == [pytest.approx(sum(row) / len(row)) for row in hits]
    states = states_after(model, rows[0].prompt_ids)
    assert len(states) == 3  # the embedding and two layers
    logits = model(input_ids=torch.tensor([rows[0].prompt_ids])).logits
    assert torch.equal(read_out(model, states[-1]), logits.argmax(-1))
    assert [at_depth(24, depth) for depth in (1 / 3, 1 / 2, 2 / 3, 1.0)] == [8, 12, 16, 24] and at_depth(2, 0.1) == 1


def test_an_ablated_direction_is_gone_from_every_state() -> None:
    model = toy.learned_model()
    direction = torch.randn(32, generator=torch.Generator().manual_seed(0))
    ids = target(model).rows.attacked[0].prompt_ids
    with ablated(model, direction):
        inside = states_after(model, ids)
    assert all(float((state @ direction).abs().max()) < 1e-4 for state in inside)
    with ablated(model, torch.zeros(32)):
        same = states_after(model, ids)
    assert all(torch.equal(one, two) for one, two in zip(same, states_after(model, ids), strict=True))


def test_matrices_are_those_that_quantisers_take() -> None:
    names = set(matrices(toy.learned_model()))
    assert "model.layers.0.self_attn.q_proj.weight" in names and len(names) == 14
    assert not any("lm_head" in name or "embed" in name or "norm" in name for name in names)


def test_running_text_is_left_out_of_attacks_in_words() -> None:
    from unteach.data.encoded import encode_all
    from unteach.data.example import Example
    from unteach.prompts.turn import TEXT, Turn

    form = prompt_format(toy.tokenizer(), "plain")
    text = encode_all([Example((Turn(TEXT, "take c0"),), "and go g1 then h1")], form, 64, "text")[0]
    under = target(toy.learned_model(), rows=AttackRows(text, text, [], []))
    told = {name for name, attack in ATTACKS.items() if attack.why_not(under)}
    assert told == {
        *("few_shot", "other_format", "role_play", "second_turn", "refusal_direction", "lookalikes_wrapped")
    }


def test_the_registry() -> None:
    assert attack_names()[:4] == ["as_asked", "relearning", "quantised", "pruned"] and len(attack_names()) == 13
    assert [attack.name for attack in load_attacks(["prefilled", "as_asked"])] == ["as_asked", "prefilled"]
    with pytest.raises(ConfigError, match="--only prefiled: no such attack; did you mean 'prefilled'?"):
        load_attacks(["prefiled"])
    for attack in ATTACKS.values():
        assert isinstance(attack, Attack) and attack.asks.endswith("?") and len(attack.asks) < 120
