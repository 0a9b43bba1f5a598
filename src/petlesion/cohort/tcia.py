"""Importer of FDG-PET-CT-Lesions as it comes from The Cancer Imaging Archive: CT, PT and SEG series as DICOM.

Folder names say nothing: studies are known by their StudyInstanceUID. A case is called by a hash of it, and a
patient by a hash of PatientID, so that the cohort names nobody. (Gatidis et al., Scientific Data 2022,
DOI 10.1038/s41597-022-01718-3.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from petlesion.cohort.sources import Entry
from petlesion.dicom.files import find_dicom, read_header, walk
from petlesion.dicom.headers import text
from petlesion.errors import FormatError, StudyError
from petlesion.intake import dicom_studies, read_source, to_study
from petlesion.volume import Study


@dataclass(frozen=True)
class _Owner:
    """Whose file it is: StudyInstanceUID and PatientID."""

    study_uid: str
    patient_id: str


def find_entries(root: Path) -> list[Entry]:
    """List the studies under `root` that have a PET.

    Only the first and the last file of each folder are opened, unless these are of different studies: an
    archive holds a million files. That a folder mixes studies in between is told when they are read.
    """
    folders: dict[Path, list[Path]] = {}
    for file in walk(root):
        folders.setdefault(file.parent, []).append(file)
    studies: dict[_Owner, list[Path]] = {}
    for files in folders.values():
        for owner, owned in _by_owner(files).items():
            studies.setdefault(owner, []).extend(owned)
    return [
        _entry(owner, files) for owner, files in sorted(studies.items(), key=lambda item: item[0].study_uid)
    ]


def _by_owner(files: Sequence[Path]) -> dict[_Owner, list[Path]]:
    first, last = _owner(files[0]), _owner(files[-1])
    if first == last:
        return {first: list(files)} if first is not None else {}
    studies: dict[_Owner, list[Path]] = {}
    for file in files:
        owner = _owner(file)
        if owner is not None:
            studies.setdefault(owner, []).append(file)
    return studies


def _owner(file: Path) -> _Owner | None:
    """The study of a DICOM file; None for what is no DICOM or cannot be read."""
    try:
        found = find_dicom(file)
        header = read_header(found[0]) if found else None
    except FormatError:
        return None
    study_uid = text(header, "StudyInstanceUID") if header is not None else None
    return _Owner(study_uid, text(header, "PatientID") or study_uid) if header and study_uid else None


def _entry(owner: _Owner, files: Sequence[Path]) -> Entry:
    case_id = f"study-{_hash(owner.study_uid)}"
    return Entry(case_id, f"patient-{_hash(owner.patient_id)}", partial(_read, tuple(files), case_id))


def _read(files: Sequence[Path], case_id: str) -> Study:
    origin = files[0].parent.parent
    sources = dicom_studies(files, origin)
    if len(sources) != 1:
        raise StudyError(
            f"{origin}: the folders of one study hold {len(sources)}; give each study folders of its own"
        )
    images = read_source(sources[0])
    if images.reference is None:
        told = next(
            (warning for warning in images.warnings if "reference" in warning), "it has no SEG series"
        )
        raise StudyError(f"{sources[0].origin}: {told}; leave the study out")
    return to_study(images)


def _hash(identifier: str) -> str:
    return hashlib.sha256(identifier.encode()).hexdigest()[:12]
