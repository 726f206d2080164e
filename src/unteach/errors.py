"""Every error a user can cause or meet, in one tree.

UnteachError            shown as one line, exit code 2
├── DataError           a file, row or field that cannot be used
├── ModelError          a model directory or id that cannot be loaded
├── ConfigError         an unknown name or a value that makes no sense
├── OutputError         the output directory cannot be used, or the disk is full
├── TrainingError       the run broke down (NaN, exploding loss); the last good weights are kept
└── Interrupted         the user stopped the run; a checkpoint was written; exit code 130

A message names the file, row, field or flag, says what is wrong, and ends with the fix.
"""

import difflib
from collections.abc import Iterable


class UnteachError(Exception):
    """Base of all errors this package raises on purpose."""

    exit_code = 2


class DataError(UnteachError):
    """A data source that cannot be used."""


class ModelError(UnteachError):
    """A model that cannot be loaded or is of the wrong kind."""


class ConfigError(UnteachError):
    """A setting that does not exist or makes no sense."""


class OutputError(UnteachError):
    """The output directory cannot be used or written."""


class TrainingError(UnteachError):
    """Training broke down."""


class Interrupted(UnteachError):
    """The user stopped the run with Ctrl-C."""

    exit_code = 130


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the closest known name, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""
