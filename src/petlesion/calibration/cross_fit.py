"""Calibrations for scoring: each study is judged by one that none of its patient's studies had a part in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from petlesion.calibration.evidence import Evidence
from petlesion.calibration.lesions import Floats
from petlesion.calibration.stored import Calibration, fit_calibration
from petlesion.errors import CohortError

INNER_FOLDS = 5
_SEED = 2023


@dataclass(frozen=True, eq=False)
class Judged:
    """A study's evidence, and a calibration that was fitted without its patient."""

    evidence: Evidence
    calibration: Calibration

    @property
    def confidence(self) -> Floats:
        """Confidence of each predicted component."""
        return self.calibration.lesions.confidence(self.evidence.features)


def cross_fitted(studies: Sequence[Evidence], patients: Mapping[str, str]) -> list[Judged]:
    """Put the patients into five inner folds, and judge each fold by a calibration of the others.

    `patients` gives the patient by case id. The same studies give the same folds. Raises CohortError with
    fewer than two patients, and where a calibration cannot be fitted.
    """
    of_study = [patients[study.case_id] for study in studies]
    names = sorted(set(of_study))
    if len(names) < 2:
        raise CohortError(
            "a calibration is scored on other patients than it is fitted to; take a larger cohort"
        )
    order = np.random.default_rng(_SEED).permutation(len(names))
    fold_of = {names[index]: place % INNER_FOLDS for place, index in enumerate(order)}
    folds = [fold_of[patient] for patient in of_study]
    calibrations = {}
    for fold in sorted(set(folds)):
        others = [study for study, of in zip(studies, folds, strict=True) if of != fold]
        calibrations[fold] = _fit_without(others)
    return [Judged(study, calibrations[fold]) for study, fold in zip(studies, folds, strict=True)]


def _fit_without(others: Sequence[Evidence]) -> Calibration:
    try:
        return fit_calibration(others, {})
    except CohortError as error:
        raise CohortError(f"without the patients of one inner fold, {error}") from error
