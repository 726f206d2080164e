"""Prompt trees: a prompt with several replies, laid out as one row so that the prompt is computed once.

    row        x1 x2 x3 | a1 a2 | b1 b2 b3
    position    0  1  2    3  4    3  4  5     every branch starts again right after the prompt
    attends    to itself, its prompt and its own branch; never to another branch

Log-probabilities and gradients equal those of separate rows "x a" and "x b", at |x| + |a| + |b| tokens instead of
2|x| + |a| + |b|. A reply's last token is only a target, so it takes no place in the row. A branch that asks for other
tokens `instead`, along the beginning of an earlier branch, is scored at the places of that branch and takes none.

Packed, a row holds several trees, none of which sees another. Rows of different lengths, such as negatives and normals,
then need little padding. What all prompts begin with, such as the system message of a chat template, is computed once a
row, and rows are made wide enough for that to pay.

    row        s1 s2 | x1 x2 | a1 a2 | y1 | b1 b2      trees "s x a" and "s y b"
    position    0  1    2  3    4  5    2    3  4
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from unteach.models.beginning import shared_beginning
from unteach.scoring.mask import PADDING, PROMPT, SHARED, tree_rule

Stream = Literal["negative", "rto", "mismatch", "template", "normal", "reply"]
"""What a branch is for: one of the streams of a training item, or a reply that is only scored."""
STREAMS: tuple[Stream, ...] = ("negative", "rto", "mismatch", "template", "normal")
"""The streams of a training item."""
Key = tuple[str, int]
"""Names a row: its split, and its place there."""
WIDEST = 512
"""Positions of the widest row that is made for a shared beginning."""
EQUAL_COST = 1000
"""Width of a row, roughly, at which a small model's attention costs as much as all else."""


@dataclass(frozen=True)
class Branch:
    """One reply in a tree: its token ids and the stream that it belongs to.

    Its first `lead` tokens are read but not scored; at least one token must be scored. `instead`, where given, has one
    token for each token of the reply, which is scored in its place.
    """

    stream: Stream
    reply_ids: tuple[int, ...]
    lead: int = 0
    instead: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Tree:
    """A prompt (at least one token) and its branches. `key` names the row it came from."""

    prompt_ids: tuple[int, ...]
    branches: tuple[Branch, ...]
    key: Key = ("", 0)

    @property
    def tokens(self) -> int:
        """Tokens of the prompt, counted once, and of all branches that take places of their own."""
        return self.places + len(set(self.carriers()))

    @property
    def places(self) -> int:
        """Places that the tree takes in a row."""
        return len(self.prompt_ids) + sum(len(self.branches[number].reply_ids) - 1 for number in set(self.carriers()))

    def carriers(self) -> list[int]:
        """Return for each branch the number of the branch at whose places it is scored: an earlier one, or itself."""
        return [self._carrier(number) for number in range(len(self.branches))]

    def _carrier(self, number: int) -> int:
        branch = self.branches[number]
        if branch.instead is None:
            return number
        read = branch.reply_ids[:-1]
        whole = (i for i, other in enumerate(self.branches[:number]) if other.instead is None)
        return next((i for i in whole if self.branches[i].reply_ids[:-1][: len(read)] == read), number)

    def only(self, stream: Stream) -> "Tree":
        """Return the tree with the branches of one stream."""
        return Tree(self.prompt_ids, tuple(b for b in self.branches if b.stream == stream), self.key)

    def apart(self) -> list["Tree"]:
        """Return one tree for each branch: the plain rows that this tree stands for."""
        return [Tree(self.prompt_ids, (branch,), self.key) for branch in self.branches]


@dataclass
class TreeBatch:
    """Trees as tensors, padded on the right: one tree in a row, or several where `packed`.

    `members` says which tree of the batch a position belongs to, -2 where it is of all in its row, and `segments` which
    part of it: 0 is the prompt and j the j-th branch; both are -1 on padding. The prompts' first `shared` tokens are
    laid out once a row. Each scored reply token has an entry in the other five tensors: `rows` and
    `columns` say where the state that predicts it stands, `targets` which token it is, `branches` to which branch of
    the batch it belongs (counted over all trees, in order) and `slots` its place in the reply.
    """

    input_ids: Int[Tensor, "row position"]
    position_ids: Int[Tensor, "row position"]
    members: Int[Tensor, "row position"]
    segments: Int[Tensor, "row position"]
    rows: Int[Tensor, " scored"]
    columns: Int[Tensor, " scored"]
    targets: Int[Tensor, " scored"]
    branches: Int[Tensor, " scored"]
    slots: Int[Tensor, " scored"]
    streams: list[Stream]
    trees: list[Tree] = field(repr=False)
    pad_id: int = 0
    packed: bool = False
    shared: int = 0

    @property
    def is_plain(self) -> bool:
        """Whether every row is one ordinary sequence, so that a padding mask is all it needs."""
        return len(self.input_ids) == len(self.trees) and all(len(tree.branches) == 1 for tree in self.trees)

    @property
    def token_count(self) -> int:
        """Tokens that are computed, padding left out."""
        return sum(tree.places for tree in self.trees) - self.shared * (len(self.trees) - len(self.input_ids))

    def to(self, device: torch.device | str, **kwargs: object) -> "TreeBatch":
        """Move all tensors; accelerate calls this for the Trainer."""
        for name in (f.name for f in fields(self)):
            value = getattr(self, name)
            if isinstance(value, Tensor):
                setattr(self, name, value.to(device, non_blocking=True))
        return self

    def plain(self) -> "TreeBatch":
        """Lay the same branches out as separate rows, in the same order."""
        apart = [row for tree in self.trees for row in tree.apart()]
        return lay_out(apart, self.pad_id).to(self.input_ids.device)

    def only(self, stream: Stream) -> "TreeBatch":
        """Lay out the branches of one stream; trees without one are left out."""
        trees = [tree.only(stream) for tree in self.trees]
        kept = [tree for tree in trees if tree.branches]
        return lay_out(kept, self.pad_id, self.packed).to(self.input_ids.device)

    def may_attend(self) -> Bool[Tensor, "row 1 query key"]:
        """Return the attention mask of the trees: True where a query may attend."""
        count, length = self.input_ids.shape
        row, place = (torch.arange(size, device=self.segments.device) for size in (count, length))
        return tree_rule(self.members, self.segments)(row[:, None, None, None], None, place[:, None], place)


def reply_trees(
    split: str, pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], stream: Stream = "reply"
) -> list[Tree]:
    """Make a tree with one branch of each (prompt ids, reply ids); its key is the split and the place in the list."""
    return [Tree(prompt, (Branch(stream, reply),), (split, place)) for place, (prompt, reply) in enumerate(pairs)]


def lay_out(trees: Sequence[Tree], pad_id: int = 0, packed: bool = False) -> TreeBatch:
    """Lay out trees as one batch: one tree in a row or, `packed`, several, with what all prompts begin with only once.

    Raises ValueError for a tree without prompt tokens or branches, and for an empty reply: nothing would be scored.
    """
    for tree in trees:
        if not tree.prompt_ids or not tree.branches or not all(len(b.reply_ids) > b.lead for b in tree.branches):
            raise ValueError(f"tree {tree.key} has an empty prompt, reply or list of branches: nothing to score")
    shared, places = _places_of(trees) if packed else (0, [(row, 0) for row in range(len(trees))])
    sizes = [tree.places - shared for tree in trees]
    ends = [shared + first + size for (_, first), size in zip(places, sizes, strict=True)]
    input_ids = torch.full((1 + max(row for row, _ in places), max(ends)), pad_id)
    position_ids = torch.zeros_like(input_ids)
    members, segments = torch.full_like(input_ids, PADDING), torch.full_like(input_ids, PADDING)
    if shared:
        input_ids[:, :shared] = torch.tensor(trees[0].prompt_ids[:shared])
        position_ids[:, :shared] = torch.arange(shared)
        members[:, :shared], segments[:, :shared] = SHARED, PROMPT
    scored: list[tuple[int, int, int, int, int]] = []
    streams: list[Stream] = []
    for member, ((row, offset), tree) in enumerate(zip(places, trees, strict=True)):
        first, start = shared + offset, len(tree.prompt_ids)
        ids, positions = list(tree.prompt_ids[shared:]), list(range(shared, start))
        parts, own = [PROMPT] * len(ids), len(ids)
        begins: list[int] = []
        for number, (branch, carrier) in enumerate(zip(tree.branches, tree.carriers(), strict=True)):
            begins.append(len(ids) if carrier == number else begins[carrier])
            for slot in range(branch.lead, len(branch.reply_ids)):
                column = first + (own if slot == 0 else begins[number] + slot) - 1
                scored.append((row, column, (branch.instead or branch.reply_ids)[slot], len(streams), slot))
            streams.append(branch.stream)
            if carrier == number:
                inner = branch.reply_ids[:-1]
                ids += inner
                positions += range(start, start + len(inner))
                parts += [number + 1] * len(inner)
        for tensor, values in ((input_ids, ids), (position_ids, positions), (segments, parts)):
            tensor[row, first : first + len(values)] = torch.tensor(values)
        members[row, first : first + len(ids)] = member
    rows, columns, targets, branches, slots = torch.tensor(scored).T.contiguous()
    where = (input_ids, position_ids, members, segments)
    return TreeBatch(*where, rows, columns, targets, branches, slots, streams, list(trees), pad_id, packed, shared)


def packed_tokens(trees: Sequence[Tree]) -> int:
    """Return the `token_count` of trees that are laid out as one packed batch, without laying them out."""
    shared, places = _places_of(trees)
    return sum(tree.places for tree in trees) - shared * (len(trees) - 1 - max(row for row, _ in places))


def _places_of(trees: Sequence[Tree]) -> tuple[int, list[tuple[int, int]]]:
    """Return how many tokens all prompts begin with, and the row and place of each packed tree."""
    shared = shared_beginning([tree.prompt_ids for tree in trees])
    return shared, _packed([tree.places - shared for tree in trees], shared)


def _packed(sizes: Sequence[int], shared: int) -> list[tuple[int, int]]:
    """Return for each tree its row and its place there, counted after the `shared` tokens at the row's beginning.

    Without a shared beginning no row is longer than the longest tree. With one, of a few widths the cheapest is taken:
    the wider the rows, the fewer times it is computed, and the more attention costs.
    """
    longest = max(sizes)
    widths = [longest, *(width - shared for width in (128, 256, WIDEST) if shared and width - shared > longest)]
    found = [_first_fit(sizes, width) for width in widths]

    def cost(places: list[tuple[int, int]]) -> float:
        width = shared + max(first + size for (_, first), size in zip(places, sizes, strict=True))
        return (1 + max(row for row, _ in places)) * width * (1 + width / EQUAL_COST)

    return min(found, key=cost)


def _first_fit(sizes: Sequence[int], width: int) -> list[tuple[int, int]]:
    """Pack into rows of a width: the longest first, each into the first row that has room (first-fit decreasing).

    That never takes more than 11/9 of the fewest rows possible, plus one.
    """
    ends: list[int] = []
    places = [(0, 0)] * len(sizes)
    for tree in sorted(range(len(sizes)), key=lambda number: -sizes[number]):
        row = next((row for row, end in enumerate(ends) if end + sizes[tree] <= width), len(ends))
        if row == len(ends):
            ends.append(0)
        places[tree] = row, ends[row]
        ends[row] += sizes[tree]
    return places
