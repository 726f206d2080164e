import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model

from unteach.errors import ModelError
from unteach.models.dropout import without_dropout
from unteach.scoring import score as scoring
from unteach.scoring.score import (
    Head,
    LastHiddenStates,
    forward_kl,
    greedy_hits,
    last_hidden_states,
    padded,
    score,
)
from unteach.scoring.trees import Branch, Tree, lay_out


class Case:
    """Random states and heads of two models over `count` answers."""

    def __init__(self, count=13, width=6, vocabulary=11, dtype=torch.float32):
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(width, vocabulary, bias=False).to(dtype)
        self.states = torch.randn(count, width, dtype=dtype, requires_grad=True)
        self.targets = torch.randint(vocabulary, (count,))
        original = torch.nn.Linear(width, vocabulary, bias=False).to(dtype).requires_grad_(False)
        self.live = LastHiddenStates(self.states, Head(self.layer, 1.5, 4.0))
        self.original = LastHiddenStates(torch.randn(count, width, dtype=dtype), Head(original, 0.5))

    def gradients(self, original):
        self.states.grad = self.layer.weight.grad = None
        scores = score(self.live, self.targets, original)
        values = [scores.log_probs] + ([scores.kl] if original else [])
        sum((v * torch.linspace(-1, 2, len(v))).sum() for v in values).backward()
        return [v.detach() for v in values], [self.states.grad.clone(), self.layer.weight.grad.clone()]


@pytest.mark.parametrize("rows", [1, 2, 5, 12, 13])
@pytest.mark.parametrize("with_kl", [False, True])
def test_chunks_change_neither_values_nor_gradients(monkeypatch, rows, with_kl):
    case = Case()
    original = case.original if with_kl else None
    values, gradients = case.gradients(original)
    monkeypatch.setattr(scoring, "CHUNK_BYTES", rows * 11 * 4)
    for whole, chunked in zip((*values, *gradients), sum(case.gradients(original), []), strict=True):
        torch.testing.assert_close(chunked, whole, rtol=1e-5, atol=1e-6)


def test_a_chunk_never_holds_more_logits_than_it_may(monkeypatch):
    case, sizes = Case(), []
    case.layer.register_forward_hook(lambda module, inputs, output: sizes.append(output.numel() * 4))
    monkeypatch.setattr(scoring, "CHUNK_BYTES", 5 * 11 * 4)
    case.gradients(None)
    assert max(sizes) <= 5 * 11 * 4 and len(sizes) == 6  # three chunks, each made again on the way back


def test_values_are_those_of_numpy():
    case = Case()
    scores = score(case.live, case.targets, case.original)
    logits = case.states.detach().numpy() @ case.layer.weight.detach().numpy().T * 1.5
    capped = 4.0 * np.tanh(logits / 4.0)
    log_p = capped - np.log(np.exp(capped).sum(1, keepdims=True))
    logits0 = case.original.states.numpy() @ case.original.head.layer.weight.numpy().T * 0.5
    log_p0 = logits0 - np.log(np.exp(logits0).sum(1, keepdims=True))
    np.testing.assert_allclose(scores.log_probs.detach(), log_p[np.arange(13), case.targets], rtol=1e-4)
    np.testing.assert_allclose(scores.kl.detach(), (np.exp(log_p0) * (log_p0 - log_p)).sum(1), rtol=1e-4)


def test_kl_is_that_of_torch_and_never_negative():
    torch.manual_seed(0)
    log_p0, log_p = (torch.randn(50, 17, dtype=torch.float64).mul(4).log_softmax(-1) for _ in range(2))
    kl = forward_kl(log_p0, log_p)
    expected = torch.nn.functional.kl_div(log_p, log_p0, log_target=True, reduction="none").sum(-1)
    torch.testing.assert_close(kl, expected)
    assert (kl >= 0).all()
    assert not torch.allclose(kl, forward_kl(log_p, log_p0)), "the direction matters: the original comes first"


def test_kl_of_two_coins_by_hand():
    half, quarter = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    assert forward_kl(half, quarter).item() == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3), rel=1e-5)


def test_kl_keeps_a_gradient_where_the_live_model_is_most_broken():
    """The authors' code floors the probability at 1e-12, which kills the gradient just there."""
    logits = torch.tensor([[0.0, 80.0]], requires_grad=True)
    forward_kl(torch.tensor([[0.99, 0.01]]).log(), logits.log_softmax(-1)).sum().backward()
    assert logits.grad[0, 0] == pytest.approx(-0.99, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("chunk", [2 * 11 * 4, 2**20])
def test_kl_of_a_model_to_itself_is_exactly_zero(monkeypatch, dtype, chunk):
    monkeypatch.setattr(scoring, "CHUNK_BYTES", chunk)
    case = Case(dtype=dtype)
    same = LastHiddenStates(case.states.detach(), case.live.head)
    assert score(case.live, case.targets, same).kl.tolist() == [0.0] * 13


def test_half_precision_is_scored_in_float32():
    case = Case(dtype=torch.bfloat16)
    scores = score(case.live, case.targets, case.original)
    assert scores.log_probs.dtype == scores.kl.dtype == torch.float32
    wide = (4 * torch.tanh((case.layer(case.states) * 1.5) / 4)).float().log_softmax(-1)
    torch.testing.assert_close(scores.log_probs, wide.gather(-1, case.targets[:, None])[:, 0])
    scores.log_probs.sum().backward()
    assert case.states.grad.dtype == torch.bfloat16 and case.states.grad.isfinite().all()


def test_padded_arranges_answers_by_reply_as_worked_by_hand():
    batch = lay_out(
        [
            Tree((1,), (Branch("negative", (5, 6, 2)), Branch("mismatch", (7, 2)))),
            Tree((1,), (Branch("negative", (8,)),)),
        ]
    )
    values = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    table, mask = padded(values, batch, [0, 2])
    assert table.tolist() == [[1, 2, 3], [6, 0, 0]]
    assert mask.tolist() == [[True, True, True], [True, False, False]]
    table, mask = padded(values, batch, [1])
    assert table.tolist() == [[4, 5]] and mask.tolist() == [[True, True]]
    assert padded(values, batch, [2, 0])[0].tolist() == [[6, 0, 0], [1, 2, 3]]


def test_padded_passes_gradients_to_the_chosen_replies_only():
    batch = lay_out([Tree((1,), (Branch("negative", (5, 2)), Branch("mismatch", (7, 2))))])
    values = torch.zeros(4, requires_grad=True)
    padded(values, batch, [1])[0].sum().backward()
    assert values.grad.tolist() == [0, 0, 1, 1]


def test_padding_token_and_width_change_nothing(tiny_llama, trees):
    """Neither the id that pads nor how much of it there is may show in a score: fault 5 of the authors' code."""
    alone = [score(last_hidden_states(tiny_llama, lay_out([t])), lay_out([t]).targets).log_probs for t in trees]
    for pad_id in (0, 2, 60):
        batch = lay_out(trees, pad_id)
        together = score(last_hidden_states(tiny_llama, batch), batch.targets).log_probs
        torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-5)


def test_a_model_without_a_head_is_refused():
    headless = GPT2Model(GPT2Config(n_embd=8, n_head=1, n_layer=1, vocab_size=11))
    with pytest.raises(ModelError, match="GPT2Model has no output embeddings"):
        last_hidden_states(headless, lay_out([Tree((1,), (Branch("negative", (5,)),))]))


def test_greedy_hits_are_the_most_likely_tokens_in_any_chunks(monkeypatch):
    case = Case()
    best = case.live.head(case.states).argmax(-1)
    targets = torch.where(torch.arange(13) % 3 == 0, best, (best + 1) % 11)
    for chunk in (2**20, 4 * 11 * 4):
        monkeypatch.setattr(scoring, "CHUNK_BYTES", chunk)
        assert greedy_hits(case.live, targets).tolist() == [number % 3 == 0 for number in range(13)]


def test_dropout_off_means_the_same_scores_in_training_mode_too(trees):
    torch.manual_seed(0)
    config = GPT2Config(n_embd=16, n_head=2, n_layer=2, vocab_size=61, resid_pdrop=0.5, attn_pdrop=0.5, embd_pdrop=0.5)
    model, batch = GPT2LMHeadModel(config), lay_out(trees)
    expected = score(last_hidden_states(model.eval(), batch), batch.targets).log_probs
    assert not torch.equal(score(last_hidden_states(model.train(), batch), batch.targets).log_probs, expected)
    with without_dropout(model):
        assert torch.equal(score(last_hidden_states(model, batch), batch.targets).log_probs, expected)
    assert model.config.resid_pdrop == 0.5, "the saved model keeps its own rates"
    rates = {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {0.5}, "and so does the one in memory"
