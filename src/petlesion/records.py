"""Folders of results and the record in each: only earlier results are replaced, and input never is."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from petlesion.errors import UsageError
from petlesion.intake import StudySource
from petlesion.io.atomic import check_place
from petlesion.io.jsonfile import load_json


@dataclass(frozen=True)
class SourceMark:
    """What a record keeps of its source, as hashes: `identity`, which study; `content`, what it held."""

    identity: str
    content: str


def mark_of(source: StudySource) -> SourceMark:
    """A study's identity and a hash of its files' names, sizes and times and of the options."""
    facts = [repr(source.options)]
    for file in source.containers:
        status = file.stat()
        facts.append(f"{file.name} {status.st_size} {status.st_mtime_ns}")
    return SourceMark(source.identity, hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16])


def check_replaceable(folder: Path, name: str, inputs: Iterable[Path]) -> None:
    """Check, before work, a folder that a new one is to replace.

    Raises UsageError for one that is or holds an input, and for one that holds anything but results, which
    are known by their file `name`; OutputError where no folder can be written.
    """
    for place in inputs:
        if _lies_in(place, folder.resolve()):
            raise _touching_input(folder, place)
    if not _is_free(folder) and not (folder / name).is_file():
        raise _not_ours(folder, name)
    check_place(folder.absolute().parent)


def earlier_record(folder: Path, name: str, source: StudySource) -> dict[str, Any] | None:
    """The record `name` that an earlier run on this study left in `folder`; None for a folder that is free.

    Raises UsageError for a folder that input lies in, and for one that holds anything but results of this
    study.
    """
    if _would_touch_input(folder, source):
        raise _touching_input(folder, source.origin)
    if _is_free(folder):
        return None
    record = _read(folder / name)
    if record is None:
        raise _not_ours(folder, name)
    if record["source"].get("identity") != source.identity:
        raise UsageError(
            f"{folder} holds the results of another study of the same name; give another -o or remove it"
        )
    return record


def is_finished(record: dict[str, Any], folder: Path, mark: SourceMark, **facts: Any) -> bool:
    """Whether a record tells of the same source and `facts`, and all files that it names are there."""
    same = {**record, "source": asdict(mark), **facts} == record
    return same and all((folder / name).is_file() for name in record["files"])


def _read(path: Path) -> dict[str, Any] | None:
    """A record as this module's callers write it; None for anything else."""
    try:
        record = load_json(path)
        sound = isinstance(record["source"], dict) and isinstance(record["files"], list)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record if sound else None


def _would_touch_input(folder: Path, source: StudySource) -> bool:
    """Whether a folder is, contains or lies in the one that holds a study's files."""
    target, origin = folder.resolve(), source.origin.resolve()
    if origin.is_dir() and _lies_in(folder, origin):
        return True
    return any(_lies_in(file, target) for file in source.containers)


def _lies_in(place: Path, folder: Path) -> bool:
    """Whether a place, or what it links to, is or lies in a folder, which is given resolved."""
    return any(one.is_relative_to(folder) for one in (place.resolve(), place.parent.resolve() / place.name))


def _is_free(folder: Path) -> bool:
    """Whether nothing stands there but perhaps an empty folder."""
    return not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir()))


def _touching_input(folder: Path, place: Path) -> UsageError:
    return UsageError(f"{folder} would be written where the input lies, {place}; give another -o")


def _not_ours(folder: Path, name: str) -> UsageError:
    return UsageError(
        f"{folder} holds no {name} and so is none of the results that may be replaced; give another -o"
    )
