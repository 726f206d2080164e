"""Rows that the original makes itself: what it answers to shipped prompts, benign, harmful and look-alike."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from typing import Any

from unteach.data.example import Example
from unteach.data.overlap import fingerprint
from unteach.data.own_answers import Answer, generate_lookalikes, generate_normals, numbered
from unteach.data.prompt_format import PromptFormat
from unteach.judges import load_judge
from unteach.objectives.methods import load_method
from unteach.pipeline.config import RunConfig
from unteach.pipeline.original import Original
from unteach.pipeline.rows import Sets, at_most, longest_evaluated, split_rows
from unteach.progress import track
from unteach.prompts.lists import benign_prompts, harmful_prompts, training_lookalikes
from unteach.results.cost import Meter
from unteach.results.report import OWN_ANSWERS, Cost, Source
from unteach.results.verdict import Case
from unteach.training.data import FEWEST_NORMALS

MOST_TOKENS = 48
"""Longest own answer to train on: what must stay or go is decided early in a reply, and longer rows make dear steps."""

OPENING_TOKENS = 24
"""Longest own answer where no loss reads bad replies: whether a reply declines is decided at its beginning."""


def own_tokens(config: RunConfig) -> int:
    """Return the longest own answer to train on, in tokens, which is never longer than replies may be."""
    decides_early = not load_method(config.method).reads_bad_replies
    return min(config.max_new_tokens, OPENING_TOKENS if decides_early else MOST_TOKENS)


def add_own_answers(sets: Sets, original: Original, config: RunConfig) -> None:
    """Make normal rows from the original's own answers to the shipped benign prompts."""
    most = config.max_new_tokens
    prompts = at_most(numbered("benign prompt", benign_prompts(sets.language)), config.own_answers, config.seed)
    made, source, cost = answer_shipped(
        "benign prompts", prompts, original, config.seed, own_tokens(config), sets.language
    )
    sets.cost.append(cost)
    sets.normals = split_rows(made, sets.evaluation["normal"], config, FEWEST_NORMALS)
    sets.uncut["normals"] = sets.normals["train"]
    if not sets.evaluation["normal"]:  # replies are greedy in the evaluation, so those to be kept are greedy too
        held_out = [(row.prompt, row.where) for row in sets.normals["held_out"]]
        model, form = original.model, original.form
        sets.evaluation["normal"] = original.answer(held_out, model, form, max_new_tokens=most, key=original.key)
    sets.sources.append(source)
    sets.notes.append(f"no --retain was given: the normal rows are {source.source}")


def add_training_lookalikes(sets: Sets, original: Original, config: RunConfig, drawn: int) -> None:
    """Mix shipped prompts that sound harmful and are not into the normal rows, so that they are not declined.

    A model that learns to decline harm from harmful prompts alone declines whatever sounds alike. They make up a share
    `config.lookalike_share` of the normal rows, of which the run draws so many (`drawn`): as many different ones as it
    can meet, beside which few others are repeated. None of them is among the look-alikes to evaluate on. What is kept
    are the original's own answers or, where no loss reads bad replies, how it would begin to answer.
    """
    train, share = sets.normals["train"], config.lookalike_share or 0.0
    shipped = numbered("look-alike prompt to train on", training_lookalikes(sets.language))
    asked = random.Random(f"look-alikes:{config.seed}").sample(shipped, min(len(shipped), math.ceil(drawn * share)))
    if not asked:
        return
    what = "prompts that sound harmful"
    if load_method(config.method).reads_bad_replies:
        most, asked = own_tokens(config), asked[: config.own_answers]
        made, source, cost = answer_shipped(what, asked, original, config.seed, most, sets.language)
        sets.cost.append(cost)
    else:
        made = _prompts_only(asked, config)
        name = f"how the model begins to answer {len(asked)} {what}"
        source = Source(name="normals", source=name, rows=len(made), fingerprint=fingerprint(made))
    made = _cycled(made, max(len(made), round(len(train) * share / (1 - share))))
    sets.normals["train"] = [*repeated(train, len(made), share), *made]
    sets.sources.append(source)
    sets.notes.append(
        f"normals: {share:.0%} of them are {source.source} and are not, against over-refusal; --lookalike-share 0 "
        "leaves them out"
    )


def add_shipped_negatives(sets: Sets, original: Original, config: RunConfig, drawn: int) -> None:
    """Add shipped harmful prompts to the negatives to train on, with the original's own bad replies where they matter.

    Red-team findings are often asked in one way, such as "Write a tutorial on …", and what is learnt from these alone
    does not reach plain questions. They make up a share `config.harmful_share` of the negatives, of which the run draws
    so many (`drawn`): as many different ones as it can meet, beside which few negatives are repeated. The evaluation
    does not hold them. Where a loss reads bad replies, the original is asked for them, and those that comply are taken;
    else the prompts are enough.
    """
    train, share = sets.negatives["train"], config.harmful_share or 0.0
    known = {row.prompt_key for rows in (*sets.negatives.values(), *sets.evaluation.values()) for row in rows}
    shipped = numbered("shipped harmful prompt", harmful_prompts(sets.language))
    asked = [one for one in shipped if Example.of(one[0], "").prompt_key not in known]
    asked = random.Random(f"harmful:{config.seed}").sample(asked, min(len(asked), math.ceil(drawn * share)))
    if not asked:
        return
    if load_method(config.method).reads_bad_replies:
        asked = asked[: config.own_answers]
        bad, cost = _bad_replies(asked, original, config)
        sets.cost.append(cost)
        name = f"the model's own bad replies to {len(asked)} shipped harmful prompts"
        judged = " (judge complies)"
    else:
        bad, judged = _prompts_only(asked, config), ""
        name = "shipped harmful prompts, without replies"
    sets.negatives["train"] = [*repeated(train, len(bad), share), *bad]
    sets.sources.append(Source(name="negatives", source=name, rows=len(bad), fingerprint=fingerprint(bad)))
    sets.notes.append(
        f"negatives: {len(bad)} are {name}{judged}, so that what is unlearned does not hang on how it was asked; "
        "--harmful-share 0 leaves them out"
    )


def _bad_replies(asked: Sequence[tuple[str, str]], original: Original, config: RunConfig) -> tuple[list[Example], Cost]:
    """Return the original's own replies to harmful prompts where they comply, and what asking cost."""
    rows, cost = _asked("harmful prompts", original, own_tokens(config), partial(original.answer, asked))
    said = original.form.end.said
    verdicts = load_judge("complies")([Case(row.prompt, said(row.reply)) for row in rows])
    return [row for row, verdict in zip(rows, verdicts, strict=True) if verdict == "bad"], cost


def _prompts_only(asked: Sequence[tuple[str, str]], config: RunConfig) -> list[Example]:
    """Return rows of prompts (each with its place) whose replies nobody has asked for; the template stands in."""
    reply = config.template or "-"
    rows = [Example.of(prompt, reply, where=where) for prompt, where in asked]
    return [replace(row, cut=True, prompt_only=True) for row in rows]


def repeated(rows: Sequence[Example], others: int, share: float) -> list[Example]:
    """Repeat rows where they are too few beside `others` that should make up a `share` of all; leave none out."""
    return _cycled(rows, max(len(rows), round(others * (1 - share) / share)))


def _cycled(rows: Sequence[Example], count: int) -> list[Example]:
    """Return so many rows, from the first on and over again where there are fewer."""
    return list(islice(cycle(rows), count))


def answer_shipped(
    what: str, prompts: Sequence[tuple[str, str]], original: Original, seed: int, most: int, language: str = "en"
) -> tuple[list[Example], Source, Cost]:
    """Have the original answer shipped prompts of a kind (`what`), each in at most `most` tokens.

    Returns the rows, how a report names them, and what they cost.
    """
    asking = partial(generate_normals, prompts, seed=seed, answer=original.answer)
    rows, cost = _asked(what, original, most, asking)
    name = f"{OWN_ANSWERS} to {len(prompts)} {what}{' in Chinese' if language == 'zh' else ''}"
    source = Source(name="normals", source=name, rows=len(rows), fingerprint=fingerprint(rows))
    return rows, source, cost


def _asked(what: str, original: Original, most: int, answer: Answer) -> tuple[list[Example], Cost]:
    """Have `answer` ask the original for replies of at most `most` tokens; return the rows and what they cost."""
    meter, model, form = Meter(), original.model, original.form
    with track(f"answering {what}") as progress:
        rows = answer(model, form, max_new_tokens=most, key=original.key, progress=progress)
    read, said = (sum(lengths) for lengths in zip((0, 0), *(_lengths(row, form) for row in rows), strict=True))
    return rows, meter.cost(model, "original", f"answering {what}", read, generated=said)


def _lengths(row: Example, form: PromptFormat) -> tuple[int, int]:
    """Return how many tokens the prompt of a row has, and its reply."""
    return len(form.prompt_ids(row.turns)), len(form.reply_ids(row.turns, row.reply, row.cut))


def add_lookalikes(sets: Sets, original: Original, config: RunConfig) -> None:
    """Add the shipped look-alikes with the model's own answers, to evaluate on whether these change (over-refusal)."""
    model, form, most, count = original.model, original.form, config.max_new_tokens, config.evaluation_prompts
    with track("answering prompts that sound harmful") as progress:
        settings: dict[str, Any] = {"max_new_tokens": most, "count": count, "key": original.key, "progress": progress}
        made = generate_lookalikes(model, form, language=sets.language, answer=original.answer, **settings)
    limit = longest_evaluated(config, model)
    fitting = [row for row in made if sum(_lengths(row, form)) <= limit]
    sets.evaluation["lookalike"] = fitting
    if fitting:
        sets.notes.append(
            "no --lookalike was given: the look-alikes are prompts of this package that sound harmful and are not, and "
            "what is kept there are the original's own answers"
        )
