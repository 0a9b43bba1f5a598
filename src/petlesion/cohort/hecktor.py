"""Importer of HECKTOR 2022: `imagesTr/<id>__CT.nii.gz`, `imagesTr/<id>__PT.nii.gz`, `labelsTr/<id>.nii.gz`.

The label holds 1 where the primary tumour is (GTVp) and 2 where lymph nodes are (GTVn), on the CT's grid
(Andrearczyk et al., "Overview of the HECKTOR Challenge at MICCAI 2022", DOI 10.1007/978-3-031-27420-6_1).
Both become lesion, on the PET's grid. An id such as CHUM-001 is a patient.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from petlesion.cohort.sources import Entry, as_case_id, read_images, require_image
from petlesion.errors import ValueRangeError
from petlesion.io.nifti import read_grid, read_volume
from petlesion.resample import resample_mask_to_grid
from petlesion.volume import Study, Volume

_TUMOUR_LABELS = (1, 2)


def find_entries(root: Path) -> list[Entry]:
    """List the patients that have an image in imagesTr."""
    names = [path.name for path in (root / "imagesTr").glob("*__*") if path.is_file()]
    patients = sorted({name.split("__")[0] for name in names})
    return [Entry(as_case_id(patient), patient, partial(_read, root, patient)) for patient in patients]


def _read(root: Path, patient: str) -> Study:
    pet = require_image(root / "imagesTr", (f"{patient}__PT",), "PET")
    ct = require_image(root / "imagesTr", (f"{patient}__CT",), "CT")
    label = require_image(root / "labelsTr", (patient,), "label")
    reference = resample_mask_to_grid(_merged(label), read_grid(pet))
    return read_images(as_case_id(patient), pet, ct, reference)


def _merged(path: Path) -> Volume:
    label = read_volume(path)
    if not np.isin(label.array, (0, *_TUMOUR_LABELS)).all():
        raise ValueRangeError(
            f"{path}: the label holds other values than 0, 1 (GTVp) and 2 (GTVn); export it again"
        )
    return label.with_array(label.array > 0)
