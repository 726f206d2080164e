"""A message of a dialogue: what every prompt is made of."""

from dataclasses import dataclass

TEXT = "text"
"""The role of a turn that is running text, which the reply goes on with."""


@dataclass(frozen=True)
class Turn:
    """One message of a dialogue; `role` is "system", "user" or "assistant". A lone turn may be running text (TEXT)."""

    role: str
    content: str
