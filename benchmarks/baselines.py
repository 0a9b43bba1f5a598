"""Masks that need no training, to set a model's figures beside: fixed SUV thresholds and blind ellipsoids.

    python benchmarks/baselines.py COHORT -o OUT [--fold 0 | --test]

writes OUT/<method>/<case>.nii.gz for the cohort's training studies, for those that a fold holds out, or for
its test set; `petlesion evaluate OUT/<method> COHORT/labelsTr -o metrics.csv` scores them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from petlesion.cohort.layout import Cohort
from petlesion.io.nifti import write_volume
from petlesion.volume import Mask, Study


def above_suv(threshold: float) -> Callable[[Study], Mask]:
    """Every voxel above a fixed SUV."""
    return lambda study: study.pet.array > threshold


def above_share_of_highest(share: float) -> Callable[[Study], Mask]:
    """Every voxel above a share of the study's highest SUV."""
    return lambda study: study.pet.array > share * study.pet.array.max()


def blind_ellipsoid(margin_mm: float) -> Callable[[Study], Mask]:
    """The ellipsoid inscribed in the image less a margin on every side, drawn without a look at the image."""

    def draw(study: Study) -> Mask:
        shape = np.array(study.pet.shape)
        half_axes = np.maximum(shape / 2 - margin_mm / np.array(study.pet.spacing_mm), 0.5)
        offset = np.indices(study.pet.shape) - ((shape - 1) / 2)[:, None, None, None]
        inside: Mask = ((offset / half_axes[:, None, None, None]) ** 2).sum(axis=0) <= 1
        return inside

    return draw


METHODS: Mapping[str, Callable[[Study], Mask]] = {
    "suv-2.5": above_suv(2.5),
    "suv-4": above_suv(4.0),
    "41-percent": above_share_of_highest(0.41),
    "ellipsoid-50mm": blind_ellipsoid(50),
    "ellipsoid-25mm": blind_ellipsoid(25),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cohort", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--fold", type=int, help="only the studies that this fold holds out")
    which.add_argument("--test", action="store_true", help="the cohort's test set")
    arguments = parser.parse_args()
    cohort = Cohort.open(arguments.cohort)
    cases = [case.case_id for case in (cohort.test_cases if arguments.test else cohort.training_cases)]
    if arguments.fold is not None:
        cases = list(cohort.folds[arguments.fold].validation)
    for case_id in cases:
        study = cohort.read_study(case_id)
        for method, draw in METHODS.items():
            mask = study.pet.with_array(draw(study).astype(np.uint8))
            write_volume(arguments.out / method / f"{case_id}.nii.gz", mask)


if __name__ == "__main__":
    main()
