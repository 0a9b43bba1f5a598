"""Work on several studies where one that fails does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import typer

from petlesion.cli.console import progress, say
from petlesion.errors import PetlesionError

if TYPE_CHECKING:
    from concurrent.futures import Future

T = TypeVar("T")
P = TypeVar("P")

EXPECTED = (PetlesionError, OSError, MemoryError)
"""What may end a piece of work and is told in one sentence; anything else is a fault of petlesion."""


def in_one_sentence(error: Exception) -> str:
    """What an expected error says to the user: the file, the reason and the remedy."""
    if isinstance(error, MemoryError):
        return "there is too little memory for this; close other programs or take a machine with more"
    if isinstance(error, OSError):
        place = error.filename or "a file"
        return f"{place} cannot be used ({error.strerror or error}); check the path and who may use it"
    return str(error)


@dataclass(frozen=True)
class Failures:
    """Which of `total` items failed, by name, and of what."""

    total: int
    errors: tuple[tuple[str, Exception], ...] = ()

    @property
    def reasons(self) -> list[tuple[str, str]]:
        """What failed, by name, and why, in one sentence each."""
        return [(name, in_one_sentence(error)) for name, error in self.errors]

    def end(self) -> None:
        """End the command: raises typer.Exit with status 1 if some items failed and 2 if all did."""
        if self.errors:
            raise typer.Exit(2 if len(self.errors) == self.total else 1)


def run_batch(what: str, items: Iterable[tuple[str, T]], work: Callable[[T], None]) -> None:
    """Call `work` for each (name, item), list what failed, and end as `Failures.end` does."""
    try_all(what, items, work).end()


def try_all(what: str, items: Iterable[tuple[str, T]], work: Callable[[T], None]) -> Failures:
    """Call `work` for each (name, item), list what failed, and return it.

    A single item shows no progress here, so that `work` can show its own.
    """
    items = list(items)
    errors: list[tuple[str, Exception]] = []
    with _shown(what, len(items)) as advance:
        for name, item in items:
            try:
                work(item)
            except EXPECTED as error:
                errors.append((name, _without_frames(error)))
            advance()
    return _told(Failures(len(items), tuple(errors)))


def try_overlapped(
    what: str,
    items: Sequence[tuple[str, T]],
    prepare: Callable[[T], P],
    compute: Callable[[T, P], Callable[[], None]],
) -> Failures:
    """As `try_all`; while one item is computed, the next is prepared and the last is written.

    `compute` takes an item and what `prepare` made of it, and returns what writes the result.
    """
    from petlesion.inference.overlap import Overlap

    errors: dict[int, Exception] = {}
    writings: dict[int, Future[Exception | None]] = {}
    with _shown(what, len(items)) as advance, Overlap([item for _, item in items], prepare) as overlap:
        for index, (_, item) in enumerate(items):
            try:
                writings[index] = overlap.write(partial(_failure_of, compute(item, overlap.take(index))))
            except EXPECTED as error:
                errors[index] = _without_frames(error)
            advance()
    for index, writing in writings.items():
        if (failure := writing.result()) is not None:
            errors[index] = failure
    told = tuple((items[index][0], errors[index]) for index in sorted(errors))
    return _told(Failures(len(items), told))


def _failure_of(work: Callable[[], None]) -> Exception | None:
    """What a piece of work failed of, without the frames that hold its images."""
    try:
        work()
    except EXPECTED as error:
        return _without_frames(error)
    return None


def _shown(what: str, total: int) -> AbstractContextManager[Callable[[], None]]:
    return progress(what, total) if total > 1 else nullcontext(_no_step)


def _without_frames(error: Exception) -> Exception:
    """The error without the frames that it came through, which hold a study's images in memory."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _told(failures: Failures) -> Failures:
    """Say what failed."""
    alone = failures.total == 1
    if failures.errors and not alone:
        say(f"{len(failures.errors)} of {failures.total} failed:")
    for name, reason in failures.reasons:
        say(f"error: {reason}" if alone else f"  {name}: {reason}")
    return failures


def _no_step() -> None:
    pass
