"""The preprocessed form of a cohort: nnU-Net's cropped, normalised and resampled arrays, made once.

    <preprocessed>/DatasetNNN_Name/
      cohort.json                the files that all of it was made of
      dataset_fingerprint.json   nnU-Net's
      plans.json                 nnU-Net's plan of that fingerprint
      <data identifier>/         for each way of normalising: <case>.b2nd, <case>_seg.b2nd, <case>.pkl

A case's .pkl is moved into place last, so a case that has one is complete.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from filelock import FileLock
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from petlesion.cohort.layout import Cohort
from petlesion.errors import CohortError
from petlesion.training.jsonfile import Json, read_json, write_json
from petlesion.training.nnunet import CONFIGURATION, silence
from petlesion.training.planning import (
    plan_fingerprint,
    take_fingerprint,
    training_dataset_json,
)
from petlesion.training.processes import in_processes

FINGERPRINT_NAME = "dataset_fingerprint.json"
PLAN_NAME = "plans.json"
_RECORD_NAME = "cohort.json"
_ENDINGS = (".b2nd", "_seg.b2nd", ".pkl")


@dataclass(frozen=True)
class PreprocessedCohort:
    """A cohort and the folder that holds what nnU-Net makes of it."""

    cohort: Cohort
    folder: Path

    @classmethod
    def at(cls, cohort: Cohort, parent: Path) -> PreprocessedCohort:
        """The cohort's place in `parent`. Raises CohortError if another state of the cohort stands there."""
        preprocessed = cls(cohort, parent / cohort.name)
        preprocessed._check_unchanged()
        return preprocessed

    def lock(self) -> FileLock:
        """Held while something is made here, since several folds may be started at once."""
        return FileLock(self.folder / ".lock")

    def plan(self, processes: int) -> Json:
        """nnU-Net's plan of the cohort, made of its fingerprint on the first call."""
        path = self.folder / PLAN_NAME
        if not path.exists():
            fingerprint = self.folder / FINGERPRINT_NAME
            if not fingerprint.exists():
                write_json(fingerprint, take_fingerprint(self.cohort, processes))
            dataset_json = training_dataset_json(self.cohort)
            write_json(path, plan_fingerprint(read_json(fingerprint), dataset_json, self.cohort.name))
        return read_json(path)

    def missing_cases(self, plan: Json) -> list[str]:
        """The training cases that are not preprocessed yet for this plan's normalisation."""
        folder = self.data_folder(plan)
        cases = [case.case_id for case in self.cohort.training_cases]
        return [case_id for case_id in cases if not (folder / f"{case_id}.pkl").exists()]

    def preprocess(self, plan: Json, processes: int, advance: Callable[[], None] = lambda: None) -> None:
        """Preprocess the cases that are missing, and call `advance` after each.

        Raises CohortError for a case that cannot be preprocessed.
        """
        folder = self.data_folder(plan)
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        work = partial(_preprocess_case, plan, training_dataset_json(self.cohort), folder)
        with _first_failure_stops(self.cohort):
            for _ in in_processes(work, self.missing_cases(plan), processes, self.cohort.folder):
                advance()

    def data_folder(self, plan: Json) -> Path:
        """Where the arrays lie that are normalised as the plan says."""
        return self.folder / str(plan["configurations"][CONFIGURATION]["data_identifier"])

    def _check_unchanged(self) -> None:
        state = _state(self.cohort)
        record = self.folder / _RECORD_NAME
        if not record.exists():
            write_json(record, state)
        elif read_json(record) != state:
            raise CohortError(
                f"{self.folder}: the training cases of {self.cohort.folder} are not those that were "
                "preprocessed there; remove that folder or give another with --preprocessed"
            )


def _state(cohort: Cohort) -> Json:
    """What tells one state of a cohort from another: its training cases and the sizes of their files."""
    try:
        return {
            case.case_id: [path.stat().st_size for path in cohort.paths(case.case_id)]
            for case in cohort.training_cases
        }
    except OSError as error:
        raise CohortError(
            f"{error.filename}: missing; run petlesion cohort check {cohort.folder} and mend the cohort"
        ) from error


def _preprocess_case(plan: Json, dataset_json: Json, folder: Path, case_id: str) -> None:
    manager = PlansManager(plan)
    configuration = manager.get_configuration(CONFIGURATION)
    case = dataset_json["dataset"][case_id]
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as scratch, silence():
        preprocessor = configuration.preprocessor_class(verbose=False)
        target = str(Path(scratch) / case_id)
        preprocessor.run_case_save(
            target, case["images"], case["label"], manager, configuration, dataset_json
        )
        for ending in _ENDINGS:
            Path(scratch, case_id + ending).replace(folder / (case_id + ending))


@contextmanager
def _first_failure_stops(cohort: Cohort) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError, AssertionError) as error:
        raise CohortError(
            f"{cohort.folder}: a case cannot be preprocessed ({error}); run petlesion cohort check on it"
        ) from error


def _sweep(folder: Path) -> None:
    """Remove what a killed run left half made."""
    for leftover in folder.glob(".partial-*"):
        shutil.rmtree(leftover, ignore_errors=True)
