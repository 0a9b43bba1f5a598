"""Organ masks beside a cohort's cases, for those who let a network learn organs together with lesions.

    DatasetNNN_Name/
      organsTr/labels.json            what each number stands for, such as {"brain": 1, "bladder": 2}
      organsTr/<case>.nii.gz          those numbers on the case's grid, 0 where there is none of them

Not every case needs a mask. nnU-Net leaves the folder alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from petlesion.cohort.layout import FILE_ENDING, Cohort
from petlesion.errors import CohortError
from petlesion.io.atomic import write_text
from petlesion.io.nifti import write_volume
from petlesion.volume import Volume

_FOLDER = "organsTr"
_LABELS = "labels.json"
_MOST_ORGANS = 200


def organs_path(cohort: Cohort, case_id: str) -> Path:
    """Path of a case's organ mask, whether it has one or not."""
    return cohort.folder / _FOLDER / f"{case_id}{FILE_ENDING}"


def organ_names(cohort: Cohort) -> tuple[str, ...]:
    """What the numbers from 1 stand for in a cohort's organ masks. Raises CohortError where it has none."""
    path = cohort.folder / _FOLDER / _LABELS
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        numbers = {int(number): str(name) for name, number in stored.items()}
    except FileNotFoundError:
        raise CohortError(
            f"{cohort.folder}: there are no organ masks ({_FOLDER}/{_LABELS} is missing); "
            "put them there, or train with organs=false"
        ) from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CohortError(f"{path}: no mapping of organs' names to numbers; write it anew") from error
    if sorted(numbers) != list(range(1, len(numbers) + 1)) or not 1 <= len(numbers) <= _MOST_ORGANS:
        raise CohortError(f"{path}: organs must be numbered 1, 2, 3 and so on; mend the numbers")
    return tuple(numbers[number] for number in sorted(numbers))


def write_organ_names(cohort: Cohort, names: Sequence[str]) -> None:
    """Say what the numbers from 1 stand for in a cohort's organ masks."""
    content = {name: number for number, name in enumerate(names, 1)}
    write_text(cohort.folder / _FOLDER / _LABELS, json.dumps(content, indent=1) + "\n")


def write_organs(cohort: Cohort, case_id: str, organs: Volume) -> None:
    """Write a case's organ mask, which lies on the case's grid, in LPS orientation."""
    mask = organs.reoriented()
    write_volume(organs_path(cohort, case_id), mask.with_array(mask.array.astype(np.uint8)))
