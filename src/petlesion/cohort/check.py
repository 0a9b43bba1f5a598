"""Whether a cohort is in order: every problem as one sentence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from petlesion.cohort.layout import Case, Cohort, Fold
from petlesion.errors import CohortError, PetlesionError, ValueRangeError
from petlesion.volume import LPS, Array, Study

# Beyond these limits an image is not what it is said to be. Cubic interpolation undershoots a little; bladder
# and injection site reach hundreds of SUV; scanners pad with −2048 or −3024 HU, and metal on extended
# scales reaches 30,000 HU.
LOWEST_SUV = -1.0
HIGHEST_SUV = 3000.0
HIGHEST_TYPICAL_SUV = 50.0
LOWEST_PEAK_SUV = 0.5
LOWEST_HU = -3100.0
HIGHEST_HU = 40_000.0
TYPICAL_TISSUE_HU = (-950.0, 400.0)
_TISSUE_SUV = 0.2
_VOLUME_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a case, or with the cohort as a whole (no case id)."""

    sentence: str
    case_id: str | None = None


def suv_problem(suv: Array) -> str | None:
    """Say why values cannot be SUV (body weight), if they cannot."""
    if not np.isfinite(suv).all():
        return "the PET holds values that are not finite; convert it again"
    lowest, highest = float(suv.min()), float(suv.max())
    if lowest < LOWEST_SUV or highest > HIGHEST_SUV:
        return (
            f"the PET runs from {lowest:.4g} to {highest:.4g}, which cannot be SUV; convert it to SUV first"
        )
    if highest < LOWEST_PEAK_SUV:
        return f"the PET's highest value is {highest:.4g}, too low for SUV; convert it to SUV first"
    typical = float(np.median(suv[suv > _TISSUE_SUV]))
    if typical > HIGHEST_TYPICAL_SUV:
        return f"the PET's typical value is {typical:.4g}, which cannot be SUV; convert it to SUV first"
    return None


def hu_problem(hu: Array, suv: Array) -> str | None:
    """Say why values cannot be HU, if they cannot; the PET tells where there is tissue."""
    if not np.isfinite(hu).all():
        return "the CT holds values that are not finite; convert it again"
    lowest, highest = float(hu.min()), float(hu.max())
    if lowest < LOWEST_HU or highest > HIGHEST_HU:
        return f"the CT runs from {lowest:.4g} to {highest:.4g}, which cannot be HU; convert it to HU first"
    tissue = hu[suv > _TISSUE_SUV]
    typical = float(np.median(tissue)) if tissue.size else 0.0
    low, high = TYPICAL_TISSUE_HU
    if highest - lowest < 50 or not low <= typical <= high:
        return (
            f"the CT runs from {lowest:.4g} to {highest:.4g}, {typical:.4g} in tissue, which cannot be HU; "
            "convert it to HU, or check that PET and CT are of one patient"
        )
    return None


def require_sound(study: Study) -> None:
    """Raise ValueRangeError if the study's values cannot be SUV and HU."""
    problem = _value_problem(study)
    if problem:
        raise ValueRangeError(f"study {study.name}: {problem}")


def case_problems(cohort: Cohort, case: Case) -> list[Problem]:
    """List what is wrong with one case: files, grids, orientation, values, label, volume in the table."""
    return [Problem(sentence, case.case_id) for sentence in _case_sentences(cohort, case)]


def cohort_problems(cohort: Cohort) -> list[Problem]:
    """List what is wrong with the index: patients on both sides of a split, folds, files of no case."""
    sentences = [*_patients_on_both_sides(cohort), *_fold_sentences(cohort), *_stray_files(cohort)]
    if not (cohort.folder / "dataset.json").is_file():
        sentences.insert(0, f"{cohort.folder}: dataset.json is missing; split the cohort again")
    if not cohort.cases:
        sentences.insert(0, f"{cohort.folder}: no case at all; add studies with petlesion cohort build")
    return [Problem(sentence) for sentence in sentences]


def _value_problem(study: Study) -> str | None:
    problem = suv_problem(study.pet.array)
    if problem is None and study.ct is not None:
        problem = hu_problem(study.ct.array, study.pet.array)
    return problem


def _case_sentences(cohort: Cohort, case: Case) -> Iterator[str]:
    missing = [path for path in cohort.paths(case.case_id) if not path.is_file()]
    for path in missing:
        yield f"{path}: missing; build the case again"
    if missing:
        return
    try:
        study = cohort.read_study(case.case_id)
    except PetlesionError as error:
        yield str(error)
        return
    if study.pet.orientation != LPS:
        yield (
            f"{cohort.image_path(case.case_id, 1)}: oriented {study.pet.orientation}, not LPS; "
            "build the case again"
        )
    problem = _value_problem(study)
    if problem:
        yield f"{case.case_id}: {problem}"
    assert study.reference is not None
    volume_ml = float(np.count_nonzero(study.reference.array)) * study.pet.voxel_volume_ml
    if abs(volume_ml - case.reference_volume_ml) > _VOLUME_TOLERANCE * max(volume_ml, 1.0):
        yield (
            f"{cohort.label_path(case.case_id)}: holds {volume_ml:.4g} mL of lesions, but cases.csv says "
            f"{case.reference_volume_ml:.4g} mL; build the case again"
        )


def _patients_on_both_sides(cohort: Cohort) -> Iterator[str]:
    splits = defaultdict(set)
    for case in cohort.cases:
        splits[case.patient_id].add(case.split)
    for patient, sides in sorted(splits.items()):
        if len(sides) > 1:
            yield f"patient {patient} is in training and in test; split the cohort again"


def _fold_sentences(cohort: Cohort) -> Iterator[str]:
    if not (cohort.folder / "splits_final.json").is_file():
        return
    try:
        folds = cohort.folds
    except CohortError as error:
        yield str(error)
        return
    for number, fold in enumerate(folds):
        for patient in sorted(_shared_patients(cohort, fold)):
            yield f"fold {number}: patient {patient} is in training and in validation; split the cohort again"


def _shared_patients(cohort: Cohort, fold: Fold) -> set[str]:
    patient_of = {case.case_id: case.patient_id for case in cohort.cases}
    return {patient_of[case] for case in fold.train} & {patient_of[case] for case in fold.validation}


def _stray_files(cohort: Cohort) -> Iterator[str]:
    known = {path for case in cohort.cases for path in cohort.paths(case.case_id)}
    for name in ("imagesTr", "labelsTr"):
        for path in sorted((cohort.folder / name).glob("[!.]*")):
            if path not in known:
                yield f"{path}: belongs to no case of cases.csv; delete it or build the cohort again"
