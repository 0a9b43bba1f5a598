"""Processes that end with the one that started them, however that ends."""

from __future__ import annotations

import multiprocessing
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

from petlesion.errors import CohortError

# Called with what is done and in how many steps; yields the function to call after each.
Progress = Callable[[str, int], AbstractContextManager[Callable[[], None]]]


def begin_worker(*_: Any) -> None:
    """To be called first in every worker: one thread, no warnings, and an end when the parent ends.

    A worker waits on queues whose writing end it holds itself, so it does not see by them that its parent was
    killed.
    """
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def tended_pools(module: ModuleType, processes: int) -> Iterator[None]:
    """Make the pools that a module of nnU-Net starts end with this process; one process becomes a thread."""

    def pool(count: int) -> Any:
        if processes == 1:
            return ThreadPool(1)
        return multiprocessing.get_context("spawn").Pool(count, initializer=begin_worker)

    original = vars(module)["multiprocessing"]
    stand_in = SimpleNamespace(get_context=lambda _: SimpleNamespace(Pool=pool))
    setattr(module, "multiprocessing", stand_in)  # noqa: B010 - mypy knows the module's own
    try:
        yield
    finally:
        setattr(module, "multiprocessing", original)  # noqa: B010


def in_processes(
    work: Callable[[str], None], case_ids: list[str], processes: int, place: Path
) -> Iterator[str]:
    """Yield each case when it is done; with one process or one case, nothing is started.

    Raises what `work` raises for the first case that fails, CohortError, which names the `place` that is
    worked on, if a process was killed.
    """
    if min(processes, len(case_ids)) <= 1:
        for case_id in case_ids:
            work(case_id)
            yield case_id
        return
    context = multiprocessing.get_context("spawn")
    workers = min(processes, len(case_ids))
    with ProcessPoolExecutor(workers, context, initializer=begin_worker) as pool:
        futures = {pool.submit(work, case_id): case_id for case_id in case_ids}
        try:
            for future in as_completed(futures):
                future.result()
                yield futures[future]
        except BrokenProcessPool as error:
            raise CohortError(
                f"{place}: a process that worked on its cases was killed, most likely for want of memory; "
                "give fewer with --processes and start again"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)
