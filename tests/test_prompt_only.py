"""Rows of which only the prompt is known: training looks at how a reply begins, not at what stands in for one."""

import math
from dataclasses import replace

import pytest
import torch

import toy
from unteach.data.encoded import encode_all
from unteach.data.example import Example
from unteach.data.prompt_format import prompt_format
from unteach.errors import ConfigError
from unteach.objectives.loss import method_loss
from unteach.objectives.methods import load_method
from unteach.scoring import score
from unteach.scoring.reference import FrozenCopy
from unteach.scoring.score import LastHiddenStates
from unteach.scoring.tilt import Tilt
from unteach.training.dataset import Item, UnlearnCollator, UnlearnItems

PROMPT = "how to a1 b1"


def encoded(reply: str, prompt_only: bool):
    row = replace(Example.of(PROMPT, reply), cut=True, prompt_only=prompt_only)
    form = prompt_format(toy.tokenizer(), "plain")
    return encode_all([row], form, 64, "rows")[0], form


def items(reply: str, prompt_only: bool) -> UnlearnItems:
    rows, form = encoded(reply, prompt_only)
    template = tuple(form.reply_ids(rows[0].example.turns, "sorry no then"))
    return UnlearnItems(rows, rows, 1, 0, template_replies=[template], opening=True, normals_per_negative=1)


def test_one_token_of_what_stands_in_for_a_reply_is_encoded() -> None:
    rows, _ = encoded("take c1 and d1", True)
    whole, _ = encoded("take c1 and d1", False)
    assert rows[0].reply_ids == whole[0].reply_ids[:1] and len(whole[0].reply_ids) == 4


def test_only_the_beginning_of_the_template_is_taught() -> None:
    item = items("take c1 and d1", True)[0]
    assert [branch.stream for branch in item.forget.branches] == ["template"]
    whole = items("take c1 and d1", False)[0]
    assert item.forget.branches[0].reply_ids == whole.forget.branches[1].reply_ids[:1]
    assert len(whole.forget.branches[1].reply_ids) == 4  # three words and the end


@pytest.mark.parametrize("other", ["go", "c3 d3"])
def test_what_stands_in_changes_no_loss(other: str) -> None:
    """The KL compares what is said first, whatever was said; the template is what it is."""
    losses = []
    for reply in ("take c1", other):
        batch = UnlearnCollator()([items(reply, True)[0]])
        model = toy.model(seed=1)
        reference = FrozenCopy(toy.model(seed=2))
        loss = method_loss(model, load_method("template"), batch["forget"], batch["normal"], reference)
        losses.append(loss.value.item())
        assert "forget_ce" not in loss.metrics and loss.metrics["kl"] > 0
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_a_row_weighs_the_same_beside_rows_whose_reply_is_known() -> None:
    """The loss of a batch of both is the mean of the losses of each alone."""
    alone, known = items("take c1", True)[0], items("take c1 and d1", False)[0]
    model, reference = toy.model(seed=1), FrozenCopy(toy.model(seed=2))

    def loss(*rows: Item) -> float:
        batch = UnlearnCollator()(list(rows))
        value = method_loss(model, load_method("template"), batch["forget"], batch["normal"], reference).value
        return float(value.item())

    assert loss(alone, known) == pytest.approx((loss(alone) + loss(known)) / 2, rel=1e-5)
    assert loss(alone, alone, alone, known) == pytest.approx((3 * loss(alone) + loss(known)) / 4, rel=1e-5)


def test_the_loss_is_what_the_logits_say() -> None:
    """−log p(first token of the template), plus 3 · KL of the first token, from plain logits, with the margin."""
    item = items("take c1", True)[0]
    batch = UnlearnCollator()([item])
    model, original = toy.model(seed=1), toy.model(seed=2)
    prompt, token = torch.tensor([list(item.forget.prompt_ids)]), item.forget.branches[0].reply_ids[0]
    for margin in (0.0, 1.5):
        method = load_method("template", margin=margin)
        value = method_loss(model, method, batch["forget"], batch["normal"], FrozenCopy(original)).value
        with torch.no_grad():
            now, before = (one(prompt).logits[0, -1] for one in (model, original))
        now[token] += margin
        now, before = now.log_softmax(-1), before.log_softmax(-1)
        expected = -now[token] + 3 * (before.exp() * (before - now)).sum()
        assert value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_margin_lowers_the_odds_that_are_learnt_by_as_much() -> None:
    """By gradient descent on free logits: where the KL is least, the odds of declining are e^−m of the original."""
    before, margin = torch.tensor([0.3, -0.2, 0.9]), 1.5
    live = torch.zeros(3, requires_grad=True)
    states = torch.ones(1, 1)
    for _ in range(4000):
        heads = [LastHiddenStates(states, lambda _, logits=logits: logits[None]) for logits in (live, before)]
        tilt = Tilt(2, torch.tensor([margin]))
        kl = score.score(heads[0], torch.tensor([0]), heads[1], tilt).kl
        assert kl is not None
        (gradient,) = torch.autograd.grad(kl.sum(), live)
        live = (live - 0.5 * gradient).detach().requires_grad_()
    odds = [one.softmax(-1)[2] / (1 - one.softmax(-1)[2]) for one in (live.detach(), before)]
    assert float(odds[0] / odds[1]) == pytest.approx(math.exp(-margin), rel=1e-3)


def test_rows_with_whole_replies_know_no_margin() -> None:
    """The user's negatives and ordinary normal rows are trained on as they are."""
    whole, reference = items("take c1 and d1", False)[0], FrozenCopy(toy.model(seed=2))
    batch, model = UnlearnCollator()([whole]), toy.model(seed=1)
    methods = [load_method("template", margin=margin) for margin in (0.0, 1.5)]
    losses = [method_loss(model, method, batch["forget"], batch["normal"], reference).value for method in methods]
    assert losses[0].item() == losses[1].item()


def test_the_log_knows_no_margin() -> None:
    """What is logged, and what the KL budget is held to, is of the model as it is."""
    batch, model = UnlearnCollator()([items("take c1", True)[0]]), toy.model(seed=1)
    logged = [
        method_loss(model, load_method("template", margin=margin), batch["forget"], batch["normal"], reference).metrics
        for reference in (FrozenCopy(model), FrozenCopy(toy.model(seed=2)))
        for margin in (0.0, 1.5)
    ]
    assert logged[0] == logged[1] and logged[2] == logged[3]
    assert float(logged[1]["kl"]) == pytest.approx(0, abs=1e-6) and float(logged[3]["kl"]) > 0.001


def test_a_margin_is_the_same_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [items(reply, True)[0] for reply in ("take c1", "go")]
    batch, reference, found = UnlearnCollator()(rows), FrozenCopy(toy.model(seed=2)), []
    for size in (score.CHUNK_BYTES, 1):
        monkeypatch.setattr(score, "CHUNK_BYTES", size)
        model = toy.model(seed=1)
        loss = method_loss(model, load_method("template", margin=1.5), batch["forget"], batch["normal"], reference)
        loss.value.backward()
        gradients = [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]
        found.append((loss.value.item(), gradients))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    assert max(float((a - b).abs().max()) for a, b in zip(found[0][1], found[1][1], strict=True)) < 1e-5


def test_a_method_without_a_margin_refuses_one() -> None:
    with pytest.raises(ConfigError, match="--decline-margin is of the methods template, repselect-template"):
        load_method("rto", margin=1.0)
    assert load_method("template").margin > 0 and load_method("template", margin=0.0).margin == 0
