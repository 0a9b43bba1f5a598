"""Importer of any folder of studies: one folder each, with PET or SUV, CT or CTres, and SEG.

The images may have any ending that can be read and lie at any depth. What lies in the same folder below the
top belongs to the same patient: `patient/first/SUV.nii.gz` and `patient/second/SUV.nii.gz`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from petlesion.cohort.sources import Entry, as_case_id, find_image, read_images, require_image
from petlesion.io.nifti import read_mask
from petlesion.volume import Study

PET_NAMES = ("SUV", "PET")
CT_NAMES = ("CTres", "CT")
REFERENCE_NAMES = ("SEG",)


def find_entries(root: Path) -> list[Entry]:
    """List the folders that hold any of a study's images, in the order of their paths."""
    entries = []
    for folder in study_folders(root, PET_NAMES):
        parts = folder.relative_to(root).parts or (root.resolve().name,)
        entries.append(entry_of(folder, "_".join(parts), parts[0], PET_NAMES))
    return entries


def study_folders(root: Path, pet_names: tuple[str, ...]) -> list[Path]:
    """The folders at and below `root` that hold any of a study's images, in the order of their paths."""
    known = (*pet_names, *CT_NAMES, *REFERENCE_NAMES)
    return sorted(path for path in (root, *root.rglob("*")) if path.is_dir() and find_image(path, known))


def entry_of(folder: Path, name: str, patient_id: str, pet_names: tuple[str, ...]) -> Entry:
    """The entry of one study's folder."""
    case_id = as_case_id(name)
    return Entry(case_id, patient_id, partial(_read, folder, case_id, pet_names))


def _read(folder: Path, name: str, pet_names: tuple[str, ...]) -> Study:
    pet = require_image(folder, pet_names, "PET in SUV")
    ct = require_image(folder, CT_NAMES, "CT")
    reference = read_mask(require_image(folder, REFERENCE_NAMES, "reference mask"))
    return read_images(name, pet, ct, reference)
