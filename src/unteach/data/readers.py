"""Files of rows: JSON lines, JSON, CSV, TSV, Parquet and plain text, one reader for each ending; pipes by content.

Files are untrusted: nothing in them is executed.
"""

import bz2
import codecs
import gzip
import lzma
import re
import shlex
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from unteach.data.cells import parse_cells
from unteach.data.json_rows import json_rows
from unteach.data.raw_row import RawRow
from unteach.data.tables import SEPARATORS, names_of, table_rows
from unteach.errors import DataError

Reader = Callable[[bytes, Path, str | None], list[RawRow]]
PACKED = (".gz", ".bz2", ".xz")
"""Endings of packed files, after the ending of what they hold."""


def read_file(path: Path, split: str | None = None) -> list[RawRow]:
    """Read the rows of a file or a pipe, of which there may be none; `split` picks one in a JSON file that has several.

    The ending says what a file holds; the content says it of a pipe or a device, which has no ending. Packed files
    are unpacked. Raises DataError for a file that cannot be read.
    """
    try:
        ending, data = _ending(path), path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not data:
        raise DataError(f"{path}: the file is empty{'' if path.is_file() else '; a pipe can be read only once'}")
    data = _unpacked(data, path)
    if data.startswith(b"version https://git-lfs"):
        raise DataError(f"{path}: a Git LFS pointer stands in place of the data; fetch it with `git lfs pull`")
    return READERS[ending or _told_by(data, path)](data, path, split)


def ending_of(path: Path) -> str | None:
    """Return the ending of a file that we read, in lower case and without that of a packed file; else None."""
    endings = [ending.lower() for ending in path.suffixes[-2:]]
    if endings and endings[-1] in PACKED:
        endings.pop()
    return endings[-1] if endings and endings[-1] in READERS else None


def _ending(path: Path) -> str | None:
    """Return a file's ending; None for a pipe or a device without one. Raises DataError for other files."""
    ending = ending_of(path)
    if ending is None and path.is_file() and path.parts[:2] not in (("/", "dev"), ("/", "proc")):
        raise DataError(f"{path}: files ending in '{path.suffix}' cannot be read; use one of {', '.join(READERS)}")
    return ending


def _unpacked(data: bytes, path: Path) -> bytes:
    """Unpack a file, whatever its ending says: a browser may have unpacked it already."""
    try:
        if data.startswith(b"\x1f\x8b"):
            return gzip.decompress(data)
        if data.startswith(b"BZh"):
            return bz2.decompress(data)
        if data.startswith(b"\xfd7zXZ\0"):
            return lzma.decompress(data)
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{path}: cannot be unpacked ({error}); it may be cut short: fetch it again") from None
    if data.startswith((b"PK\x03\x04", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf")):
        raise DataError(f"{path}: an archive or a spreadsheet; unpack it, or save it as CSV")
    return data


def _text_of(data: bytes, path: Path) -> str:
    r"""Decode UTF-8, or UTF-16 or UTF-32 with a byte-order mark; every line end (\r\n, \r) becomes \n."""
    encoding = "utf-8-sig"
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        encoding = "utf-32"
    elif data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {_undecodable(data, encoding, error.start, path)}") from None
    if "\0" in text:
        raise DataError(
            f"{path}: character {text.index(chr(0))} is null, so it is no text in UTF-8 (it may be UTF-16 without a "
            "byte-order mark); save it as UTF-8"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _undecodable(data: bytes, encoding: str, start: int, path: Path) -> str:
    """Say which byte is no text, and what to do. Other encodings are not guessed: a wrong guess gives wrong letters."""
    line = data.count(b"\n", 0, start) + 1
    where = f"byte {start} ({data[start]:#04x}) is not {encoding.upper().removesuffix('-SIG')} (line {line})"
    single = re.fullmatch(rb"(?:[\x00-\x7f]|[\x80-\xff](?![\x80-\xff]))*", data[max(0, start - 200) : start + 2000])
    if encoding != "utf-8-sig":
        return f"{where}, though the file begins like it; it may be cut short: fetch it again, or save it as UTF-8"
    if single and data[start] not in (0x81, 0x8D, 0x8F, 0x90, 0x9D, 0xFF):
        convert = f"iconv -f WINDOWS-1252 -t UTF-8 {shlex.quote(path.name)}"
        return f"{where}; it looks like Windows-1252: run `{convert}` and use the output"
    return f"{where}; save it as UTF-8 (`iconv -f ITS_ENCODING -t UTF-8`)"


def _told_by(data: bytes, path: Path) -> str:
    """Tell from its content what a pipe holds: Parquet, JSON, a table with at least two columns, or running text."""
    if data.startswith(b"PAR1"):
        return ".parquet"
    start = _text_of(data, path).lstrip()
    if start.startswith(("{", "[")):
        return ".jsonl"
    names = re.split(r"[,;\t|]", start.partition("\n")[0])
    short = all(len(name) <= 40 and len(name.split()) <= 3 for name in names)
    return ".csv" if short and any(names_of(start, separator) > 1 for separator in SEPARATORS) else ".txt"


def _json(data: bytes, path: Path, split: str | None) -> list[RawRow]:
    return parse_cells(json_rows(_text_of(data, path), path, split), everywhere=False)


def _table(data: bytes, path: Path, split: str | None, usual: str) -> list[RawRow]:
    return parse_cells(table_rows(_text_of(data, path), path, usual))


def _text(data: bytes, path: Path, split: str | None) -> list[RawRow]:
    """Read a text file as one row, which is about the file's name."""
    text, name = _text_of(data, path), path.stem
    if path.suffix.lower() in PACKED:
        name = Path(name).stem
    return [RawRow({"text": text, "concept": name}, path.name)] if text.strip() else []


def _parquet(data: bytes, path: Path, split: str | None) -> list[RawRow]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data)).read().to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {str(error).splitlines()[0]}") from None
    rows = [RawRow(row, f"{path.name} row {number}") for number, row in enumerate(rows, start=1)]
    return parse_cells(rows, everywhere=False)


READERS: dict[str, Reader] = {
    ".jsonl": _json,
    ".ndjson": _json,
    ".json": _json,
    ".csv": partial(_table, usual=","),
    ".tsv": partial(_table, usual="\t"),
    ".parquet": _parquet,
    ".txt": _text,
}
