"""Where things that can be made again are kept between runs."""

import os
from pathlib import Path


def cache_directory() -> Path:
    """Return unteach's directory under the user's cache: $XDG_CACHE_HOME, else ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unteach"
