"""Importer of autoPET's NIfTI release: `<patient>/<study>/{SUV,CTres,CT,SEG,PET}.nii.gz`.

The layout is that of the collection FDG-PET-CT-Lesions as converted by its authors' script (Gatidis et al.,
Scientific Data 2022, DOI 10.1038/s41597-022-01718-3). PET.nii.gz there is in Bq/mL and is not used. Where
CTres is missing, the CT is resampled to the PET's grid. The patient is the folder that holds the study's,
whether the whole collection is imported or one patient's folder.
"""

from __future__ import annotations

from pathlib import Path

from petlesion.cohort import folder
from petlesion.cohort.sources import Entry

_PET_NAMES = ("SUV",)


def find_entries(root: Path) -> list[Entry]:
    """List the studies under `root`."""
    entries = []
    for study in folder.study_folders(root.resolve(), _PET_NAMES):
        patient = study.parent.name
        entries.append(folder.entry_of(study, f"{patient}_{study.name}", patient, _PET_NAMES))
    return entries
