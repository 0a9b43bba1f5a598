"""Make the cohorts that the models in the box are trained on: simulated whole bodies and real sarcomas.

    python box/cohort.py --studies $PETLESION_DATA/sts [--organs $PETLESION_DATA/organs] -o box/work

Writes into the folder
  Dataset010_Simulated   simulated whole bodies on a grid of 4 mm, to begin with
  Dataset012_Bodies      twice as many others, to go on with
  Dataset011_Box         others (source "simulated"), and each real study as it is and cut anew several
                         times, its CT then a little out of place (source "real"), in five folds
  Dataset015_More        all of these and more bodies (source "more"), in the same folds
All cases of a patient stay together, and none is in two of the first three. A run that was interrupted goes
on where it stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from petlesion.cli.console import progress
from petlesion.cohort.layout import Cohort, create_cohort, write_folds
from petlesion.cohort.parallel import add_all
from petlesion.cohort.recut import recut, recut_id, shift_ct
from petlesion.cohort.simulated import keep_record
from petlesion.cohort.sources import Entry
from petlesion.cohort.split import SplitSettings, folds_of, split_cohort
from petlesion.intake import StudySource, find_studies, read_source, to_study
from petlesion.simulation import SimulationSettings, simulate
from petlesion.simulation.study import study_name, study_seed
from petlesion.volume import Study

SEED = 61
# The most that each copy of a real study is cut by on a side, in mm. Were all cut hard, a network would learn
# how far from a crop's edge a tumour ends.
MOST_CUT_MM = (10.0, 20.0, 30.0, 40.0, 50.0)
# Numbers of the simulated studies: those of the body's own organs, and those around real organ masks.
TO_BEGIN_WITH = range(200), range(200, 240)
BESIDE_REAL = range(240, 440), range(440, 500)
TO_GO_ON_WITH = range(500, 900), range(900, 980)
BODIES = SimulationSettings((4.0, 4.0, 4.0), field_of_view_mm=500.0)
MOST_SHIFT_MM = 8.0
MORE = range(1000, 1400), range(1400, 1460)
# Of a simulated cohort one fold is trained, on all but a twelfth.
FOLDS, FOLDS_OF_SIMULATED = 5, 12


def real_entries(studies: Path) -> Iterator[Entry]:
    """Each real study as it is, and cut anew."""
    for number, source in enumerate(find_studies([studies])):
        name = source.name
        yield Entry(name, name, partial(read, source), "real")
        for copy, most_cut_mm in enumerate(MOST_CUT_MM):
            make = partial(cut_anew, source, (SEED, number, copy), most_cut_mm)
            yield Entry(recut_id(name, copy), name, make, "real")


def simulated_entries(
    numbers: tuple[range, range], organs: Path | None, source: str = "simulated"
) -> Iterator[Entry]:
    """Studies to be simulated, those around real organ masks only where masks are at hand."""
    kinds = [(numbers[0], BODIES)]
    if organs is not None:
        kinds.append((numbers[1], replace(BODIES, organs=organs)))
    for some, settings in kinds:
        for seed in (study_seed(SEED, number) for number in some):
            name = study_name(seed)
            yield Entry(name, name, partial(simulate, seed, settings), source)


def read(source: StudySource) -> Study:
    """The study of a source."""
    return to_study(read_source(source))


def cut_anew(source: StudySource, entropy: tuple[int, ...], most_cut_mm: float) -> Study:
    """The study of a source, cut anew and its CT moved, by a generator of its own."""
    rng = np.random.default_rng(entropy)
    return shift_ct(recut(read(source), rng, most_cut_mm), rng, MOST_SHIFT_MM)


def divide(cohort: Cohort, folds: int) -> Cohort:
    """Split a cohort into folds, without a test set."""
    return split_cohort(cohort, SplitSettings(test_share=0.0, folds=folds, seed=0))


def divide_as(cohort: Cohort, former: Cohort) -> None:
    """Split a cohort so that each fold holds out whom it does in another, and a share of the rest."""
    patients = {case.case_id: case.patient_id for case in former.training_cases}
    parts = [{patients[case_id] for case_id in fold.validation} for fold in former.folds]
    for place, case in enumerate(cohort.training_cases):
        if not any(case.patient_id in part for part in parts):
            parts[place % len(parts)].add(case.patient_id)
    write_folds(cohort, folds_of(cohort.training_cases, parts))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=Path, required=True)
    parser.add_argument("--organs", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    out, organs, workers = arguments.out, arguments.organs, arguments.workers
    made_with = replace(BODIES, organs=organs).as_json()

    def make(name: str, entries: Sequence[Entry]) -> Cohort:
        cohort = create_cohort(out / name)
        keep_record(cohort.folder, SEED, made_with, begun=bool(cohort.cases))
        # The first case that cannot be made ends it.
        with progress(name, len(entries)) as advance:
            return add_all(cohort, entries, workers, advance)

    for name, numbers in (("Dataset010_Simulated", TO_BEGIN_WITH), ("Dataset012_Bodies", TO_GO_ON_WITH)):
        divide(make(name, list(simulated_entries(numbers, organs))), FOLDS_OF_SIMULATED)
    mixed = [*real_entries(arguments.studies), *simulated_entries(BESIDE_REAL, organs)]
    both = divide(make("Dataset011_Box", mixed), FOLDS)
    more = list(simulated_entries(MORE, organs, "more"))
    divide_as(make("Dataset015_More", [*mixed, *more]), both)


if __name__ == "__main__":
    main()
