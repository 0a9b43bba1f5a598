"""Studies that can become cases of a cohort: found by an importer, read only when their turn comes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from petlesion.errors import StudyError
from petlesion.intake import SourceImages, to_study
from petlesion.io.nifti import IMAGE_ENDINGS, read_volume
from petlesion.volume import Study, Volume


@dataclass(frozen=True)
class Entry:
    """A study in a source: the case id it asks for, whose it is, and how to read it.

    `source` is empty unless the study was a case of a cohort before and keeps the source that it had there.
    """

    case_id: str
    patient_id: str
    read: Callable[[], Study]
    source: str = ""


def as_case_id(name: str) -> str:
    """A name turned into one that can stand in a file's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") or "study"


def find_image(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The first of the named images in a folder, with any ending; names are tried in their order."""
    for name in names:
        for ending in IMAGE_ENDINGS:
            path = folder / f"{name}{ending}"
            if path.is_file():
                return path
    return None


def require_image(folder: Path, names: tuple[str, ...], what: str) -> Path:
    """The first of the named images. Raises StudyError that says what is missing."""
    path = find_image(folder, names)
    if path is None:
        expected = " or ".join(f"{name}.nii.gz" for name in names)
        raise StudyError(f"{folder}: no {what} ({expected}); put it there or take the study out")
    return path


def read_images(name: str, pet: Path, ct: Path, reference: Volume) -> Study:
    """Read a study whose CT may lie on a grid of its own and whose reference lies on the PET's.

    Raises FormatError, GeometryError or ValueRangeError for an image that cannot be used, and StudyError for
    a CT that misses a tenth of the body.
    """
    images = SourceImages(name, pet.parent, read_volume(pet), read_volume(ct), reference)
    return to_study(images)
