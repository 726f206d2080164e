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
    """−log p(first token of the template), plus 3 · KL of the first token, from plain logits, with the margin added."""
    item = items("take c1", True)[0]
    batch = UnlearnCollator()([item])
    model, original = toy.model(seed=1), toy.model(seed=2)
    prompt, token = torch.tensor([list(item.forget.prompt_ids)]), item.forget.branches[0].reply_ids[0]
    for margin in (0.0, 1.5):
        method = load_method("template", margin=margin)
        value = method_loss(model, method, batch["forget"], batch["normal"], FrozenCopy(original)).value
        with torch.no_grad():
            logits = [one(prompt).logits[0, -1] for one in (model, original)]
        for one in logits:
            one[token] += margin
        now, before = (one.log_softmax(-1) for one in logits)
        expected = -now[token] + 3 * (before.exp() * (before - now)).sum()
        assert value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_margin_changes_no_odds_but_those_of_the_first_token() -> None:
    """By hand: p → p·e^m / (1 − p + p·e^m) for the template's first token where a reply begins, and nowhere else."""
    rows, form = encoded("take c1 and d1", False)
    template = tuple(form.reply_ids(rows[0].example.turns, "sorry no then"))
    whole = UnlearnItems(rows, rows, 1, 0, template_replies=[template], opening=True, normals_per_negative=1)[0]
    batch, model = UnlearnCollator()([whole]), toy.model(seed=1)
    plain, margin = load_method("template", margin=0.0, retain_weight=0.0), 1.5
    tilted = load_method("template", margin=margin, retain_weight=0.0)
    losses = [method_loss(model, method, batch["forget"], None, None).value.item() for method in (plain, tilted)]
    with torch.no_grad():
        p = model(torch.tensor([list(whole.forget.prompt_ids)])).logits[0, -1].softmax(-1)[template[0]].item()
    assert losses[0] - losses[1] == pytest.approx(margin - math.log(1 - p + p * math.exp(margin)), rel=1e-4)


def test_the_original_is_at_no_distance_from_itself_whatever_the_margin() -> None:
    batch, model = UnlearnCollator()([items("take c1", True)[0]]), toy.model(seed=1)
    method = load_method("template", margin=2.0, mismatch_weight=0.0)
    loss = method_loss(model, method, batch["forget"], batch["normal"], FrozenCopy(toy.model(seed=1)))
    assert loss.value.item() == pytest.approx(0, abs=1e-6)


def test_a_margin_is_the_same_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, form = encoded("take c1 and d1", False)
    template = tuple(form.reply_ids(rows[0].example.turns, "sorry no then"))
    whole = UnlearnItems(rows, rows, 1, 0, template_replies=[template], normals_per_negative=1)[0]
    batch, reference, found = UnlearnCollator()([whole]), FrozenCopy(toy.model(seed=2)), []
    for size in (score.CHUNK_BYTES, 1):
        monkeypatch.setattr(score, "CHUNK_BYTES", size)
        model = toy.model(seed=1)
        loss = method_loss(model, load_method("template", margin=1.5), batch["forget"], batch["normal"], reference)
        loss.value.backward()
        found.append(
            (loss.value.item(), [weight.grad.clone() for weight in model.parameters() if weight.grad is not None])
        )
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    apart = [float((a - b).abs().max()) for a, b in zip(found[0][1], found[1][1], strict=True)]
    assert max(apart) < 1e-5


def test_a_method_without_a_margin_refuses_one() -> None:
    with pytest.raises(ConfigError, match="--decline-margin is of the methods template, repselect-template"):
        load_method("rto", margin=1.0)
    assert load_method("template").margin > 0 and load_method("template", margin=0.0).margin == 0
