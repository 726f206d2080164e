"""Count one token as likelier where a reply begins, in a loss only, so that the model itself says it less readily."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unteach.scoring.trees import TreeBatch


@dataclass(frozen=True)
class Tilt:
    """Nats that are added to the logit of one token at each scored place of a batch.

    Trained so, a model ends up with odds of that token that are lower by as much (logit adjustment, arXiv 2007.07314,
    for two classes: declining, and anything else).
    """

    token: int
    nats: Float[Tensor, " scored"]

    def __getitem__(self, part: slice) -> "Tilt":
        return Tilt(self.token, self.nats[part])

    def __call__(self, logits: Float[Tensor, "scored vocabulary"]) -> Float[Tensor, "scored vocabulary"]:
        """Return the logits with the nats added."""
        return logits.index_add(1, torch.tensor([self.token], device=logits.device), self.nats[:, None])


def opening_tilt(forget: TreeBatch, nats: float, batch: TreeBatch) -> Tilt | None:
    """Return the tilt of the template's first token where the replies of `batch` begin, of which nothing else is known.

    Those are of prompts without a reply: harmful ones, and harmless ones that sound alike. Ordinary normal rows have
    whole replies and stay as they are. The token is that of the templates in `forget`. None where `nats` is 0 or no
    template is there.
    """
    templates = (branch for tree in forget.trees for branch in tree.branches if branch.stream == "template")
    template = next((branch for branch in templates if not branch.lead), None)
    if not nats or template is None:
        return None
    alone = batch.branches.bincount()[batch.branches] == 1
    return Tilt(template.reply_ids[0], nats * alone.float())
