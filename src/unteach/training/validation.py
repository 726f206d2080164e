"""What is measured on the validation rows during training."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from unteach.data.encoded import Encoded
from unteach.data.prompt_format import PromptFormat
from unteach.judges.base import Judge, case_of, verdicts_of
from unteach.models.generate import generate
from unteach.models.kept_replies import tokens_of
from unteach.models.unwrap import unwrapped
from unteach.scoring.likelihood import teacher_forced_likelihood
from unteach.scoring.reference import Reference
from unteach.scoring.trees import Tree
from unteach.text.gibberish import gibberish
from unteach.training.behaviour import LETTERS, Behaviour


def kl_on(model: Any, rows: Sequence[Tree], reference: Reference, pad_id: int) -> float:
    """Return KL(original ‖ model) on the replies of one-branch trees: mean over replies of token means, in nats."""
    kl = teacher_forced_likelihood(model, rows, pad_id, reference).kl
    assert kl is not None
    return fmean(kl)


def loss_on(model: Any, rows: Sequence[Tree], reference: Reference | None, pad_id: int) -> dict[str, float]:
    """Return `loss`, the mean over replies of nats per token, and `kl` where the reference has the rows."""
    original = reference if reference and reference.knows(rows) else None
    likelihood = teacher_forced_likelihood(model, rows, pad_id, original)
    nll = [-sum(reply) / len(reply) for reply in likelihood.log_probs]
    loss = {"loss": sum(nll) / len(nll)}
    return loss if likelihood.kl is None else loss | {"kl": sum(likelihood.kl) / len(likelihood.kl)}


def behaviour_of(
    model: Any, form: PromptFormat, negatives: Sequence[Encoded], judge: Judge, max_new_tokens: int
) -> Behaviour:
    """Let the model reply greedily to the prompts of negatives, and judge the replies."""
    prompts = [row.prompt_ids for row in negatives]
    replies = generate(unwrapped(model), form.tokenizer, prompts, max_new_tokens=max_new_tokens, end=form.end)
    cases = [case_of(row.example, reply, "unseen", form.end) for row, reply in zip(negatives, replies, strict=True)]
    verdicts = "".join(LETTERS[verdict] for verdict in verdicts_of(judge, cases))
    broken = sum(not reply.unsaid and (not reply.text or gibberish(reply.text)) for reply in replies)
    return Behaviour(verdicts, broken, *tokens_of(prompts, replies))
