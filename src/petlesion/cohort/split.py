"""Test set and cross-validation's folds: patients whole, seeded, alike in lesions and sources."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from petlesion.cohort.layout import Case, Cohort, Fold, write_folds, write_index
from petlesion.errors import CohortError, UsageError

_MOST_LISTED = 10

# What the parts are balanced in: studies in all, those with and without lesions, and these of each source.
_Stratum = tuple[str, ...]


@dataclass(frozen=True)
class SplitSettings:
    """How to split a cohort.

    `test_share` of the studies are held out, or instead all studies of the source `hold_out_source`.
    Raises UsageError for values that cannot be.
    """

    test_share: float = 0.1
    folds: int = 5
    seed: int = 0
    hold_out_source: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.test_share < 1:
            raise UsageError(f"a test share of {self.test_share} cannot be; give a number from 0 to below 1")
        if self.folds < 2:
            raise UsageError(f"{self.folds} folds cannot be; give 2 or more")
        if self.seed < 0:
            raise UsageError(f"the seed {self.seed} cannot be; give a whole number from 0")


def split_cohort(cohort: Cohort, settings: SplitSettings) -> Cohort:
    """Divide a cohort's studies and write splits_final.json, dataset.json and cases.csv.

    A patient's studies stay together, in whatever source they are. The same settings and cases give the same
    split. Raises UsageError for a source that the cohort does not have and for fewer patients than folds, and
    CohortError for a source to be held out of whose patients other sources have studies too.
    """
    rng = np.random.default_rng(settings.seed)
    test_patients = _test_patients(cohort, settings, rng)
    cases = [
        replace(case, split="test" if case.patient_id in test_patients else "train") for case in cohort.cases
    ]
    divided = cohort.with_cases(cases)
    folds = _folds(divided.training_cases, settings.folds, rng)
    write_folds(divided, folds)
    write_index(divided)
    return divided


@dataclass(frozen=True)
class Part:
    """A part of a split cohort, counted."""

    name: str
    patients: int
    studies: int
    studies_with_lesions: int


def describe_split(cohort: Cohort) -> list[Part]:
    """Count the training cases, each fold's validation cases, and the test cases."""
    training = cohort.training_cases
    parts = [_part("training", training)]
    for number, fold in enumerate(cohort.folds):
        validation = set(fold.validation)
        parts.append(_part(f"fold {number}", [case for case in training if case.case_id in validation]))
    return [*parts, _part("test", cohort.test_cases)]


def _part(name: str, cases: Sequence[Case]) -> Part:
    patients = {case.patient_id for case in cases}
    return Part(name, len(patients), len(cases), sum(case.has_lesion for case in cases))


def _test_patients(cohort: Cohort, settings: SplitSettings, rng: np.random.Generator) -> set[str]:
    if settings.hold_out_source is not None:
        sources = sorted({case.source for case in cohort.cases})
        if settings.hold_out_source not in sources:
            raise UsageError(
                f"no study comes from {settings.hold_out_source!r}; the sources are {', '.join(sources)}"
            )
        return _patients_of_source(cohort, settings.hold_out_source)
    if settings.test_share == 0:
        return set()
    share = settings.test_share
    return _distribute(cohort.cases, (1 - share, share), rng)[1]


def _patients_of_source(cohort: Cohort, source: str) -> set[str]:
    """The patients of one source; raises CohortError if another source has studies of theirs too.

    Those could be put neither in the test set, which is this source's alone, nor in training.
    """
    held_out = {case.patient_id for case in cohort.cases if case.source == source}
    elsewhere = {case.patient_id for case in cohort.cases if case.source != source}
    shared = sorted(held_out & elsewhere)
    if shared:
        listed = ", ".join(shared[:_MOST_LISTED]) + (" and more" if len(shared) > _MOST_LISTED else "")
        raise CohortError(
            f"{cohort.folder}: {source} and other sources share {len(shared)} patient ids, {listed}; remove "
            "those studies from the other sources, or give different people different ids in cases.csv"
        )
    return held_out


def _folds(cases: Sequence[Case], count: int, rng: np.random.Generator) -> list[Fold]:
    patients = {case.patient_id for case in cases}
    if len(patients) < count:
        raise UsageError(
            f"{len(patients)} patients are left for training, too few for {count} folds; add studies, or set "
            "fewer folds or a smaller test share"
        )
    return folds_of(cases, _distribute(cases, (1 / count,) * count, rng))


def folds_of(cases: Sequence[Case], parts: Iterable[Container[str]]) -> list[Fold]:
    """Folds that each hold out the cases of one part's patients, and train on all others."""
    return [
        Fold(
            train=tuple(case.case_id for case in cases if case.patient_id not in part),
            validation=tuple(case.case_id for case in cases if case.patient_id in part),
        )
        for part in parts
    ]


def _distribute(cases: Iterable[Case], shares: Sequence[float], rng: np.random.Generator) -> list[set[str]]:
    """Deal patients out to parts of the given shares, each to the part that lacks most of what they bring.

    Patients with many studies go first, since the small ones even out what those leave uneven.
    """
    studies = defaultdict(list)
    for case in cases:
        studies[case.patient_id].append(case)
    profiles = {patient: _profile(own) for patient, own in studies.items()}
    totals = _sum(profiles.values())
    lacking = [{stratum: share * total for stratum, total in totals.items()} for share in shares]
    parts: list[set[str]] = [set() for _ in shares]
    shuffled = [sorted(studies)[index] for index in rng.permutation(len(studies))]
    for patient in sorted(shuffled, key=lambda name: -len(studies[name])):
        profile = profiles[patient]
        need = [sum(amount * lack[s] for s, amount in profile.items()) for lack in lacking]
        chosen = int(np.argmax(need))
        parts[chosen].add(patient)
        for stratum, amount in profile.items():
            lacking[chosen][stratum] -= amount
    return parts


def _profile(cases: Iterable[Case]) -> dict[_Stratum, float]:
    """What a patient brings: studies with and without lesions, of each source and in all."""
    profile: dict[_Stratum, float] = defaultdict(float)
    for case in cases:
        lesion = "lesion" if case.has_lesion else "none"
        for stratum in ((case.source, lesion), (lesion,), ()):
            profile[stratum] += 1
    return profile


def _sum(profiles: Iterable[dict[_Stratum, float]]) -> dict[_Stratum, float]:
    total: dict[_Stratum, float] = defaultdict(float)
    for profile in profiles:
        for stratum, amount in profile.items():
            total[stratum] += amount
    return total
