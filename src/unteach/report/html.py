"""What every page is made of: one file, a content security policy by hash, and text made inert."""

import base64
import hashlib
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from unteach.report import wording
from unteach.report.cells import WHISKER_WIDTH
from unteach.text.escape import inert, inert_line


def render_page(template: str, script: str = "", **content: Any) -> str:
    """Render a page; its style sheet and its script are allowed by their hashes, and nothing else is allowed."""
    style = _source("page.css")
    code = _source(script) if script else ""
    content |= {"style": Markup(style), "style_hash": _hash(style), "script": Markup(code), "script_hash": _hash(code)}
    return templates().get_template(template).render(content)


@cache
def templates() -> Environment:
    """Return the templates, in which every text is escaped unless a filter says otherwise."""
    environment = Environment(
        loader=PackageLoader("unteach.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["whisker_width"] = WHISKER_WIDTH
    environment.filters.update(
        inert=lambda value: inert(str(value)),
        line=lambda value: inert_line(str(value), 300),
        shortsplit=lambda name: wording.label(name, wording.SHORT_SPLITS),
    )
    return environment


@cache
def _source(name: str) -> str:
    source, _, _ = PackageLoader("unteach.report").get_source(templates(), name)
    return source.strip()


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
