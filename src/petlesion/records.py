"""The folder of a study's results and the record in it: only earlier results of that study are replaced."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from petlesion.errors import UsageError
from petlesion.intake import StudySource


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


def earlier_record(folder: Path, name: str, source: StudySource) -> dict[str, Any] | None:
    """The record `name` that an earlier run on this study left in `folder`; None for a folder that is free.

    Raises UsageError for a folder that input lies in, and for one that holds anything but results of this
    study.
    """
    if _would_touch_input(folder, source):
        raise UsageError(f"{folder} would be written where the input lies, {source.origin}; give another -o")
    if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
        return None
    record = _read(folder / name)
    if record is None:
        raise UsageError(
            f"{folder} holds no {name} and so is none of the results that may be replaced; give another -o"
        )
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
        record = json.loads(path.read_text(encoding="utf-8"))
        sound = isinstance(record["source"], dict) and isinstance(record["files"], list)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record if sound else None


def _would_touch_input(folder: Path, source: StudySource) -> bool:
    """Whether a folder is, contains or lies in the one that holds a study's files."""
    target, origin = folder.resolve(), source.origin.resolve()
    if origin.is_dir() and target.is_relative_to(origin):
        return True
    places = {place for file in source.containers for place in (file.parent.resolve(), file.resolve().parent)}
    return any(place.is_relative_to(target) for place in places)
