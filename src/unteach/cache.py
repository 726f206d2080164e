"""Where things that can be made again are kept between runs."""

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any


def cache_directory() -> Path:
    """Return unteach's directory under the user's cache: $XDG_CACHE_HOME, else ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unteach"


class FileCache:
    """JSON objects kept by the hexadecimal digest of what they answer, one small file each under `directory`.

    A file that cannot be read, or holds anything else, counts as not there. A file appears whole or not at all, and
    only its owner may read it. Beyond `most_bytes` in all, the files that were not used for longest are removed.
    """

    def __init__(self, directory: Path, most_bytes: int | None = None) -> None:
        self.directory = directory
        self.most_bytes = most_bytes

    def path(self, digest: str) -> Path:
        """Return the file of a digest; it need not exist."""
        return self.directory / digest[:2] / f"{digest[2:]}.json"

    def get(self, digest: str) -> dict[str, Any]:
        """Return what is kept under a digest; an empty dict where there is nothing."""
        path = self.path(digest)
        try:
            kept = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        if self.most_bytes is not None:
            with contextlib.suppress(OSError):
                os.utime(path)  # used now, so that others are removed first
        return kept if isinstance(kept, dict) else {}

    def put(self, digest: str, content: dict[str, Any]) -> None:
        """Keep an object; a disk that cannot be written is no error, for the content can be made again."""
        path = self.path(digest)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_whole(path, content)
            if self.most_bytes is not None:
                self._make_room(self.most_bytes, keep=path)

    def _make_room(self, most_bytes: int, keep: Path) -> None:
        """Remove what was not used for longest until the rest is within bounds; `keep` stays."""
        entries = []
        for path in self.directory.rglob("*.json"):
            with contextlib.suppress(OSError):  # another run may have removed it
                found = path.stat()
                entries.append((found.st_mtime, found.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= most_bytes:
                return
            if path != keep:
                path.unlink(missing_ok=True)
                total -= size


def _write_whole(path: Path, content: dict[str, Any]) -> None:
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, suffix=".partial", delete=False) as file:
        temporary = Path(file.name)
        try:
            json.dump(content, file)
            file.close()
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
