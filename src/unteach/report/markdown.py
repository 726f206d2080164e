"""A comparison as a Markdown table, to be put into a document."""

from unteach.comparison.compare import Compared
from unteach.report.compared import grids, paragraph
from unteach.text.escape import inert_line

WIDE = 500


def comparison_text(compared: Compared) -> str:
    """Return the table of a comparison, what can be told apart, how cost depends on RLHF's length, and the notes."""
    parts = [f"Scenario {compared.scenario}, model {inert_line(compared.model, 200)}.", ""]
    for grid in grids(compared, WIDE):
        header = [_cell(title) for title in grid.header]
        parts += [_line(header), _line(["---"] * len(header))]
        parts += [_line([_cell(cell) for cell in row]) for row in grid.rows]
    parts += ["", paragraph(compared), ""]
    parts += [f"- {inert_line(note, 1000)}" for note in (*compared.length_notes, *compared.notes)]
    return "\n".join(parts) + "\n"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    """One line; what Markdown or HTML would read as markup is escaped."""
    plain = inert_line(" ".join(text.split("\n")), 200)
    for mark, escaped in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|"), ("*", "\\*"), ("`", "\\`")):
        plain = plain.replace(mark, escaped)
    return plain
