"""A cohort on disk: an nnU-Net raw dataset with a table of its cases and their split.

    DatasetNNN_Name/
      dataset.json          nnU-Net's; its "dataset" mapping lists the training cases only
      imagesTr/<case>_0000.nii.gz (CT in HU), <case>_0001.nii.gz (PET in SUV)
      labelsTr/<case>.nii.gz          0 background, 1 lesion
      cases.csv             case_id, patient_id, source, split (train|test), reference_volume_ml
      splits_final.json     nnU-Net's; cross-validation's folds over the training cases
      simulation.json       what simulated cases were made with, if there are any

All images of a case lie on its PET's grid in LPS orientation. Test cases lie beside the others; stock nnU-Net
leaves them alone because the mapping in dataset.json does not name them.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from petlesion.cohort.simulated import RECORD
from petlesion.errors import CohortError, PetlesionError, StudyError, UsageError, ValueRangeError
from petlesion.io.atomic import write_text
from petlesion.io.jsonfile import load_json
from petlesion.io.nifti import is_whole, read_grid, read_mask, read_volume, write_volume
from petlesion.volume import Study

CT_CHANNEL = 0
PET_CHANNEL = 1
FILE_ENDING = ".nii.gz"
CASE_COLUMNS = ("case_id", "patient_id", "source", "split", "reference_volume_ml")
SPLITS = ("train", "test")
_BEFORE_THE_INDEX = {"imagesTr", "labelsTr", RECORD}

_DATASET_NAME = re.compile(r"Dataset\d{3}_[A-Za-z0-9_-]+")
_CASE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Case:
    """One study of a cohort: whose it is, where it came from, which side of the split it is on."""

    case_id: str
    patient_id: str
    source: str
    split: str
    reference_volume_ml: float

    @property
    def has_lesion(self) -> bool:
        """Whether the reference holds any lesion."""
        return self.reference_volume_ml > 0


@dataclass(frozen=True)
class Fold:
    """One fold of the cross-validation, as case ids."""

    train: tuple[str, ...]
    validation: tuple[str, ...]


@dataclass(frozen=True)
class Cohort:
    """A cohort's folder, its nnU-Net name (DatasetNNN_Name) and its cases in the order of their ids."""

    folder: Path
    name: str
    cases: tuple[Case, ...]

    @classmethod
    def open(cls, folder: str | Path) -> Cohort:
        """Read the index of a cohort; no image is touched. Raises CohortError if it is not in order."""
        folder = Path(folder)
        if not folder.is_dir():
            raise CohortError(f"{folder}: no such folder; make a cohort with petlesion cohort build")
        table = folder / "cases.csv"
        if not table.is_file():
            raise CohortError(
                f"{folder}: not a cohort, cases.csv is missing; "
                "make one with petlesion cohort build (--format nnunet takes an nnU-Net dataset)"
            )
        return cls(folder, _stored_name(folder) or default_name(folder), _read_cases(table))

    @property
    def training_cases(self) -> tuple[Case, ...]:
        """The cases for training and cross-validation."""
        return tuple(case for case in self.cases if case.split == "train")

    @property
    def test_cases(self) -> tuple[Case, ...]:
        """The cases held out from everything."""
        return tuple(case for case in self.cases if case.split == "test")

    @property
    def folds(self) -> list[Fold]:
        """Cross-validation's folds. Raises CohortError unless they cover the training cases exactly."""
        path = self.folder / "splits_final.json"
        if not path.is_file():
            raise CohortError(f"{self.folder}: not split yet; run petlesion cohort split {self.folder}")
        folds = _parse_folds(path)
        training = {case.case_id for case in self.training_cases}
        validated = [case_id for fold in folds for case_id in fold.validation]
        exact = sorted(validated) == sorted(training)
        if not exact or any(set(fold.train) != training - set(fold.validation) for fold in folds):
            raise CohortError(
                f"{path}: the folds do not cover the training cases of cases.csv once each; "
                f"run petlesion cohort split {self.folder}"
            )
        return folds

    def image_path(self, case_id: str, channel: int) -> Path:
        """Path of a case's image: channel 0 is the CT, 1 the PET."""
        return self.folder / "imagesTr" / f"{case_id}_{channel:04d}{FILE_ENDING}"

    def label_path(self, case_id: str) -> Path:
        """Path of a case's reference lesions."""
        return self.folder / "labelsTr" / f"{case_id}{FILE_ENDING}"

    def paths(self, case_id: str) -> tuple[Path, Path, Path]:
        """Paths of a case's CT, PET and reference lesions."""
        return (
            self.image_path(case_id, CT_CHANNEL),
            self.image_path(case_id, PET_CHANNEL),
            self.label_path(case_id),
        )

    def read_study(self, case_id: str) -> Study:
        """Read a case's images. Raises FormatError, GeometryError or ValueRangeError for bad ones."""
        ct_path, pet_path, label_path = self.paths(case_id)
        return Study(
            name=case_id,
            pet=read_volume(pet_path),
            ct=read_volume(ct_path),
            reference=read_mask(label_path),
        )

    def find(self, case_id: str) -> Case | None:
        """The case of that id, if there is one."""
        return next((case for case in self.cases if case.case_id == case_id), None)

    def with_cases(self, cases: Iterable[Case]) -> Cohort:
        """The same cohort with other cases, in the order of their ids."""
        return replace(self, cases=tuple(sorted(cases, key=lambda case: case.case_id)))


def default_name(folder: Path) -> str:
    """An nnU-Net dataset name: the folder's own name if it is one, or one made from it."""
    name = folder.resolve().name
    if _DATASET_NAME.fullmatch(name):
        return name
    return f"Dataset001_{re.sub(r'[^A-Za-z0-9_-]', '', name) or 'Cohort'}"


def create_cohort(folder: str | Path, name: str | None = None) -> Cohort:
    """Start an empty cohort in `folder`, or open the one that is there.

    Nothing is written before the first case. Raises UsageError for a `name` that is not nnU-Net's
    DatasetNNN_Name or differs from that of the cohort there, and for a folder that holds anything else.
    """
    folder = Path(folder)
    if name is not None and not _DATASET_NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name of an nnU-Net dataset; give one such as Dataset001_Sarcoma")
    if (folder / "cases.csv").exists():
        cohort = Cohort.open(folder)
        if name not in (None, cohort.name):
            raise UsageError(f"{folder}: the cohort there is {cohort.name}; choose another folder")
        return cohort
    # A build that was cut off in its first case leaves these, without an index.
    if folder.exists() and not (folder.is_dir() and _names_in(folder) <= _BEFORE_THE_INDEX):
        raise UsageError(f"{folder}: there already, and not a cohort; choose an empty or new folder")
    return Cohort(folder, name or default_name(folder), ())


def write_index(cohort: Cohort) -> None:
    """Write cases.csv and dataset.json, each whole or not at all."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(CASE_COLUMNS)
    for case in cohort.cases:
        volume = f"{case.reference_volume_ml:.6g}"
        rows.writerow([case.case_id, case.patient_id, case.source, case.split, volume])
    write_text(cohort.folder / "cases.csv", text.getvalue())
    write_text(cohort.folder / "dataset.json", json.dumps(_dataset_json(cohort), indent=2) + "\n")


def write_folds(cohort: Cohort, folds: Sequence[Fold]) -> None:
    """Write splits_final.json in nnU-Net's format."""
    entries = [{"train": list(fold.train), "val": list(fold.validation)} for fold in folds]
    write_text(cohort.folder / "splits_final.json", json.dumps(entries, indent=1) + "\n")


def add_study(cohort: Cohort, study: Study, *, case_id: str, patient_id: str, source: str) -> Cohort:
    """Write a study's images and enter it into the index, as a training case unless it had another split.

    Raises what `write_images` raises.
    """
    return enter_case(cohort, write_images(cohort, study, case_id, patient_id, source))


def write_images(cohort: Cohort, study: Study, case_id: str, patient_id: str, source: str) -> Case:
    """Write a study's images, turned to LPS, and leave the index as it is; return what is to be entered.

    Raises StudyError for a study without CT or reference, ValueRangeError for a case id that cannot be a
    file's name.
    """
    if study.ct is None or study.reference is None:
        missing = "CT" if study.ct is None else "reference mask"
        raise StudyError(f"study {study.name} has no {missing}, which every case needs; leave it out")
    if not _CASE_ID.fullmatch(case_id):
        raise ValueRangeError(f"{case_id!r} cannot be a case id; use letters, digits and . _ - only")
    study = study.reoriented()
    assert study.ct is not None and study.reference is not None
    ct_path, pet_path, label_path = cohort.paths(case_id)
    for path, volume in ((ct_path, study.ct), (pet_path, study.pet)):
        write_volume(path, volume.with_array(volume.array.astype(np.float32, copy=False)))
    write_volume(label_path, study.reference.with_array(study.reference.array.astype(np.uint8)))
    volume_ml = float(np.count_nonzero(study.reference.array)) * study.pet.voxel_volume_ml
    return Case(case_id, patient_id, source, "train", volume_ml)


def enter_case(cohort: Cohort, case: Case) -> Cohort:
    """Enter a case whose images are written into the index; it keeps the split that it had there."""
    former = cohort.find(case.case_id)
    case = replace(case, split=former.split if former else case.split)
    cohort = cohort.with_cases([*(c for c in cohort.cases if c.case_id != case.case_id), case])
    write_index(cohort)
    return cohort


def is_complete(cohort: Cohort, case_id: str) -> bool:
    """Whether a case is in the index and its three files are whole and share one grid."""
    if cohort.find(case_id) is None:
        return False
    paths = cohort.paths(case_id)
    try:
        ct, pet, label = (read_grid(path) for path in paths)
        whole = all(is_whole(path) for path in paths)
    except PetlesionError:
        return False
    return whole and ct.matches(pet) and label.matches(pet)


def _dataset_json(cohort: Cohort) -> dict[str, Any]:
    training = {case.case_id: cohort.paths(case.case_id) for case in cohort.training_cases}
    return {
        "name": cohort.name,
        "channel_names": {str(CT_CHANNEL): "CT", str(PET_CHANNEL): "PET"},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": len(training),
        "numTest": len(cohort.test_cases),
        "file_ending": FILE_ENDING,
        "dataset": {
            case_id: {
                "images": [path.relative_to(cohort.folder).as_posix() for path in (ct, pet)],
                "label": label.relative_to(cohort.folder).as_posix(),
            }
            for case_id, (ct, pet, label) in training.items()
        },
    }


def _names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _stored_name(folder: Path) -> str | None:
    """The name in dataset.json, if it is nnU-Net's; any other text may stand there in a foreign dataset."""
    path = folder / "dataset.json"
    dataset = _read_json(path) if path.is_file() else {}
    if not isinstance(dataset, dict):
        raise CohortError(f"{path}: not nnU-Net's description of a dataset; split the cohort again")
    name = str(dataset.get("name"))
    return name if _DATASET_NAME.fullmatch(name) else None


def _read_json(path: Path) -> Any:
    try:
        return load_json(path)
    except (OSError, ValueError) as error:
        raise CohortError(f"{path}: missing or not JSON; build the cohort again") from error


def _read_cases(table: Path) -> tuple[Case, ...]:
    try:
        # Spreadsheets put a byte order mark before the first column's name.
        with table.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CohortError(f"{table}: cannot be read as a table; build the cohort again") from error
    if not rows or tuple(rows[0]) != CASE_COLUMNS:
        raise CohortError(f"{table}: the first line must read {','.join(CASE_COLUMNS)}")
    cases = [_parse_case(table, number, row) for number, row in enumerate(rows[1:], start=2) if row]
    if len({case.case_id for case in cases}) < len(cases):
        raise CohortError(f"{table}: a case_id occurs twice; every case needs an id of its own")
    return tuple(sorted(cases, key=lambda case: case.case_id))


def _parse_case(table: Path, number: int, row: list[str]) -> Case:
    where = f"{table}, line {number}"
    if len(row) != len(CASE_COLUMNS):
        raise CohortError(f"{where}: {len(row)} values, but {len(CASE_COLUMNS)} are needed; mend the line")
    case_id, patient_id, source, split, volume = row
    if not _CASE_ID.fullmatch(case_id):
        raise CohortError(f"{where}: {case_id!r} cannot be a case id; use letters, digits and . _ - only")
    if not patient_id or split not in SPLITS:
        raise CohortError(f"{where}: needs a patient_id, and as split train or test; mend the line")
    try:
        volume_ml = float(volume)
    except ValueError:
        volume_ml = float("nan")
    if not 0 <= volume_ml < float("inf"):
        raise CohortError(f"{where}: {volume!r} is no volume in mL; mend the line")
    return Case(case_id, patient_id, source, split, volume_ml)


def _parse_folds(path: Path) -> list[Fold]:
    entries = _read_json(path)
    try:
        return [Fold(tuple(entry["train"]), tuple(entry["val"])) for entry in entries]
    except (TypeError, KeyError) as error:
        raise CohortError(
            f'{path}: no list of folds with "train" and "val"; split the cohort again'
        ) from error
