"""Whether the flag goes up on studies that are made wrong on purpose, and stays down on right ones.

    python benchmarks/flag.py MODEL COHORT -o DIR [--held-out] [--mirror | --no-mirror]

As in confidence.py: without --held-out, the cohort's test set is held against the calibrated model's own
ranges; with it, each training study against those of a calibration of other patients. DIR is where
confidence.py keeps what each study tells; what is missing there is predicted. Each study is looked at as it
is, and made wrong in four ways: SUV ten times as high, the CT 5 cm away, one arm (the outermost 12 cm) alone,
PET and CT swapped. Prints a table in Markdown: how many studies of each source are flagged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from confidence import by_source, judge, parse
from machine import describe

from petlesion.calibration.cross_fit import Judged
from petlesion.calibration.typical import study_statistics, what_is_unusual
from petlesion.cohort.layout import Cohort
from petlesion.evaluation.tables import Table, render
from petlesion.inference.predict import load_model
from petlesion.volume import Study, Volume

SHIFT_MM, ARM_MM, TOO_HIGH = 50.0, 120.0, 10.0
BODY_SUV = 0.3
OUTSIDE_HU = -1000.0
AS_IT_IS = "as it is"


def too_high(study: Study) -> Study:
    return replace(study, pet=study.pet.with_array(study.pet.array * TOO_HIGH))


def ct_moved(study: Study) -> Study:
    """The CT 5 cm towards the head; below it there is air."""
    assert study.ct is not None
    slices = round(SHIFT_MM / study.ct.spacing_mm[0])
    moved = np.full_like(study.ct.array, OUTSIDE_HU)
    moved[slices:] = study.ct.array[: max(len(moved) - slices, 0)]
    return replace(study, ct=study.ct.with_array(moved))


def arm_alone(study: Study) -> Study:
    """What hangs at the patient's left: the outermost 12 cm with uptake."""
    hot = np.flatnonzero((study.pet.array > BODY_SUV).any(axis=(0, 1)))
    last = int(hot[-1]) if hot.size else study.pet.shape[2] - 1
    first = max(0, last + 1 - round(ARM_MM / study.pet.spacing_mm[2]))
    part = (slice(None), slice(None), slice(first, last + 1))

    def cut(volume: Volume | None) -> Volume | None:
        return None if volume is None else Volume(volume.array[part], volume.affine)

    pet = cut(study.pet)
    assert pet is not None
    return replace(study, pet=pet, ct=cut(study.ct), reference=cut(study.reference))


def swapped(study: Study) -> Study:
    assert study.ct is not None
    return replace(study, pet=study.ct, ct=study.pet)


WRONG: Mapping[str, Callable[[Study], Study]] = {
    "SUV × 10": too_high,
    "CT shifted by 5 cm": ct_moved,
    "one arm alone": arm_alone,
    "PET and CT swapped": swapped,
}


def main() -> None:
    options = parse(__doc__)
    cohort, model = Cohort.open(options.cohort), load_model(options.model, device=options.device)
    patients = {case.case_id: case.patient_id for case in cohort.cases}
    studies = judge(cohort, model, options, patients)
    print(f"{describe()}\n\n{model.name} on {cohort.name}: studies that are flagged\n")
    found = {judged.evidence.case_id: flagged_as(cohort, judged) for judged in studies}
    print(render(flags_table(found, by_source(studies, cohort)), "markdown"))


def flagged_as(cohort: Cohort, judged: Judged) -> set[str]:
    """In which of its forms a study is flagged."""
    evidence, ranges = judged.evidence, judged.calibration.ranges
    study = cohort.read_study(evidence.case_id)
    statistics = {AS_IT_IS: evidence.statistics}
    statistics |= {kind: study_statistics(spoil(study)) for kind, spoil in WRONG.items()}
    return {form for form, numbers in statistics.items() if what_is_unusual(numbers, ranges)}


def flags_table(found: Mapping[str, set[str]], sources: Mapping[str, list[Judged]]) -> Table:
    """One row per form of a study, one column per source."""

    def count(form: str, studies: list[Judged]) -> str:
        return f"{sum(form in found[study.evidence.case_id] for study in studies)} of {len(studies)}"

    forms = (AS_IT_IS, *WRONG)
    rows = tuple((form, *(count(form, studies) for studies in sources.values())) for form in forms)
    notes = ("Of a study made wrong, all but the disagreement of the passes is looked at.",)
    return Table(("study", *sources), rows, notes)


if __name__ == "__main__":
    main()
