"""The rows of learning from mistakes, by what they are for: to train on, to mix in, to evaluate on."""

import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from unteach.data.example import Example, Polarity
from unteach.data.overlap import fingerprint, split_by_prompt, without_duplicates, without_known
from unteach.data.own_answers import answer_prompts, generate_lookalikes, numbered
from unteach.data.reading import HowToRead, read
from unteach.errors import ConfigError
from unteach.mistakes.config import MistakesConfig
from unteach.mistakes.records import Mistake, MistakeSource, read_mistakes, read_prompts
from unteach.models.ranks import by_first_rank
from unteach.pipeline.original import Original
from unteach.pipeline.own_rows import answer_shipped
from unteach.pipeline.rows import HELD_OUT, language_of_rows
from unteach.prompts.lists import benign_prompts
from unteach.results.report import Cost, Source

MistakeOrExample = TypeVar("MistakeOrExample", Example, Mistake)


@dataclass(frozen=True)
class MistakeRows:
    """All rows by what they are for.

    `prompts` are asked with inducements (a known bad reply in `bad`) and `labelled` are mistakes with their replies;
    both are trained on. `unseen_prompts` and `unseen_mistakes` were held out of them. `normals` and `harmless` are
    mixed in. `splits` holds the other rows to evaluate on, `validation` the mistakes whose prompts are asked during
    training. `cost` is what making normal rows took.
    """

    prompts: Sequence[Example] = ()
    unseen_prompts: Sequence[Example] = ()
    labelled: Sequence[Mistake] = ()
    unseen_mistakes: Sequence[Mistake] = ()
    normals: Sequence[Example] = ()
    harmless: Sequence[Example] = ()
    validation: Sequence[Example] = ()
    splits: Mapping[str, Sequence[Example]] = field(default_factory=dict)
    sources: Sequence[Source] = ()
    notes: Sequence[str] = ()
    cost: Sequence[Cost] = ()

    @property
    def good_replies(self) -> list[Example]:
        """Replies to train on that are known to be good, to harmful prompts and to normal ones."""
        return [row for row in [*self.harmless, *self.normals] if row.turns and not row.is_passage]


@by_first_rank
def gather_rows(config: MistakesConfig, *, hold_out: bool = True) -> MistakeRows:
    """Read and split all rows; without `hold_out`, no prompts are held out.

    Raises DataError for rows that cannot be used, ConfigError where no row is left to train on.
    """
    notes: list[str] = []
    prompts = _once_each([row for source in config.prompts for row in _prompts(config, source, notes)], notes)
    labelled = [mistake for path in config.mistakes for mistake in _mistakes(config, path, "labelled", notes)]
    labelled += [mistake for path in config.reports for mistake in _mistakes(config, path, "reported", notes)]
    prompts, labelled = drawn(prompts, config), drawn(labelled, config)
    splits = {name: _read(config, getattr(config, name), "negative") for name in ("unseen", "unseen_concept")}
    given = {row.prompt_key for rows in splits.values() for row in rows}
    # Both sets are split together: no prompt may be trained on in one and evaluated on in the other.
    negatives = [*prompts, *(mistake.example for mistake in labelled)]
    held_out = (
        {row.prompt_key for row in _hold_out(negatives, config)[1]} if hold_out and not splits["unseen"] else set()
    )
    to_train = {row.prompt_key for row in negatives} - held_out - given
    if left_out := sum(row.prompt_key not in to_train | held_out for row in negatives):
        notes.append(f"left out {left_out} rows to train on whose prompts stand in --unseen or --unseen-concept")
    if negatives and not to_train:
        raise ConfigError("every prompt stands in --unseen or --unseen-concept; give others to train on")
    evaluated = [row for row in negatives if row.prompt_key in held_out] + splits["unseen"] + splits["unseen_concept"]
    splits["lookalike"] = _read(config, config.lookalike, "normal")
    normals = all_normals = _without(evaluated, "retain", _read(config, config.retain, "normal"), notes)
    splits["normal"] = without_known(_read(config, config.normal, "normal"), normals)
    if not splits["normal"]:
        normals, splits["normal"] = _hold_out(normals, config)
    kept = [row for row in negatives if row.prompt_key in to_train]
    if config.harmless:
        harmless = _without(evaluated, "harmless", _read(config, config.harmless, "normal"), notes)
    else:
        harmless = _right_replies(kept, config, notes)
    return MistakeRows(
        prompts=[row for row in prompts if row.prompt_key in to_train],
        unseen_prompts=[row for row in prompts if row.prompt_key in held_out],
        labelled=[mistake for mistake in labelled if mistake.example.prompt_key in to_train],
        unseen_mistakes=[mistake for mistake in labelled if mistake.example.prompt_key in held_out],
        normals=normals,
        harmless=harmless,
        validation=_read(config, config.validation, "negative"),
        splits=splits,
        sources=[
            Source(name=name, source=", ".join(paths), rows=len(rows), fingerprint=fingerprint(rows))
            for name, paths, rows in (
                ("prompts", config.prompts, prompts),
                ("mistakes", config.mistakes + config.reports, [mistake.example for mistake in labelled]),
                ("normals", config.retain, all_normals),
                ("harmless", config.harmless, harmless),
            )
            if rows and paths
        ],
        notes=notes,
    )


def add_own_answers(rows: MistakeRows, original: Original, config: MistakesConfig) -> MistakeRows:
    """Where no normal rows or look-alikes were given, take the model's own answers to the shipped prompts."""
    model, form, key, longest = original.model, original.form, original.key, config.max_new_tokens
    splits, language = dict(rows.splits), language_of_rows([*rows.prompts, *(row.example for row in rows.labelled)])
    if not rows.normals:
        prompts = numbered("benign prompt", benign_prompts(language))
        made, source, cost = answer_shipped("benign prompts", prompts, original, config.seed, longest, language)
        normals, held_out = _hold_out(made, config)
        if not splits["normal"]:  # the evaluation decodes greedily, so the greedy answers are what must stay
            asked = [(row.prompt, row.where) for row in held_out]
            splits["normal"] = answer_prompts(asked, model, form, key=key, max_new_tokens=longest)
        note = f"no --retain was given: the normal rows are {source.source}"
        rows = replace(
            rows,
            normals=normals,
            sources=[*rows.sources, source],
            notes=[*rows.notes, note],
            cost=[*rows.cost, cost],
        )
    if not splits["lookalike"] and not config.skip_evaluation:
        count = config.evaluation_prompts
        settings: dict[str, Any] = {"max_new_tokens": longest, "count": count, "language": language, "key": key}
        splits["lookalike"] = generate_lookalikes(model, form, **settings)
    return replace(rows, splits=splits)


def drawn(rows: list[MistakeOrExample], config: MistakesConfig) -> list[MistakeOrExample]:
    """Draw at most `most_rows` rows, where that is set; they keep their order."""
    count = min(len(rows), config.most_rows or len(rows))
    places = random.Random(f"rows:{config.seed}").sample(range(len(rows)), count)
    return [rows[place] for place in sorted(places)]


def _hold_out(rows: list[Example], config: MistakesConfig) -> tuple[list[Example], list[Example]]:
    """Split rows into those to train on and those to evaluate on, which are no more than are evaluated."""
    prompts = len({row.prompt_key if row.turns else row.key for row in rows})
    share = min(HELD_OUT, config.evaluation_prompts / max(prompts, 1))
    if share * prompts < 1:
        return rows, []
    parts = split_by_prompt(rows, {"train": 1 - share, "held_out": share}, config.seed)
    return parts["train"], parts["held_out"]


def _right_replies(rows: Iterable[Example], config: MistakesConfig, notes: list[str]) -> list[Example]:
    """Return the right replies that rows to train on bring with them, to be mixed in as harmless rows."""
    known = [replace(row, reply=row.good, good=None, bad=None) for row in rows if row.good]
    known = without_duplicates(known)[0]
    if known and config.harmless_per_analysis:
        notes.append(
            f"no --harmless was given: {len(known)} right replies that the rows bring along are there to be mixed in "
            "(--harmless-per-analysis 0 leaves them out)"
        )
    return known


def _without(evaluated: Collection[Example], name: str, rows: list[Example], notes: list[str]) -> list[Example]:
    """Leave out rows to train on whose prompts are evaluated on."""
    kept = without_known(rows, list(evaluated))
    if left_out := len(rows) - len(kept):
        notes.append(f"--{name}: left out {left_out} of {len(rows)} rows whose prompts are evaluated on")
    return kept


def _prompts(config: MistakesConfig, source: str, notes: list[str]) -> list[Example]:
    return read_prompts(source, _how_to_read(config), notes)


def _mistakes(config: MistakesConfig, path: str, source: MistakeSource, notes: list[str]) -> list[Mistake]:
    return read_mistakes(path, source, _how_to_read(config), notes)


def _read(config: MistakesConfig, paths: list[str], polarity: Polarity) -> list[Example]:
    how = _how_to_read(config, polarity)
    return without_duplicates([row for path in paths for row in read(path, polarity, how).examples])[0]


def _how_to_read(config: MistakesConfig, polarity: Polarity = "negative") -> HowToRead:
    normal = polarity == "normal"
    columns = {} if normal else config.column
    return HowToRead(columns, config.bad_label, config.data_split, config.data_revision, lenient=normal)


def _once_each(rows: list[Example], notes: list[str]) -> list[Example]:
    """Keep the first of rows with the same prompt: each is asked once."""
    kept = list({row.prompt_key: row for row in reversed(rows)}.values())[::-1]
    if len(kept) < len(rows):
        notes.append(f"prompts: {len(rows) - len(kept)} of {len(rows)} stand there twice; each is asked once")
    return kept
