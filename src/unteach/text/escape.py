"""Text from models and data, made inert before anyone sees it: in a terminal, in Markdown, in HTML.

A reply may hold terminal commands, invisible letters, text that runs backwards or markup. Everything that is shown
goes through `inert`, which turns such characters into visible escapes like `\\x1b` and `\\u202e`; the other functions
serve one medium each. What is stored (report.json) stays as it was.
"""

import re
import unicodedata

from rich.text import Text

# Invisible or blank although their Unicode category says letter, mark or symbol.
_BLANK = {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0}
_BLANK |= set(range(0x180B, 0x1810)) | set(range(0xFE00, 0xFE10)) | set(range(0xE0100, 0xE01F0))
_HIDDEN_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_MARKS_IN_A_ROW = 3  # more than any living script needs on one letter; stacks of them cover other lines
# What begins markup anywhere in a line, what makes a bare web address a link, and what counts only at the start.
_MARKDOWN = re.compile(r"[\\`*_\[\]<>|~&$!@{}]|:(?=//)|(?<=www)\.|^[#+=-]", re.IGNORECASE)
_MARKDOWN_NUMBERING = re.compile(r"^(\d{1,9})([.)])(?= |$)")


def inert(text: str, limit: int | None = None) -> str:
    """Return the text with every invisible, reordering or control character as a visible escape.

    Line breaks stay, tabs become four spaces. A text longer than `limit` characters is cut and says by how much.
    """
    left_out = 0
    if limit is not None and len(text) > limit:
        text, left_out = text[:limit], len(text) - limit
    text = text.replace("\r\n", "\n")
    if not (text.isascii() and text.isprintable()):
        text = _visible(text)
    return f"{text} … ({left_out:,} more characters)" if left_out else text


def inert_line(text: str, limit: int | None = None) -> str:
    """Like `inert`, on one line: each line break becomes " ⏎ " and runs of spaces become one."""
    return re.sub(r" +", " ", inert(text, limit).replace("\n", " ⏎ ")).strip()


def terminal_text(text: str, style: str = "", limit: int | None = None) -> Text:
    """Return text for the terminal, never read as rich's markup."""
    return Text(inert(text, limit), style=style)


def markdown_line(text: str, limit: int | None = None) -> str:
    """Return text for a Markdown paragraph or table cell, on one line; no markup, link or HTML in it takes effect."""
    return _MARKDOWN_NUMBERING.sub(r"\1\\\2", _MARKDOWN.sub(r"\\\g<0>", inert_line(text, limit)))


def markdown_block(text: str, language: str = "text", limit: int | None = None) -> str:
    """Return text as a fenced Markdown block; the fence is longer than any run of backticks inside."""
    body = inert(text, limit).rstrip()
    longest = max((len(run) for run in re.findall(r"`+", body)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{body}\n{fence}"


def _visible(text: str) -> str:
    out: list[str] = []
    marks = 0
    for char in text:
        if char == "\n" or " " <= char <= "~":
            marks = 0
            out.append(char)
            continue
        category = unicodedata.category(char)
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if char == "\t":
            out.append("    ")
        elif category in _HIDDEN_CATEGORIES or ord(char) in _BLANK or marks > _MARKS_IN_A_ROW:
            out.append(_escape(char))
        else:
            out.append(char)
    return "".join(out)


def _escape(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
