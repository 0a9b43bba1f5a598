"""Cohorts of what a network has not seen: a simulated test set, and a cohort without what it began with.

python benchmarks/fresh.py -o Dataset083_Unseen [--count 40] [--spacing 4]    makes the test set
python benchmarks/fresh.py -o Dataset085_Anew --seed 85    another one, for what was chosen by the first
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from petlesion.cohort.layout import Case, Cohort, create_cohort, write_index
from petlesion.cohort.parallel import add_all
from petlesion.cohort.simulated import keep_record
from petlesion.cohort.sources import Entry
from petlesion.cohort.split import SplitSettings, split_cohort
from petlesion.errors import UsageError
from petlesion.model.training_cases import Digests, case_digests, seen_cases
from petlesion.simulation import SimulationSettings, simulate
from petlesion.simulation.study import study_name, study_seed

TEST_SEED, FRESH_SEED = 83, 84  # of no cohort that anything else is trained on
FIELD_OF_VIEW_MM = 500.0  # that of box/cohort.py


@dataclass(frozen=True)
class Simulated:
    """How studies are simulated: voxels of `spacing_mm` along each axis, `workers` at a time."""

    spacing_mm: float
    workers: int = 2

    @property
    def settings(self) -> SimulationSettings:
        """What all studies are simulated with."""
        return SimulationSettings((self.spacing_mm,) * 3, field_of_view_mm=FIELD_OF_VIEW_MM)

    def entries(self, seed: int, count: int) -> list[Entry]:
        """Studies of a cohort's seed, to be simulated."""
        seeds = [study_seed(seed, number) for number in range(count)]
        named = {study_name(own): partial(simulate, own, self.settings) for own in seeds}
        return [Entry(name, name, make, "simulated") for name, make in named.items()]

    def make(self, cohort: Cohort, entries: Sequence[Entry]) -> Cohort:
        """Make what of a cohort is missing; the first case that cannot be made ends it."""
        return add_all(cohort, entries, self.workers)

    def test_set(self, folder: Path, count: int, seed: int = TEST_SEED) -> Cohort:
        """A cohort of test cases alone."""
        cohort = create_cohort(folder)
        keep_record(folder, seed, self.settings.as_json(), begun=bool(cohort.cases))
        cohort = self.make(cohort, self.entries(seed, count))
        cohort = cohort.with_cases([replace(case, split="test") for case in cohort.cases])
        write_index(cohort)
        return cohort

    def thinned(self, folder: Path, cohort: Cohort, every: int) -> Cohort:
        """A cohort of every so many cases of each source, in order of their ids."""
        by_source: dict[str, list[Case]] = {}
        for case in sorted(cohort.cases, key=lambda case: case.case_id):
            by_source.setdefault(case.source, []).append(case)
        kept = [case for cases in by_source.values() for case in cases[::every]]
        return self.made_of(folder, cohort, kept)

    def without_seen(self, folder: Path, cohort: Cohort, checkpoints: Iterable[str]) -> Cohort:
        """The cohort, or one with fresh studies in place of those that checkpoints were trained on.

        What a network has begun with can be held out from it no more. Raises UsageError where it is not known
        what a checkpoint was trained on.
        """
        seen = frozenset().union(*(trained_on(Path(checkpoint)) for checkpoint in checkpoints))
        patients = {case.patient_id for case in cohort.cases if case_digests([case.case_id]) <= seen}
        if not patients:
            return cohort
        kept = [case for case in cohort.cases if case.patient_id not in patients]
        return self.made_of(folder, cohort, kept, self.entries(FRESH_SEED, len(cohort.cases) - len(kept)))

    def made_of(
        self, folder: Path, cohort: Cohort, kept: Sequence[Case], others: Sequence[Entry] = ()
    ) -> Cohort:
        """A cohort of some cases of another one and of other studies, split anew."""
        entries = [
            Entry(case.case_id, case.patient_id, partial(cohort.read_study, case.case_id), case.source)
            for case in kept
        ]
        made = self.make(create_cohort(folder), [*entries, *others])
        if (folder / "splits_final.json").exists():
            return made
        return split_cohort(made, SplitSettings(test_share=0.0, folds=len(cohort.folds)))


def trained_on(checkpoint: Path) -> Digests:
    """Digests of the cases that a checkpoint's fold was trained on, its own initial weights' among them."""
    seen = seen_cases(checkpoint.parent)
    if seen is None:
        raise UsageError(
            f"{checkpoint.parent} does not tell what it was trained on; give a fold of petlesion train"
        )
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--spacing", type=float, default=4.0, help="in mm")
    parser.add_argument("--seed", type=int, default=TEST_SEED)
    arguments = parser.parse_args()
    Simulated(arguments.spacing).test_set(arguments.out, arguments.count, arguments.seed)


if __name__ == "__main__":
    main()
