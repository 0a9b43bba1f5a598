"""Small studies and folders of them as the public collections lay them out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from petlesion.cohort.layout import Case, Cohort, add_study, create_cohort, write_index
from petlesion.io.nifti import write_volume
from petlesion.volume import Study, Volume
from tests.conftest import make_phantom

SHAPE = (12, 20, 24)


def small_study(seed: int = 0, *, lesions: bool = True) -> Study:
    study = make_phantom(SHAPE, seed=seed)
    if lesions:
        return study
    assert study.reference is not None
    empty = study.reference.with_array(np.zeros(SHAPE, dtype=bool))
    return Study(study.name, study.pet, study.ct, empty)


def doubled(volume: Volume) -> Volume:
    """The same image on a grid of half the spacing, each voxel eight times."""
    array = volume.array
    for axis in range(3):
        array = np.repeat(array, 2, axis=axis)
    affine = volume.affine.copy()
    affine[:3, :3] /= 2
    affine[:3, 3] -= affine[:3, :3].sum(axis=1) / 2
    return Volume(array, affine)


def write_study(folder: Path, study: Study, *, names: tuple[str, str, str] = ("PET", "CT", "SEG")) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    assert study.ct is not None and study.reference is not None
    for name, volume in zip(names, (study.pet, study.ct, study.reference), strict=True):
        write_volume(folder / f"{name}.nii.gz", volume)


def hecktor_tree(root: Path, patients: tuple[str, ...]) -> Path:
    for number, patient in enumerate(patients):
        study = small_study(number)
        assert study.ct is not None and study.reference is not None
        write_volume(root / "imagesTr" / f"{patient}__PT.nii.gz", study.pet)
        write_volume(root / "imagesTr" / f"{patient}__CT.nii.gz", doubled(study.ct))
        label = doubled(study.reference.with_array(study.reference.array.astype(np.uint8)))
        label.array[: len(label.array) // 2][label.array[: len(label.array) // 2] == 1] = 2
        write_volume(root / "labelsTr" / f"{patient}.nii.gz", label)
    return root


def nnunet_tree(root: Path, cases: tuple[str, ...], labels: dict[str, int] | None = None) -> Path:
    for number, case in enumerate(cases):
        study = small_study(number)
        assert study.ct is not None and study.reference is not None
        write_volume(root / "imagesTr" / f"{case}_0000.nii.gz", study.pet)
        write_volume(root / "imagesTr" / f"{case}_0001.nii.gz", study.ct)
        write_volume(root / "labelsTr" / f"{case}.nii.gz", study.reference)
    description = {
        "channel_names": {"0": "PET", "1": "CT"},
        "labels": labels or {"background": 0, "tumour": 1},
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(description))
    return root


def index_only(folder: Path, cases: list[Case]) -> Cohort:
    """A cohort with an index and no images, which is all that splitting needs."""
    cohort = create_cohort(folder).with_cases(cases)
    write_index(cohort)
    return cohort


def small_cohort(folder: Path, count: int = 3) -> Cohort:
    cohort = create_cohort(folder)
    for number in range(count):
        study = small_study(number, lesions=number % 2 == 0)
        cohort = add_study(
            cohort, study, case_id=f"case-{number}", patient_id=f"patient-{number}", source="here"
        )
    return cohort
