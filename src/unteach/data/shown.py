"""What `unteach data show` says of a source: layout, what became of each column, and rows as a model sees them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from rich import box
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from unteach.data import public
from unteach.data.catalogue import is_set
from unteach.data.example import Example, Polarity
from unteach.data.exports import columns_of, unfolded
from unteach.data.layouts import LAYOUTS
from unteach.data.prompt_format import PromptFormat
from unteach.data.raw_row import RawRow
from unteach.data.reading import HowToRead, Reading, reading_of
from unteach.data.sources import public_rows, read_rows
from unteach.errors import ConfigError, DataError, UnteachError
from unteach.text.escape import inert, inert_line, terminal_text

ROWS_SHOWN, LONGEST_TEXT, LONGEST_VALUE, MOST_SKIPPED = 3, 400, 60, 5
Part = Text | Table | Padding


def shown_source(
    source: str, polarity: Polarity | None, how: HowToRead, form: PromptFormat | None = None
) -> tuple[Group, UnteachError | None]:
    """Return what is made of a source, read as `polarity`, and the error that ended the reading, if one did.

    A public set is read as what it has, and only if its rows are on this machine. With a prompt format the rows are
    shown as its tokens, and tokens are counted. Raises DataError for a source that is missing or malformed.
    """
    notes: list[str] = []
    if is_set(source):
        try:
            chosen = public.find(source, polarity)
            polarity = polarity or ("negative" if chosen.set.negatives else "normal")
            rows = public_rows(chosen, how.split, cached=True)
        except DataError as error:
            return Group(Text(f"No rows to show: {inert_line(str(error), 400)}")), None
    else:
        rows = read_rows(source, how.split, how.revision, polarity, notes)
    return _shown_rows(source, rows, polarity or "negative", how, form, notes)


def _shown_rows(
    source: str,
    rows: Sequence[RawRow],
    polarity: Polarity,
    how: HowToRead,
    form: PromptFormat | None,
    notes: Sequence[str],
) -> tuple[Group, UnteachError | None]:
    try:
        reading = reading_of(source, rows, polarity, how, needed=False)
        reading = replace(reading, notes=(*notes, *reading.notes))
        other = _count(source, rows, "normal" if polarity == "negative" else "negative", how)
        if how.bad_labels and reading.labels is None:
            raise ConfigError("--bad-label: no column is read as a label; name it with --column label=NAME")
        return Group(*_account(reading, polarity, other), *_examples(reading, polarity, form)), None
    except UnteachError as error:
        return Group(*_columns_as_they_are(source, rows)), error


def _count(source: str, rows: Sequence[RawRow], polarity: Polarity, how: HowToRead) -> int:
    """Return how many examples of the other polarity the same rows give."""
    try:
        return len(reading_of(source, rows, polarity, how, needed=False).examples)
    except DataError:
        return 0


def _account(reading: Reading, polarity: Polarity, other: int) -> Iterator[Part]:
    """Say what the source is, what became of its columns and labels, and what the user should know."""
    mine = len(reading.examples)
    negatives, normals = (mine, other) if polarity == "negative" else (other, mine)
    about = next(layout.becomes for layout in LAYOUTS if layout.name == reading.layout)
    yield _line("source", f"{reading.source}: {len(reading.by_row):,} rows")
    yield _line("layout", f"{reading.layout}: {about}")
    yield _line("gives", f"{negatives:,} negatives with --forget, {normals:,} normal rows with --retain")
    if reading.skipped:
        yield _line("skipped", f"{len(reading.skipped):,} rows that cannot be used")
    yield _columns(reading)
    if reading.labels is not None:
        yield _labels(reading)
    for row in reading.skipped[:MOST_SKIPPED]:
        yield _bullet("skipped", row.problem, "yellow")
    for text in reading.warnings:
        yield _bullet("warning", text, "yellow")
    for text in reading.notes:
        if not text.startswith("skipped "):
            yield _bullet("note", text)


def _line(name: str, text: str) -> Text:
    return Text.assemble((f"{name:<9}", "bold"), inert_line(text))


def _bullet(name: str, text: str, style: str = "") -> Text:
    return Text.assemble((f"{name}: ", f"bold {style}"), (inert_line(text, 600), style))


def _table(*titles: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for title in titles:
        table.add_column(title, justify="right" if title == "rows" else "left", overflow="fold")
    return table


def _columns(reading: Reading) -> Padding:
    table = _table("column", "what became of it")
    for column in reading.columns:
        name = Text(inert_line(column.name, 40) or '""')
        if column.fate == "used":
            table.add_row(name, Text(inert_line(column.becomes, 80), "green"))
        elif column.fate == "ignored":
            table.add_row(name, Text(f"ignored: {column.becomes}", "dim"))
        else:
            table.add_row(name, Text("not read", "yellow"))
    return Padding(table, (1, 0))


def _labels(reading: Reading) -> Padding:
    labels = reading.labels
    assert labels is not None
    table = _table(inert_line(labels.column, 40), "rows", "taken as")
    for value, count in labels.counts.items():
        table.add_row(Text(inert_line(value, 40)), f"{count:,}", "bad" if value in labels.bad else "good")
    if labels.unlabelled:
        table.add_row("no label", f"{labels.unlabelled:,}", "left out")
    return Padding(table, (0, 0, 1, 0))


def _examples(reading: Reading, polarity: Polarity, form: PromptFormat | None) -> Iterator[Part]:
    """Show a few examples as the model will see them."""
    examples = reading.examples
    if not examples:
        yield _bullet("warning", f"no row gives a {polarity}; check the labels and --column, or use --as", "yellow")
        return
    if form is not None:
        yield _tokens(examples, form)
    first = _apart(examples)
    yield Text(f"\n{len(first)} of {len(examples):,} {polarity} rows as the model will see them", "bold")
    for example in first:
        yield Text(f"\n{inert_line(example.where, 80)}", "dim")
        yield from _said(example) if form is None else _rendered(example, form)


def _apart(examples: Sequence[Example]) -> list[Example]:
    """Take the first example, one of the middle and the last: files are often sorted."""
    places = dict.fromkeys((0, len(examples) // 2, len(examples) - 1))
    return [examples[place] for place in places][:ROWS_SHOWN]


def _said(example: Example) -> Iterator[Part]:
    turns = [(turn.role, turn.content) for turn in example.turns] or [("no prompt", "")]
    others = [(name, text) for name, text in (("good", example.good), ("bad", example.bad)) if text]
    about = [("concept", example.concept)] if example.concept else []
    for name, text in [*turns, ("reply", example.reply), *others, *about]:
        table = Table.grid(padding=(0, 1))
        table.add_column(width=9, no_wrap=True)
        table.add_column(overflow="fold")
        table.add_row(Text(name, "bold cyan" if name == "reply" else "cyan"), terminal_text(text, limit=LONGEST_TEXT))
        yield table


def _rendered(example: Example, form: PromptFormat) -> Iterator[Part]:
    """Show prompt and reply as the text of their tokens, with the end."""
    prompt, reply = form.prompt_ids(example.turns), form.reply_ids(example.turns, example.reply)
    before, whole = form.tokenizer.decode(prompt), form.tokenizer.decode([*prompt, *reply])
    said = whole.removeprefix(before) if whole.startswith(before) else ""
    asked = whole.removesuffix(said) if said else whole
    yield Text.assemble((inert(asked, 2 * LONGEST_TEXT), "dim"), (inert(said, 2 * LONGEST_TEXT), "bold"))


def _tokens(examples: Sequence[Example], form: PromptFormat) -> Text:
    def spread(counts: list[int]) -> str:
        return f"{min(counts):,} to {max(counts):,}, median {median(counts):,.0f}"

    prompts = [len(form.prompt_ids(example.turns)) for example in examples]
    replies = [len(form.reply_ids(example.turns, example.reply)) for example in examples]
    return _line("tokens", f"prompt {spread(prompts)}; reply with its end {spread(replies)}")


def _columns_as_they_are(source: str, rows: Sequence[RawRow]) -> Iterator[Part]:
    """Show the columns of rows that could not be read, each with its first value."""
    rows = unfolded(rows)
    yield _line("source", f"{source}: {len(rows):,} rows, which could not be read")
    table = _table("column", "first value")
    for column in columns_of(rows):
        value = next((row.values[column] for row in rows if row.values.get(column) is not None), None)
        table.add_row(Text(inert_line(column, 40)), Text(inert_line(str(value), LONGEST_VALUE)))
    yield Padding(table, (1, 0, 0, 0))


def form_of(model: str, name: str = "auto") -> PromptFormat:
    """Return the prompt format of a model, of which only tokenizer and settings are read. Raises ModelError."""
    from transformers import GenerationConfig

    from unteach.data.prompt_format import prompt_format
    from unteach.models.loading import load_tokenizer

    tokenizer = load_tokenizer(model)
    try:
        ends: Any = GenerationConfig.from_pretrained(str(Path(model).expanduser())).eos_token_id
    except (OSError, ValueError):
        ends = None
    return prompt_format(tokenizer, name, ends)
