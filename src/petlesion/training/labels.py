"""The labels of a preprocessed case: lesions, and around them organs where they are learnt too."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from petlesion.cohort.layout import Cohort
from petlesion.cohort.organs import organ_names, organs_path
from petlesion.errors import CohortError
from petlesion.io.nifti import read_mask, read_volume, write_volume

LESION = 1
FIRST_ORGAN = 2


def write_labels_with_organs(cohort: Cohort, case_id: str, target: Path) -> None:
    """Write a case's lesions as 1 and its organs as 2 and up; a lesion in an organ is a lesion.

    Of a case without an organ mask all that is no lesion gets the number after the last organ: what is there
    is not known. Raises CohortError for a mask on another grid, or with numbers that have no name.
    """
    lesions = read_mask(cohort.label_path(case_id))
    count = len(organ_names(cohort))
    path = organs_path(cohort, case_id)
    labels = np.full(lesions.shape, FIRST_ORGAN + count, dtype=np.uint8)
    if path.is_file():
        organs = read_volume(path)
        if not organs.grid.matches(lesions.grid):
            raise CohortError(f"{path}: lies on another grid than the case's lesions; resample it to that")
        if organs.array.max(initial=0) > count:
            raise CohortError(f"{path}: has numbers that labels.json does not name; add them there")
        numbers = np.rint(organs.array).astype(np.uint8)
        labels = np.where(numbers > 0, numbers + FIRST_ORGAN - 1, 0).astype(np.uint8)
    labels[lesions.array > 0] = LESION
    write_volume(target, lesions.with_array(labels))
