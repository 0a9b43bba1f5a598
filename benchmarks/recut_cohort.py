"""Crop a cohort's cropped studies again at random, so that the crop gives nothing away.

    python benchmarks/recut_cohort.py COHORT -o RECUT_COHORT [--copies 8] [--seed 1]

Each study becomes one case as it is (source "as-is") and `--copies` cases with 0 to 50 mm taken off each of
the six sides, independently (source "recut"). All cases of a study stay with its patient, so that no split
separates them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from petlesion.cohort.layout import Cohort, add_study, create_cohort, is_complete
from petlesion.cohort.recut import recut, recut_id


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cohort", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--copies", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    cohort = Cohort.open(arguments.cohort)
    result = create_cohort(arguments.out)
    for number, case in enumerate(cohort.cases):
        study = cohort.read_study(case.case_id)
        rng = np.random.default_rng([arguments.seed, number])
        versions = {case.case_id: study}
        versions |= {recut_id(case.case_id, copy): recut(study, rng) for copy in range(arguments.copies)}
        for case_id, version in versions.items():
            source = "as-is" if version is study else "recut"
            if not is_complete(result, case_id):
                result = add_study(
                    result, version, case_id=case_id, patient_id=case.patient_id, source=source
                )


if __name__ == "__main__":
    main()
