"""Can an attacker tell from the loss which replies the model was trained on?"""

from collections.abc import Sequence

from unteach.probes.base import membership
from unteach.results.arm_result import ArmResult, mean_nll
from unteach.results.measurement import Measurement


class LossMiaProbe:
    """`loss_mia`: AUC of the mean log-probability between seen bad replies and replies that no arm was trained on.

    A = P(s(member) > s(non_member)) + ½ P(equal), with s(y) = (1/|y|) Σ log π(yᵢ | x, y₍<ᵢ₎). Unit: AUC, 0 to 1; 0.5
    cannot tell, and lower is better down to there. Below 0.5 is an overshoot, which gives the replies away too. `n`
    counts the members. Source: arXiv 1709.01604 for the loss as the attack, 1610.05820 for the question. Differs: the
    AUC over all thresholds instead of one. An untouched model: its own, near 1 where it knows the replies by heart; 0.5
    for one that never saw them.
    """

    name = "loss_mia"
    splits = frozenset({"seen"})

    def __call__(self, result: ArmResult) -> list[Measurement]:
        return membership(result, "loss_mia", _mean)


def _mean(log_probs: Sequence[float]) -> float:
    return -mean_nll(log_probs)


probe = LossMiaProbe()
