"""Make a cohort of cropped studies that are cropped again at random, so that the crop gives nothing away.

    python benchmarks/recut_cohort.py STUDIES -o COHORT [--copies 8] [--seed 1]

STUDIES holds a folder for each study with PET, CT and SEG. Each becomes one case as it is (source "as-is") and
`--copies` cases with 0 to 50 mm taken off each of the six sides, independently (source "recut"). All cases of a
study are of one patient, so that no split separates them.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from petlesion.cohort.layout import add_study, create_cohort, is_complete
from petlesion.intake import find_studies, read_source, to_study
from petlesion.volume import Study, Volume

MOST_CUT_MM = 50.0


def recut(study: Study, rng: np.random.Generator) -> Study:
    """The study with 0 to 50 mm taken off each side, and at least one voxel left along every axis."""
    window = []
    for size, spacing in zip(study.pet.shape, study.pet.spacing_mm, strict=True):
        low, high = np.rint(rng.uniform(0, MOST_CUT_MM, 2) / spacing).astype(int)
        low = min(low, size - 1)
        window.append(slice(low, max(size - high, low + 1)))
    return replace(
        study,
        pet=_crop(study.pet, window),
        ct=_crop(study.ct, window) if study.ct is not None else None,
        reference=_crop(study.reference, window) if study.reference is not None else None,
    )


def _crop(volume: Volume, window: list[slice]) -> Volume:
    z, y, x = (part.start for part in window)
    affine = volume.affine.copy()
    affine[:3, 3] = (volume.affine @ (x, y, z, 1.0))[:3]
    return Volume(volume.array[tuple(window)], affine)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--copies", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    cohort = create_cohort(arguments.out)
    for number, folder in enumerate(sorted(path for path in arguments.studies.iterdir() if path.is_dir())):
        [source] = find_studies([folder])
        study = to_study(read_source(source))
        rng = np.random.default_rng([arguments.seed, number])
        versions = {folder.name: study}
        versions |= {f"{folder.name}_recut{copy}": recut(study, rng) for copy in range(1, arguments.copies + 1)}
        for case_id, version in versions.items():
            origin = "as-is" if case_id == folder.name else "recut"
            if not is_complete(cohort, case_id):
                cohort = add_study(cohort, version, case_id=case_id, patient_id=folder.name, source=origin)


if __name__ == "__main__":
    main()
