"""What the trainer reads: one item is a forget tree and the normal rows that go with it.

Every draw is a function of (seed, index) alone, so that a resumed run, or one on more ranks, sees the same items. The
forget rows and the normal rows are shuffled and cycled each in their own order; neither waits for the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from unteach.data.encoded import Encoded
from unteach.data.prompt_format import PromptFormat
from unteach.errors import ConfigError, DataError
from unteach.prompts.turn import Turn
from unteach.scoring.trees import Branch, Tree, TreeBatch, lay_out
from unteach.training.draws import DECOY, LEAD, NORMAL, drawn_by_share, negative_drawn, nth_of_shuffled

BREAK_OFF_TOKENS = 40
"""How far into a bad reply every place is asked to break off: early is what counts, and a mean over more is a mean of
little. Later places have the one interruption that is drawn anywhere up to the half."""


@dataclass(frozen=True)
class Item:
    """One forget prompt with its branches, and R normal rows."""

    forget: Tree
    normals: tuple[Tree, ...]


class UnlearnItems:
    """The training items of a whole run, `length` of them, by index.

    The tree of a forget row has its bad reply, `mismatch_samples` replies drawn from `decoys` (never its own reply,
    never twice the same) and, where given, the template reply of that row: at once and, if `interrupted`, after a
    beginning of the bad reply too, so that the model learns to break off (arXiv 2406.05946). With `rto` its next
    token is also asked for at every place in the beginning of the bad reply. Raises ConfigError where there are fewer
    decoys than a prompt needs.
    """

    def __init__(
        self,
        negatives: Sequence[Encoded],
        normals: Sequence[Encoded],
        length: int,
        seed: int,
        decoys: Sequence[tuple[int, ...]] = (),
        mismatch_samples: int = 0,
        normals_per_negative: int = 1,
        template_replies: Sequence[tuple[int, ...]] | None = None,
        interrupted: bool = False,
        rto: bool = False,
        max_length: int = 1024,
    ) -> None:
        self.negatives, self.normals = negatives, normals
        self.length, self.seed, self.max_length = length, seed, max_length
        self.decoys = list(dict.fromkeys(decoys))
        self.mismatch_samples, self.normals_per_negative = mismatch_samples, normals_per_negative
        self.template_replies, self.interrupted, self.rto = template_replies, interrupted, rto
        self._order: np.ndarray | None = None
        if mismatch_samples and len(self.decoys) < mismatch_samples + 1:
            raise ConfigError(
                f"--mismatch-samples {mismatch_samples} needs at least {mismatch_samples + 1} different decoy replies, "
                f"and there are {len(self.decoys)}; give more normal rows or a smaller number"
            )

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Item:
        row = self.negative_index(index)
        negative = self.negatives[row]
        branches = [Branch("negative", negative.reply_ids)]
        branches += [Branch("mismatch", ids) for ids in self._decoys_for(index, negative)]
        if self.template_replies is not None:
            room = self.max_length - len(negative.prompt_ids)
            branches.append(Branch("template", self.template_replies[row][:room]))
            branches += self._interrupted(index, negative, self.template_replies[row])
            branches += self._rto(negative, self.template_replies[row])
        normals = tuple(
            Tree(self.normals[i].prompt_ids, (Branch("normal", self.normals[i].reply_ids),), ("normals", i))
            for i in self.normal_indices(index)
        )
        return Item(Tree(negative.prompt_ids, tuple(branches), ("negatives", row)), normals)

    def negative_index(self, index: int) -> int:
        """Return which forget row item `index` holds."""
        if self._order is not None:
            return int(self._order[index])
        return negative_drawn(index, len(self.negatives), self.seed)

    def share_out(self, shares: Float[np.ndarray, " negative"]) -> None:
        """Let each forget row come up in its share of the rounds from now on (see `drawn_by_share`)."""
        self._order = drawn_by_share(self.length, shares, self.seed)

    def normal_indices(self, index: int) -> list[int]:
        """Return which normal rows item `index` holds."""
        first = index * self.normals_per_negative
        places = range(first, first + self.normals_per_negative)
        return [nth_of_shuffled(place, len(self.normals), self.seed, NORMAL) for place in places]

    def _interrupted(self, index: int, negative: Encoded, template: tuple[int, ...]) -> list[Branch]:
        """Begin the bad reply, up to its half, and break off with the template; only the template is scored."""
        room = self.max_length - len(negative.prompt_ids) - len(template)
        longest = min(len(negative.reply_ids) // 2, room)
        if not self.interrupted or longest < 1:
            return []
        lead = int(np.random.default_rng([self.seed, LEAD, index]).integers(1, longest, endpoint=True))
        return [Branch("template", negative.reply_ids[:lead] + template, lead)]

    def _rto(self, negative: Encoded, template: tuple[int, ...]) -> list[Branch]:
        """Ask for the template wherever the bad reply could go on; its end may come as it came."""
        inner = negative.reply_ids if negative.truncated else negative.reply_ids[:-1]
        if not self.rto or len(inner) < 2:
            return []
        read = inner[:BREAK_OFF_TOKENS]
        return [Branch("rto", read, 1, next_of(template, read))]

    def _decoys_for(self, index: int, negative: Encoded) -> list[tuple[int, ...]]:
        if not self.mismatch_samples:
            return []
        draw = np.random.default_rng([self.seed, DECOY, index])
        drawn = draw.choice(len(self.decoys), size=self.mismatch_samples + 1, replace=False)
        room, own = self.max_length - len(negative.prompt_ids), negative.reply_ids
        others = [self.decoys[i] for i in drawn]
        same = (reply for reply in others if (reply[: len(own)] if negative.truncated else reply) == own)
        if (found := next(same, None)) is not None:
            others.remove(found)
        return [reply[:room] for reply in others[: self.mismatch_samples]]


def next_of(template: tuple[int, ...], read: tuple[int, ...]) -> tuple[int, ...]:
    """Return the token of `template` to say at each place of `read`, given what was read before it.

    Its first, unless what was read ends in a beginning of the template: then the one after that. (A bad reply that
    opens with "I" would otherwise teach "I I I cannot".)
    """
    said = []
    for place in range(len(read)):
        most = min(place, len(template) - 1)
        said.append(next(template[k] for k in range(most, -1, -1) if read[place - k : place] == template[:k]))
    return tuple(said)


def decoys_of(replies: Sequence[str], prompt_format: PromptFormat) -> list[tuple[int, ...]]:
    """Return the ids of replies given as text. Raises DataError for one without words: it would teach silence."""
    for number, reply in enumerate(replies, start=1):
        if not isinstance(reply, str) or not reply.strip():
            raise DataError(f"mismatch_replies row {number}: the reply is empty; remove it")
    return [tuple(prompt_format.reply_ids((Turn("user", ""),), reply)) for reply in replies]


@dataclass(frozen=True)
class UnlearnCollator:
    """Lay out a batch of items: all forget trees as one packed `TreeBatch`, all normal rows as another."""

    pad_id: int = 0

    def __call__(self, items: Sequence[Item]) -> dict[str, TreeBatch]:
        normals = [tree for item in items for tree in item.normals]
        batch = {"forget": lay_out([item.forget for item in items], self.pad_id, packed=True)}
        return batch | ({"normal": lay_out(normals, self.pad_id, packed=True)} if normals else {})
