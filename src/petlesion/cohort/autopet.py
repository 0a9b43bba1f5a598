"""Importer of autoPET's NIfTI release: `<patient>/<study>/{SUV,CTres,CT,SEG,PET}.nii.gz`.

The layout is that of the collection FDG-PET-CT-Lesions as converted by its authors' script (Gatidis et al.,
Scientific Data 2022, DOI 10.1038/s41597-022-01718-3). PET.nii.gz there is in Bq/mL and is not used. Where
CTres is missing, the CT is resampled to the PET's grid. The patient is the upper folder.
"""

from __future__ import annotations

from pathlib import Path

from petlesion.cohort import folder
from petlesion.cohort.sources import Entry


def find_entries(root: Path) -> list[Entry]:
    """List the studies under `root`, or under its folder FDG-PET-CT-Lesions if it has one."""
    inner = root / "FDG-PET-CT-Lesions"
    return folder.find_entries(inner if inner.is_dir() else root, pet_names=("SUV",))
