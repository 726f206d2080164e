"""Write files whole or not at all."""

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

from unteach.errors import OutputError


def without_surrogates(value: Any) -> Any:
    """Replace each half of a surrogate pair by U+FFFD, since no file can hold it; other values stay as they are."""
    if not isinstance(value, str):
        return value
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def write_whole(path: Path, text: str) -> Path:
    """Replace the file by the text in one step, so that no reader sees half of it. Raises OutputError."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", newline="\n", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # temporary files start out readable by their owner alone
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        if isinstance(error, IsADirectoryError):
            raise OutputError(f"{path}: is a directory; name a file") from error
        raise OutputError(
            f"{path}: cannot be written ({error.strerror}); free some space or choose another --output"
        ) from error
    return path
