"""What the trainer reads: one item is a forget tree and the normal rows that go with it.

Every draw depends on (seed, index) alone, so that a resumed run, or one on more ranks, sees the same items. Forget rows
and normal rows are shuffled and cycled independently.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from unteach.data.encoded import Encoded
from unteach.data.prompt_format import PromptFormat
from unteach.errors import ConfigError, DataError
from unteach.objectives.methods import Method
from unteach.prompts.turn import Turn
from unteach.scoring.trees import Branch, Tree, TreeBatch, lay_out
from unteach.training.config import MOST_TOKENS, UnlearnConfig
from unteach.training.data import TrainingData
from unteach.training.draws import DECOY, LEAD, NORMAL, drawn_by_share, negative_drawn, nth_of_shuffled

RTO_TOKENS = 40
"""How many places at the beginning of a bad reply are asked for the template. Early places matter most, and a mean over
more would weaken them. Later places are reached by the one interruption that is drawn anywhere up to the half."""

BEGUN_TOKENS = 1
"""How many tokens of the template are taught where only the prompt is known: these decide whether a reply declines."""

OPENING_TOKENS = 4
"""How many tokens of a bad reply are in a tree whose loss reads none: enough to watch how likely it still is."""


@dataclass(frozen=True)
class Item:
    """One forget prompt with its branches, and R normal rows."""

    forget: Tree
    normals: tuple[Tree, ...]


@dataclass(eq=False)
class UnlearnItems:
    """The training items of a whole run, `length` of them, by index.

    The tree of a forget row has its bad reply, or with `opening` only the first tokens of it, and `mismatch_samples`
    replies drawn from `decoys` (never its own reply, never the same one twice). Where given, it has the template reply
    of that row: at once and, if `interrupted`, also after a beginning of the bad reply, so that the model learns to
    break off (arXiv 2406.05946). With `rto`, the next token of the template is also asked for at every place in the
    beginning of the bad reply. `midway` is the template as it follows a word, where it has other tokens there. `order`,
    where set, says which forget row each item holds.
    Raises ConfigError where there are fewer decoys than a prompt needs.
    """

    negatives: Sequence[Encoded]
    normals: Sequence[Encoded]
    length: int
    seed: int
    decoys: Sequence[tuple[int, ...]] = ()
    mismatch_samples: int = 0
    normals_per_negative: int = 1
    template_replies: Sequence[tuple[int, ...]] | None = None
    midway: tuple[int, ...] = ()
    opening: bool = False
    interrupted: bool = False
    rto: bool = False
    max_length: int = 1024
    order: Int[np.ndarray, " length"] | None = None

    def __post_init__(self) -> None:
        self.decoys, wanted = list(dict.fromkeys(self.decoys)), self.mismatch_samples
        if wanted and len(self.decoys) < wanted + 1:
            raise ConfigError(
                f"--mismatch-samples {wanted} needs at least {wanted + 1} different decoy replies, "
                f"and there are {len(self.decoys)}; give more normal rows or a smaller number"
            )

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Item:
        row = self.negative_index(index)
        negative = self.negatives[row]
        known = [] if negative.example.prompt_only else [negative.reply_ids[: OPENING_TOKENS if self.opening else None]]
        branches = [Branch("negative", ids) for ids in known]
        branches += [Branch("mismatch", ids) for ids in self._decoys_for(index, negative)]
        if self.template_replies is not None:
            room = BEGUN_TOKENS if negative.example.prompt_only else self.max_length - len(negative.prompt_ids)
            branches.append(Branch("template", self.template_replies[row][:room]))
            branches += self._interrupted(index, negative, self.midway or self.template_replies[row])
            branches += self._rto(negative, self.template_replies[row])
        normals = tuple(
            Tree(self.normals[i].prompt_ids, (Branch("normal", self.normals[i].reply_ids),), ("normals", i))
            for i in self.normal_indices(index)
        )
        return Item(Tree(negative.prompt_ids, tuple(branches), ("negatives", row)), normals)

    def negative_index(self, index: int) -> int:
        """Return which forget row item `index` holds."""
        if self.order is not None:
            return int(self.order[index])
        return negative_drawn(index, len(self.negatives), self.seed)

    def share_out(self, shares: Float[np.ndarray, " negative"]) -> None:
        """Let each forget row come up in its share of the rounds (see `drawn_by_share`)."""
        self.order = drawn_by_share(self.length, shares, self.seed)

    def normal_indices(self, index: int) -> list[int]:
        """Return which normal rows item `index` holds."""
        first = index * self.normals_per_negative
        places = range(first, first + self.normals_per_negative)
        return [nth_of_shuffled(place, len(self.normals), self.seed, NORMAL) for place in places]

    def _interrupted(self, index: int, negative: Encoded, template: tuple[int, ...]) -> list[Branch]:
        """Return a beginning of the bad reply, up to its half, and then the template; only the template is scored."""
        room = self.max_length - len(negative.prompt_ids) - len(template)
        longest = min(len(negative.reply_ids) // 2, room)
        if not self.interrupted or longest < 1:
            return []
        lead = int(np.random.default_rng([self.seed, LEAD, index]).integers(1, longest, endpoint=True))
        return [Branch("template", negative.reply_ids[:lead] + template, lead)]

    def _rto(self, negative: Encoded, template: tuple[int, ...]) -> list[Branch]:
        """Return a branch that asks for the template wherever the bad reply goes on, but not where it ends."""
        inner = negative.reply_ids if negative.truncated else negative.reply_ids[:-1]
        if not self.rto or len(inner) < 2:
            return []
        read = inner[:RTO_TOKENS]
        return [Branch("rto", read, 1, next_of(template, read, self.midway))]

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


def require_retain(method: Method, retain: Any, mismatch_replies: Sequence[str] | None) -> None:
    """Raise ConfigError where the method reads normal rows and there are none."""
    decoys_from_normals = method.reads("mismatch") and mismatch_replies is None
    if retain is None and (method.reads("normal") or decoys_from_normals):
        raise ConfigError(
            f"method {method.name} reads normal rows and retain_dataset is missing; give one, or make normals "
            "from the model's own answers with unteach.data.own_answers.generate_normals"
        )


def items_per_step(args: UnlearnConfig) -> int:
    """Return how many items an optimizer step takes on all ranks together."""
    return args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size


def run_items(
    method: Method,
    data: TrainingData,
    args: UnlearnConfig,
    mismatch_replies: Sequence[str] | None = None,
) -> UnlearnItems:
    """Lay out the items of the whole run; `max_steps` wins over epochs, as in the Trainer.

    `args` must hold the longest row. Raises ConfigError for an empty template and for fewer decoys than a prompt needs.
    """
    batch = items_per_step(args)
    steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * len(data.negatives) / batch)
    passages = all(row.example.is_passage for row in data.negatives)  # a text is continued with text
    alike = [row for row in data.normals if row.example.is_passage == passages] or data.normals
    own = [row.reply_ids for row in alike if not row.truncated]
    template, midway = None, tuple[int, ...]()
    if method.reads("template"):
        if not args.template.strip():
            raise ConfigError("--template is empty, which would teach silence; write the answer that is wanted")
        template = [tuple(data.form.reply_ids(row.example.turns, args.template)) for row in data.negatives]
        midway = after_a_word(args.template, data.form, data.negatives[0].example.turns)
    items = UnlearnItems(
        data.negatives,
        data.normals,
        length=steps * batch,
        seed=args.seed,
        decoys=own if mismatch_replies is None else decoys_of(mismatch_replies, data.form),
        mismatch_samples=args.mismatch_samples if method.reads("mismatch") else 0,
        normals_per_negative=method.normals(args.normals_per_negative),
        template_replies=template,
        midway=midway,
        opening=not method.reads_bad_replies,
        interrupted=method.template_midway,
        rto=method.reads("rto"),
        max_length=args.max_length or MOST_TOKENS,
    )
    if data.shares is not None:
        items.share_out(data.shares)
    return items


def next_of(template: tuple[int, ...], read: tuple[int, ...], midway: tuple[int, ...] = ()) -> tuple[int, ...]:
    """Return the token of `template` to say at each place of `read`, given the tokens before it.

    It is the first one or, where these tokens end in a beginning of the template, the one that follows it. (A bad reply
    that opens with "I" would otherwise teach "I I I cannot".) After a word it is that of `midway`, where given: the
    template with the space before it.
    """
    midway, said = midway or template, []
    for place in range(len(read)):
        begun = [
            (k, whole[k])
            for whole in (template, midway)
            for k in range(1, min(place, len(whole) - 1) + 1)
            if read[place - k : place] == whole[:k]
        ]
        first = midway[0] if place else template[0]
        said.append(max(begun, key=lambda found: found[0])[1] if begun else first)
    return tuple(said)


def after_a_word(template: str, form: PromptFormat, turns: Sequence[Turn]) -> tuple[int, ...]:
    """Return the ids of a template that follows a word: with a space, unless it is of a script that has none."""
    space = " " if " " in template.strip() or template.isascii() else ""
    word = form.reply_ids(turns, "Yes")
    both = form.reply_ids(turns, f"Yes{space}{template.strip()}")
    shared = next((n for n, pair in enumerate(zip(word, both, strict=False)) if pair[0] != pair[1]), len(word))
    return tuple(both[shared:] if shared else form.reply_ids(turns, template))


def decoys_of(replies: Sequence[str], prompt_format: PromptFormat) -> list[tuple[int, ...]]:
    """Return the ids of replies given as text. Raises DataError for an empty one, which would teach silence."""
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
