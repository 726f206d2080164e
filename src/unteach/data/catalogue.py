"""What `unteach data list` and `unteach data show` say about the public sets; `shown.py` shows rows."""

from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from unteach.data import public
from unteach.data.fetch import VARIABLE, local_name
from unteach.text.escape import inert_line


def sets_table() -> Table:
    """Return all public sets as a table: name, rows where published, licence, what it holds."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("name", "rows", "licence", "what it is"):
        table.add_column(title, no_wrap=title == "name", justify="right" if title == "rows" else "left")
    for known in public.SETS.values():
        usual = known.configuration(next(iter(known.usual.values()), ""))
        rows = (usual.rows if usual else "") or "?"
        table.add_row(known.name, rows, known.licence.partition(" (")[0], known.summary)
    table.caption = "rows: of the usual configuration. More: unteach data show NAME"
    table.caption_justify = "left"
    return table


def is_set(source: str) -> bool:
    """Tell whether a source names a public set, with or without a configuration; a local path of that name wins."""
    return public.is_public(source) and not Path(source).expanduser().exists()


def set_page(source: str) -> Text:
    """Return what is known of a set, without its rows.

    `source` is a name with or without a configuration. Raises DataError for one that does not exist.
    """
    known = public.SETS.get(source.partition(":")[0].strip().lower())
    whole = known is not None and ":" not in source and not known.usual  # nothing that the bare name stands for
    chosen = public.Chosen(known, known.configurations[0]) if known and whole else public.find(source)
    known, configuration = chosen.set, chosen.configuration
    configurations = ", ".join(one.name + (f" ({one.rows} rows)" if one.rows else "") for one in known.configurations)
    facts = {
        "set": f"{known.name}: {known.summary}",
        "licence": known.licence,
        "cite": known.citation,
        "from": f"{known.hub_id} at {known.revision}",
        "revision": f"pinned; {known.seen}",
        "fields": known.fields,
        "negatives": known.negatives or "none",
        "normals": known.normals or "none",
        "mind": "; ".join(known.warnings) or "nothing known",
        "configurations": configurations,
        "splits": f"{', '.join(configuration.files)} (the first is read; --data-split names another)",
        "use": _example(chosen),
        "local copy": f"{VARIABLE}=DIR with DIR/{local_name(chosen)}, or give the file itself in place of the name",
    }
    page = Text()
    for name, value in facts.items():
        page.append(f"{name:<15}", style="bold").append(f"{inert_line(value)}\n")
    return page


def _example(chosen: public.Chosen) -> str:
    """Return a command that uses the set as negatives, as normals or as both."""
    known = chosen.set
    forget = chosen.name if known.negatives else "bad.jsonl"
    retain = f" --retain {public.find(known.name, 'normal').name}" if "normal" in known.usual else ""
    return f"unteach run --model ./model --forget {forget}{retain} --output ./out"
