"""From sources of studies, each in a format of its own, to the cases of one cohort."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from petlesion.cohort import autopet, folder, hecktor, nnunet, tcia
from petlesion.cohort.layout import Cohort
from petlesion.cohort.sources import Entry
from petlesion.errors import CohortError, UsageError

FORMATS: dict[str, Callable[[Path], list[Entry]]] = {
    "folder": folder.find_entries,
    "autopet": autopet.find_entries,
    "hecktor": hecktor.find_entries,
    "nnunet": nnunet.find_entries,
    "tcia": tcia.find_entries,
}
_NAMED_BY_FORMAT = ("autopet", "hecktor", "tcia")


@dataclass(frozen=True)
class Source:
    """A folder of studies, the format that it is in, and the name that cases.csv gives it."""

    format: str
    name: str
    folder: Path


def parse_source(text: str, default_format: str = "folder") -> Source:
    """Read `FOLDER`, `FORMAT=FOLDER` or `FORMAT:NAME=FOLDER`.

    Without a name, public collections go by their format (autopet, hecktor, tcia), others by their folder.
    Raises UsageError for a format that does not exist and CohortError for a folder that does not.
    """
    kind, name, path = default_format, "", text
    if "=" in text and not Path(text).exists():
        prefix, _, path = text.partition("=")
        kind, _, name = prefix.partition(":")
    if kind not in FORMATS:
        raise UsageError(f"{kind!r} is no format of studies; choose one of {', '.join(FORMATS)}")
    root = Path(path)
    if not root.is_dir():
        raise CohortError(f"{root}: no such folder; give a folder that holds studies")
    return Source(kind, name or (kind if kind in _NAMED_BY_FORMAT else root.resolve().name), root)


def find_entries(sources: Sequence[Source], cohort: Cohort) -> list[Entry]:
    """List the studies of all sources under case ids that are unique among them and in the cohort.

    A case id that another source has already taken is led by its own source's name. Raises CohortError for a
    source without any study.
    """
    owners = {case.case_id: case.source for case in cohort.cases}
    entries = []
    for source in sources:
        found = FORMATS[source.format](source.folder)
        if not found:
            raise CohortError(
                f"{source.folder}: holds no study in the format {source.format}; "
                f"check the folder or choose another of {', '.join(FORMATS)}"
            )
        used: set[str] = set()
        for entry in found:
            named = replace(entry, source=entry.source or source.name)
            case_id = _free_case_id(named, owners, used)
            owners[case_id] = named.source
            used.add(case_id)
            entries.append(replace(named, case_id=case_id))
    return entries


def _free_case_id(entry: Entry, owners: dict[str, str], used: set[str]) -> str:
    candidates = [entry.case_id, f"{entry.source}_{entry.case_id}"]
    candidates += [f"{candidates[1]}-{number}" for number in range(2, 1000)]
    for candidate in candidates:
        if candidate not in used and owners.get(candidate, entry.source) == entry.source:
            return candidate
    raise CohortError(f"too many studies are called {entry.case_id}; give their folders names of their own")
