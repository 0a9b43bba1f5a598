"""Which mask files a command works on: one file, a folder of them, or pairs of prediction and reference."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from petlesion.cli.batch import Failures, try_all
from petlesion.errors import CohortError, InputError, UsageError

if TYPE_CHECKING:
    from petlesion.cohort.layout import Cohort
    from petlesion.overlap import Overlap


SEGMENTED = "lesions.nii.gz"
"""What `petlesion segment` calls the mask in each study's folder."""


@dataclass(frozen=True)
class MaskPair:
    """A study's predicted mask and its reference; a missing one is None."""

    case_id: str
    prediction: Path | None
    reference: Path | None

    def overlap(self) -> Overlap:
        """Read both masks at once and compare them; every error names the files."""
        from concurrent.futures import ThreadPoolExecutor

        from petlesion.errors import GeometryError
        from petlesion.io.nifti import read_mask
        from petlesion.overlap import overlap_of

        if self.prediction is None:
            raise InputError(f"{self.reference} has no prediction; predict {self.case_id} too")
        if self.reference is None:
            raise InputError(f"{self.prediction} has no reference of the same name; add or remove one")
        with ThreadPoolExecutor(2) as pool:
            prediction, reference = pool.map(read_mask, (self.prediction, self.reference))
        try:
            return overlap_of(prediction, reference)
        except GeometryError as error:
            raise GeometryError(f"{self.prediction}: {error}") from None


def compare_all(what: str, prediction: Path, reference: Path) -> tuple[list[tuple[str, Overlap]], Failures]:
    """Compare each pair of masks; returns them by case id, and what failed. Ends the command if all did."""
    compared: list[tuple[str, Overlap]] = []

    def work(pair: MaskPair) -> None:
        compared.append((pair.case_id, pair.overlap()))

    pairs = mask_pairs(prediction, reference)
    failures = try_all(what, ((pair.case_id, pair) for pair in pairs), work)
    if not compared:
        failures.end()
    return compared, failures


def mask_files(path: Path) -> dict[str, Path]:
    """Return a mask file, or all image files of a folder, by name without image endings.

    A folder that `petlesion segment` wrote holds each study's mask in a folder of the study's name. Raises
    InputError for a path that does not exist, a folder without images, and two images of one name.
    """
    from petlesion.io.nifti import image_stem, is_image

    if path.is_file():
        return {image_stem(path): path}
    if not path.is_dir():
        raise InputError(f"{path} does not exist; give a mask file or a folder of them")
    files: dict[str, Path] = {}
    for file in sorted(path.iterdir()):
        if not file.is_file() or not is_image(file) or file.name.startswith("."):
            continue
        if image_stem(file) in files:
            raise InputError(f"{file} and {files[image_stem(file)]} have one name; keep one of them")
        files[image_stem(file)] = file
    if not files:
        files = {mask.parent.name: mask for mask in sorted(path.glob(f"*/{SEGMENTED}"))}
    if not files:
        raise InputError(f"{path} holds no image; give a folder of .nii.gz, .nii, .mha or .nrrd files")
    return files


def mask_pairs(prediction: Path, reference: Path) -> list[MaskPair]:
    """Pair two files, two folders by the names in them, or a folder of predictions with a cohort's labels.

    Of a cohort, the test set and each fold are expected to be whole as soon as one of their cases is
    predicted.
    """
    predicted = mask_files(prediction)
    if prediction.is_file() != reference.is_file():
        raise UsageError(f"{prediction} and {reference} are a file and a folder; give two of one kind")
    if prediction.is_file():
        case_id = next(iter(predicted))
        return [MaskPair(case_id, prediction, reference)]
    cohort = cohort_of(reference)
    references = mask_files(reference) if cohort is None else _references_of(cohort, set(predicted))
    names = sorted(predicted.keys() | references.keys())
    return [MaskPair(name, predicted.get(name), references.get(name)) for name in names]


def cohort_of(reference: Path) -> Cohort | None:
    """The cohort whose folder or labels `reference` is; None for any other folder of masks."""
    folder = reference.parent if reference.name == "labelsTr" else reference
    return open_cohort(folder) if (folder / "cases.csv").is_file() else None


def open_cohort(cases: Path) -> Cohort:
    """Open the cohort of which `cases` is the cases.csv or the folder."""
    from petlesion.cohort.layout import Cohort

    if cases.is_file() and cases.name != "cases.csv":
        raise CohortError(f"{cases} is no cases.csv; give the cases.csv of a cohort, or the cohort's folder")
    return Cohort.open(cases.parent if cases.is_file() else cases)


def patients_of(cases: Path | None) -> dict[str, str] | None:
    """Whose a case is, by case id; None without a cases.csv."""
    if cases is None:
        return None
    return {case.case_id: case.patient_id for case in open_cohort(cases).cases}


def _references_of(cohort: Cohort, predicted: set[str]) -> dict[str, Path]:
    training = {case.case_id for case in cohort.training_cases}
    groups = [{case.case_id for case in cohort.test_cases}]
    if predicted & training:
        split = (cohort.folder / "splits_final.json").is_file()
        groups += [set(fold.validation) for fold in cohort.folds] if split else [training]
    expected = set().union(*(group for group in groups if group & predicted))
    return {case_id: cohort.label_path(case_id) for case_id in expected}
