"""Folders of data files: which of them hold rows, and which of them belong to a split."""

import re
from collections.abc import Sequence
from pathlib import Path

from unteach.data.json_rows import SPLITS
from unteach.data.raw_row import RawRow, listed
from unteach.data.readers import PACKED, READERS, ending_of, read_file
from unteach.errors import DataError

_ABOUT = re.compile(
    r"dataset_infos?|dataset_dict|state|croissant|tokenizer|special_tokens_map|added_tokens|vocab|trainer_state|.*\.index|"
    r"(?:generation|tokenizer|adapter|processor|preprocessor)_config|package-lock"
)
"""JSON files that describe a set or a model."""
_PERHAPS = re.compile(r"metadata|config|.*_config|report|package|manifest")
"""JSON files that most often do."""
_NOTES = re.compile(
    r"(?:readme|licen[cs]e)(?:[-_.].*)?|(?:notice|copying|changelog|authors|requirements|citation|robots)\..*",
    re.IGNORECASE,
)
_OTHER_ROWS = frozenset(".xlsx .xls .ods .arrow .feather .zip .tar .zst .7z .db .sqlite .pkl".split()) | {*PACKED}
"""Endings of files that may hold rows, but that are not read."""


def folder_rows(path: Path, split: str | None, notes: list[str]) -> list[RawRow]:
    """Read all data files of a folder, sorted by name; `notes` get what was left out.

    A split is what a file's name or folder begins with. Where all files belong to splits with the usual names, "train"
    is read unless another is asked for. Text files count only where there are no others: beside rows they are licences
    and notes. Raises DataError where there is no file to read, or where files have too little in common.
    """
    files, left = _data_files(path)
    if not files:
        found = f" (left out: {_files_listed(path, left)})" if left else ""
        raise DataError(f"{path}: no data files in this directory{found}; known endings: {', '.join(READERS)}")
    if left:
        notes.append(f"{path}: left out {_files_listed(path, left)}")
    splits = {file: _split_of(file.relative_to(path)) for file in files}
    named = set(splits.values())
    if split is None and len(named) > 1 and "train" in named and named <= {*SPLITS}:
        split = "train"
        others = ", ".join(sorted(named - {split}))
        notes.append(f"{path}: read the split train, not {others}; --data-split names another")
    if split is not None:
        files = [file for file in files if splits[file] == split]
        if not files:
            raise DataError(f"{path}: no split '{split}'; found {', '.join(sorted(named))}")
    by_file = {file: read_file(file, split) for file in files}
    _compare_columns(path, by_file, notes)
    return [row for rows in by_file.values() for row in rows]


def _data_files(path: Path) -> tuple[list[Path], list[Path]]:
    """Return the files that hold rows, and those that one might think hold some but that are left out."""
    files, left = [], []
    for file in sorted(path.rglob("*")):
        parts = file.relative_to(path).parts
        if any(part in (".git", ".cache", "__pycache__", "__MACOSX") for part in parts) or not file.is_file():
            continue
        ending = ending_of(file)
        hidden = any(part.startswith(".") for part in parts)
        stem = file.name.lower().partition(".json")[0] if ending == ".json" else ""
        about = _NOTES.fullmatch(file.name) or _ABOUT.fullmatch(stem) or file.name.startswith("._")
        if ending and not (hidden or about or _PERHAPS.fullmatch(stem)):
            files.append(file)
        elif (ending and not about) or file.suffix.lower() in _OTHER_ROWS:
            left.append(file)
    rows = [file for file in files if ending_of(file) != ".txt"]
    return rows or files, left + (sorted({*files} - {*rows}) if rows else [])


def _files_listed(path: Path, files: Sequence[Path]) -> str:
    shown = listed(str(file.relative_to(path)) for file in files[:5])
    return shown if len(files) <= 5 else f"{shown} and {len(files) - 5} more files"


def _split_of(file: Path) -> str:
    """Return the split that a file belongs to: the usual name that a part of its path begins with, else the first."""
    names = [re.split(r"[-._]", part)[0] for part in file.parts]
    return next((name for name in names if name in SPLITS), re.split(r"[-.]", file.parts[0])[0])


def _compare_columns(path: Path, by_file: dict[Path, list[RawRow]], notes: list[str]) -> None:
    """Refuse files that share less than half of their columns with the first; name those that differ by less."""
    columns = {file: {name.lower() for row in rows for name in row.values} for file, rows in by_file.items() if rows}
    if not columns:
        return
    first, known = next(iter(columns.items()))
    for file, found in columns.items():
        if 2 * len(known & found) < len(known | found):
            raise DataError(
                f"{path}: {first.relative_to(path)} has the columns {listed(sorted(known))}, but "
                f"{file.relative_to(path)} has {listed(sorted(found))}; "
                "give the files that belong together by name, or move the others away"
            )
    differ = [file for file, found in columns.items() if found != known]
    if differ:
        notes.append(f"{path}: other columns than in {first.relative_to(path)} stand in {_files_listed(path, differ)}")
