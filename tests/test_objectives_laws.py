"""The laws that every objective obeys. They are found through the methods: a new one fails until it is in WORKED."""

import math

import numpy as np
import pytest
import torch

from unteach.objectives.base import Replies
from unteach.objectives.methods import load_method, method_names


def named(objective):
    """The class, and whether tokens are summed: those are two equations."""
    return type(objective).__name__ + (" sums" if getattr(objective, "sums", False) else "")


OBJECTIVES = {named(term.objective): term.objective for name in method_names() for term in load_method(name).terms}
EVERY = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=list(OBJECTIVES))
SHAPES = [(1, 1), (1, 7), (5, 1), (3, 4), (7, 13)]


def generate_cached(shape, dtype=torch.float64, seed=0):
    """Random replies with ragged lengths; what is masked holds values that would be noticed."""
    generator = torch.Generator().manual_seed(seed)
    rows, width = shape
    lengths = torch.randint(1, width + 1, (rows,), generator=generator)
    lengths[0] = width
    mask = torch.arange(width)[None] < lengths[:, None]

    def draw(low, high):
        values = low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)
        return values.masked_fill(~mask, 77.0).to(dtype)

    return Replies(draw(-5, -0.1), mask, draw(-5, -0.1), draw(0, 3))


def by_hand(name, objective, replies):
    """The published equations as loops over replies and tokens, in plain Python floats."""
    p, p0, kl = (t.double().tolist() for t in (replies.log_probs, replies.reference_log_probs, replies.kl))
    losses = []
    for row, mask in enumerate(replies.mask.tolist()):
        scored = [i for i, inside in enumerate(mask) if inside]
        log_p, log_p0 = sum(p[row][i] for i in scored), sum(p0[row][i] for i in scored)
        if name == "WeightedAscent":  # the one that no sum over the reply's tokens can give
            losses.append(sum(math.exp(objective.beta * p[row][i]) for i in scored) / objective.beta / len(scored))
            continue
        losses.append(WORKED[name](objective, log_p, log_p0, sum(kl[row][i] for i in scored), len(scored)))
    return np.mean(losses)


def log_sigmoid(x):
    return -math.log1p(math.exp(-x))


WORKED = {
    "GradientAscent": lambda o, log_p, log_p0, kl, n: log_p / n,
    "NegativeLogLikelihood": lambda o, log_p, log_p0, kl, n: -log_p / n,
    "NegativeLogLikelihood sums": lambda o, log_p, log_p0, kl, n: -log_p,
    "ForwardKL": lambda o, log_p, log_p0, kl, n: kl / n,
    "ForwardKL sums": lambda o, log_p, log_p0, kl, n: kl,
    "NPO": lambda o, log_p, log_p0, kl, n: -(2 / o.beta) * log_sigmoid(-o.beta * (log_p - log_p0)),
    "SimNPO": lambda o, log_p, log_p0, kl, n: -(2 / o.beta) * log_sigmoid(o.beta * (-log_p / n - o.delta)),
}
DIRECTION = {"GradientAscent": -1, "NegativeLogLikelihood": 1, "ForwardKL": 0, "NPO": -1, "SimNPO": -1}
DIRECTION |= {"WeightedAscent": -1, "NegativeLogLikelihood sums": 1, "ForwardKL sums": 0}
"""Which way one step of descent moves the log-probability of the reply."""


def leaf(replies, objective):
    """The same replies with gradients on what the objective is a function of: the KL, or the log-probabilities."""
    if objective.reads_kl:
        values = replies.kl.clone().requires_grad_()
        return values, Replies(replies.log_probs, replies.mask, replies.reference_log_probs, values)
    values = replies.log_probs.clone().requires_grad_()
    return values, Replies(values, replies.mask, replies.reference_log_probs, replies.kl)


def part(replies, rows):
    return Replies(replies.log_probs[rows], replies.mask[rows], replies.reference_log_probs[rows], replies.kl[rows])


@EVERY
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_value_is_that_of_the_published_equation(objective, shape, dtype):
    replies = generate_cached(shape, dtype)
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2}[dtype]
    expected = by_hand(named(objective), objective, replies)
    assert float(objective(replies)) == pytest.approx(expected, rel=tolerance, abs=tolerance)


@EVERY
def test_two_halves_accumulated_are_one_whole(objective):
    replies = generate_cached((6, 5))
    values, whole = leaf(replies, objective)
    objective(whole).backward()
    value = objective(whole).detach()
    gradient = values.grad.clone()

    values, whole = leaf(replies, objective)
    halves = [objective(part(whole, rows)) / 2 for rows in (slice(0, 3), slice(3, 6))]
    for half in halves:
        half.backward()
    torch.testing.assert_close(sum(halves).detach(), value, rtol=1e-12, atol=0)
    torch.testing.assert_close(values.grad, gradient, rtol=1e-12, atol=0)


@EVERY
@pytest.mark.parametrize("content", [0.0, -1e4, float("nan"), float("inf")])
def test_padding_changes_nothing(objective, content):
    replies = generate_cached((3, 4))
    wide = Replies(
        *(
            torch.nn.functional.pad(t.masked_fill(~replies.mask, fill), (0, 6), value=fill)
            for t, fill in (
                (replies.log_probs, content),
                (replies.mask, False),
                (replies.reference_log_probs, content),
                (replies.kl, content),
            )
        )
    )
    values, narrow = leaf(replies, objective)
    wide_values, wide = leaf(wide, objective)
    left, right = objective(narrow), objective(wide)
    left.backward()
    right.backward()
    assert torch.equal(left, right)
    assert torch.equal(wide_values.grad[:, :4], values.grad)
    assert not wide_values.grad[:, 4:].any()


@EVERY
def test_gradient_equals_finite_differences(objective):
    replies = generate_cached((3, 4))
    values, _ = leaf(replies, objective)
    values = values.detach().requires_grad_()

    def loss(values):
        log_probs, kl = (replies.log_probs, values) if objective.reads_kl else (values, replies.kl)
        return objective(Replies(log_probs, replies.mask, replies.reference_log_probs, kl))

    assert torch.autograd.gradcheck(loss, (values,))


@EVERY
def test_a_reply_without_scored_tokens_is_refused(objective):
    replies = generate_cached((3, 4))
    replies.mask[1] = False
    with pytest.raises(ValueError, match="no scored token"):
        objective(replies)


@EVERY
def test_one_step_moves_the_reply_in_the_stated_direction(objective):
    torch.manual_seed(0)
    logits = torch.randn(3, 4, 11, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(11, (3, 4, 1))
    original = torch.randn(3, 4, 11, dtype=torch.float64).log_softmax(-1)

    def replies():
        log_p = logits.log_softmax(-1)
        kl = (original.exp() * (original - log_p)).sum(-1)
        mask = torch.ones(3, 4, dtype=torch.bool)
        return Replies(log_p.gather(-1, targets)[..., 0], mask, original.gather(-1, targets)[..., 0], kl)

    before = replies()
    objective(before).backward()
    with torch.no_grad():
        logits -= 0.01 * logits.grad
    after = replies()
    assert objective(after) < objective(before)
    moved = (after.log_probs - before.log_probs).sum(1)
    sign = DIRECTION[named(objective)]
    if sign:
        assert (sign * moved > 0).all()
    else:
        assert (after.kl < before.kl).all()


@pytest.mark.parametrize("name", ["NPO", "ForwardKL"])
def test_what_was_not_computed_is_asked_for_by_name(name):
    replies = generate_cached((2, 3))
    with pytest.raises(ValueError, match="was not computed"):
        OBJECTIVES[name](Replies(replies.log_probs, replies.mask))


def test_hand_worked_values():
    log_probs = torch.tensor([[-1.0, -3.0], [-2.0, 0.0]])
    mask = torch.tensor([[True, True], [True, False]])
    reference, kl = torch.tensor([[-2.0, -1.0], [-2.0, 0.0]]), torch.tensor([[0.5, 1.5], [3.0, 9.0]])
    replies = Replies(log_probs, mask, reference, kl)
    assert float(OBJECTIVES["GradientAscent"](replies)) == -2.0
    assert float(OBJECTIVES["NegativeLogLikelihood"](replies)) == 2.0
    assert float(OBJECTIVES["ForwardKL"](replies)) == 2.0
    # ratios −1 and 0, β = 0.1: 20 · mean(ln(1 + e^−0.1), ln 2)
    assert float(OBJECTIVES["NPO"](replies)) == pytest.approx(10 * (0.644397 + 0.693147), rel=1e-5)
    # both replies cost 2 nats a token, β = 2.5: 0.8 · ln(1 + e^−5)
    assert float(OBJECTIVES["SimNPO"](replies)) == pytest.approx(0.8 * 0.00671535, rel=1e-5)


def test_npo_fades_where_ascent_does_not():
    log_probs = torch.tensor([[-200.0]], requires_grad=True)
    replies = Replies(log_probs, torch.tensor([[True]]), torch.tensor([[-1.0]]))
    OBJECTIVES["NPO"](replies).backward()
    assert 0 <= log_probs.grad.item() < 1e-6
