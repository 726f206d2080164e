"""What several prompts begin with, such as the system message of a chat template: it need be read only once."""

import os
from collections.abc import Sequence

FEWEST_SHARED = 8
"""Tokens of the shortest beginning that is worth sharing."""


def shared_beginning(prompts: Sequence[Sequence[int]]) -> int:
    """Return how many tokens all prompts begin with, 0 for too few; each prompt keeps at least one of its own."""
    alike = len(os.path.commonprefix([tuple(prompt) for prompt in prompts]))
    alike = min(alike, *(len(prompt) - 1 for prompt in prompts)) if len(prompts) > 1 else 0
    return alike if alike >= FEWEST_SHARED else 0
