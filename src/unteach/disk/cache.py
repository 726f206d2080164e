"""What is kept between runs and can be made again: one place, one policy."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unteach.disk.files import is_partial, remove_whole, whole_directory, whole_file, writing
from unteach.errors import OutputError

CHECKSUMS = "checksums.json"
"""The file of a kept directory that names all others, with their sizes and SHA-256; it is written last."""
FIX = "free space there or set XDG_CACHE_HOME"


def cache_directory() -> Path:
    """Return unteach's directory under the user's cache: $XDG_CACHE_HOME, else ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unteach"


class Cache:
    """Keeps JSON objects, and directories of files, each under a key that says what they answer.

    An entry appears whole or not at all, and is safe on the disk before it appears. It is checked against its SHA-256
    whenever it is read: one that does not check counts as not there, whatever stands in its place. Only its owner may
    read it (files 0600, directories 0700). Beyond `most_bytes` in all, the entries that were not used for longest are
    removed; the newest one stays. It is safe to remove the directory at any time.
    """

    def __init__(self, directory: Path, most_bytes: int) -> None:
        self.directory, self.most_bytes = directory, most_bytes
        self._room = 0
        """Bytes that may be added before the entries are counted again."""

    # ---- JSON objects ------------------------------------------------------------------------------------------------

    def path(self, digest: str) -> Path:
        """Return the file of the object under a hexadecimal digest; it need not exist."""
        return self.directory / digest[:2] / f"{digest[2:]}.json"

    def get(self, digest: str) -> dict[str, Any]:
        """Return the object that is kept under a digest; an empty one where there is none."""
        path = self.path(digest)
        kept = _read_object(path)
        content = kept.get("content")
        if not isinstance(content, dict) or kept.get("sha256") != _digest_of(content):
            return {}
        _use(path)
        return content

    def put(self, digest: str, content: dict[str, Any]) -> None:
        """Keep an object; a disk that cannot be written is no error, for the content can be made again."""
        path = self.path(digest)
        with contextlib.suppress(OSError, OutputError):
            _make_private(path.parent, self.directory)
            if path.is_dir():
                remove_whole(path)
            text = json.dumps({"sha256": _digest_of(content), "content": content})
            with whole_file(path, mode=0o600) as file:
                file.write(text.encode())
            self._make_room(path, len(text))

    # ---- directories -------------------------------------------------------------------------------------------------

    def find(self, key: str) -> Path | None:
        """Return the directory that is kept under a key; None where there is none that checks."""
        directory = self.directory / key
        files = _read_object(directory / CHECKSUMS).get("files")
        try:
            if files is None or files != _checksums(directory):
                return None
        except OSError:
            return None
        _use(directory / CHECKSUMS)
        return directory

    def make(self, key: str, fill: Callable[[Path], None]) -> Path:
        """Let `fill` write files into an empty directory, keep it under the key, and return it.

        One that does not check is replaced. One that another process has kept there meanwhile stays: its readers have
        it open, and the key says that it holds the same. Raises OutputError where it cannot be written, and whatever
        `fill` raises; then nothing is left of it.
        """
        directory = self.directory / key
        with writing(directory, FIX):
            _make_private(self.directory)
            with whole_directory(directory, mode=0o700, fix=FIX, stays=lambda: self.find(key) is not None) as partial:
                fill(partial)
                _seal(partial)
            self._make_room(directory)
        return directory

    def seal(self, key: str) -> Path:
        """Keep a directory that was written in its place under a key, and return it. Raises OutputError."""
        directory = self.directory / key
        with writing(directory, FIX):
            _make_private(self.directory)
            _seal(directory)
            self._make_room(directory)
        return directory

    # ---- room --------------------------------------------------------------------------------------------------------

    def _make_room(self, newest: Path, added: int | None = None) -> None:
        """Remove what was not used for longest until the rest is within bounds; `newest` stays.

        Where `added` bytes are known to fit, nothing is counted.
        """
        if added is not None and added <= self._room:
            self._room -= added
            return
        with contextlib.suppress(OSError):  # other runs add and remove entries too
            entries = sorted(_entries(self.directory))
            total = sum(size for _, size, _ in entries)
            for _, size, path in entries:
                if total <= self.most_bytes:
                    break
                if path != newest:
                    with contextlib.suppress(OSError):
                        remove_whole(path)
                    total -= size
            self._room = max(0, self.most_bytes - total) // 8


def keep_private(directory: Path) -> None:
    """Let only the owner read a directory and all below it."""
    for place, _, names in os.walk(directory):
        os.chmod(place, 0o700)
        for name in names:
            os.chmod(Path(place, name), 0o600)


def _make_private(directory: Path, home: Path | None = None) -> None:
    """Make a directory with those above it that are missing, and let only the owner read it and its `home`."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
    for path in (directory, home or directory):
        if path.stat().st_mode & 0o077:
            with contextlib.suppress(OSError):  # somebody else's, who lets us write there
                path.chmod(0o700)


def _use(path: Path) -> None:
    with contextlib.suppress(OSError):
        os.utime(path)  # used now, so that others are removed first


def _seal(directory: Path) -> None:
    """Write the checksums of all files, and let only the owner read them."""
    (directory / CHECKSUMS).unlink(missing_ok=True)
    keep_private(directory)
    with whole_file(directory / CHECKSUMS, mode=0o600, fix=FIX) as file:
        file.write(json.dumps({"files": _checksums(directory)}).encode())


def _checksums(directory: Path) -> dict[str, list[Any]]:
    """Return size and SHA-256 of every file below a directory, without the list itself. Raises OSError."""
    found: dict[str, list[Any]] = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path.name != CHECKSUMS and not is_partial(path):
            found[path.relative_to(directory).as_posix()] = [path.stat().st_size, sha256_of(path)]
    return found


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits; an empty text where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; an empty one for anything else."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _digest_of(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _entries(directory: Path) -> list[tuple[float, int, Path]]:
    """Return what is kept: when each entry was last used, its size and its path, leftovers of killed runs included."""
    found = []
    for path in directory.iterdir():
        if path.is_dir() and len(path.name) == 2:
            found += [entry for file in path.iterdir() if (entry := _entry(file))]
        elif path.is_dir() and (entry := _entry(path)):
            found.append(entry)
    return found


def _entry(path: Path) -> tuple[float, int, Path] | None:
    try:
        files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
        used = path / CHECKSUMS
        last = used.stat().st_mtime if used.exists() else max(file.stat().st_mtime for file in [path, *files])
        return last, sum(file.stat().st_size for file in files), path
    except OSError:
        return None
