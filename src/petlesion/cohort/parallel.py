"""Several studies made into cases at a time, each in a process of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass

from petlesion.cohort.check import require_sound
from petlesion.cohort.layout import Case, Cohort, enter_case, is_complete, write_images
from petlesion.cohort.sources import Entry
from petlesion.errors import PetlesionError, StudyError

_STUDIES_WORTH_A_PROCESS = 2


@dataclass(frozen=True)
class Outcome:
    """What became of one entry: the cohort with it, or the cohort as it was and the reason."""

    entry: Entry
    cohort: Cohort
    problem: PetlesionError | None = None


def add_in_parallel(cohort: Cohort, entries: Sequence[Entry], workers: int) -> Iterator[Outcome]:
    """Make entries into cases, `workers` at a time, and yield what became of each in their order.

    Images are written by the workers, the index by this process alone, after each case: cut off at any
    moment, the next call goes on with what is missing. Entries that are there and complete are left as they
    are.
    """
    missing = [entry for entry in entries if not is_complete(cohort, entry.case_id)]
    alone = cohort.with_cases([])
    with _pool(min(workers, len(missing) // _STUDIES_WORTH_A_PROCESS)) as pool:
        running = {entry.case_id: pool.submit(_make_case, alone, entry) for entry in missing}
        try:
            for entry in entries:
                problem: PetlesionError | None = None
                if entry.case_id in running:
                    try:
                        cohort = enter_case(cohort, running[entry.case_id].result())
                    except PetlesionError as error:
                        problem = error
                    except BrokenExecutor:
                        problem = StudyError(
                            f"{entry.case_id}: a worker was killed, most likely for want of memory; give "
                            "fewer --workers"
                        )
                yield Outcome(entry, cohort, problem)
        finally:
            pool.shutdown(cancel_futures=True)


def add_all(
    cohort: Cohort, entries: Sequence[Entry], workers: int, advance: Callable[[], None] = lambda: None
) -> Cohort:
    """Make all entries into cases, calling `advance` after each; the first that cannot be made is raised."""
    for outcome in add_in_parallel(cohort, entries, workers):
        if outcome.problem is not None:
            raise outcome.problem
        cohort = outcome.cohort
        advance()
    return cohort


def _pool(workers: int) -> Executor:
    """Processes that share nothing with this one, or a thread where one worker is enough."""
    if workers < 2:
        return ThreadPoolExecutor(1)
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def _make_case(cohort: Cohort, entry: Entry) -> Case:
    study = entry.read()
    require_sound(study)
    return write_images(cohort, study, entry.case_id, entry.patient_id, entry.source)
