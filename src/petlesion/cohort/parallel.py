"""Several studies made at a time, each in a process of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from petlesion.cohort.check import require_sound
from petlesion.cohort.layout import Case, Cohort, enter_case, is_complete, write_images
from petlesion.cohort.sources import Entry
from petlesion.errors import PetlesionError, StudyError

T = TypeVar("T")
R = TypeVar("R")

_STUDIES_WORTH_A_PROCESS = 2


@dataclass(frozen=True)
class Outcome:
    """What became of one entry: the cohort with it, or the cohort as it was and the reason."""

    entry: Entry
    cohort: Cohort
    problem: Exception | None = None


def add_in_parallel(cohort: Cohort, entries: Sequence[Entry], workers: int) -> Iterator[Outcome]:
    """Make entries into cases, `workers` at a time, and yield what became of each in their order.

    Images are written by the workers, the index by this process alone, after each case: cut off at any
    moment, the next call goes on with what is missing. Entries that are there and complete are left as they
    are.
    """
    missing = {entry.case_id: entry for entry in entries if not is_complete(cohort, entry.case_id)}
    with in_parallel(partial(_make_case, cohort.with_cases([])), missing, workers) as results:
        for entry in entries:
            problem: Exception | None = None
            if entry.case_id in missing:
                try:
                    cohort = enter_case(cohort, results[entry.case_id]())
                except (PetlesionError, OSError, MemoryError) as error:
                    problem = error
            yield Outcome(entry, cohort, problem)


@contextmanager
def in_parallel(
    work: Callable[[T], R], items: Mapping[str, T], workers: int
) -> Iterator[dict[str, Callable[[], R]]]:
    """Have `work` called for each item by name, `workers` at a time; yield what waits for each result.

    What is yielded raises what `work` raised, and StudyError where its process was killed.
    """
    with _pool(min(workers, len(items) // _STUDIES_WORTH_A_PROCESS)) as pool:
        try:
            yield {name: partial(_result, name, pool.submit(work, item)) for name, item in items.items()}
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


def _result(name: str, future: Future[R]) -> R:
    try:
        return future.result()
    except BrokenExecutor:
        raise StudyError(
            f"{name}: a worker was killed, most likely for want of memory; give fewer --workers"
        ) from None


def _pool(workers: int) -> Executor:
    """Processes that share nothing with this one, or a thread where one worker is enough."""
    if workers < 2:
        return ThreadPoolExecutor(1)
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def _make_case(cohort: Cohort, entry: Entry) -> Case:
    study = entry.read()
    require_sound(study)
    return write_images(cohort, study, entry.case_id, entry.patient_id, entry.source)
