"""Work on several studies where one that fails does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TypeVar

import typer

from petlesion.cli.console import progress, say
from petlesion.errors import PetlesionError

T = TypeVar("T")


@dataclass(frozen=True)
class Failures:
    """Which of `total` items failed, by name, and why."""

    total: int
    reasons: tuple[tuple[str, str], ...] = ()

    def end(self) -> None:
        """End the command: raises typer.Exit with status 1 if some items failed and 2 if all did."""
        if self.reasons:
            raise typer.Exit(2 if len(self.reasons) == self.total else 1)


def run_batch(what: str, items: Iterable[tuple[str, T]], work: Callable[[T], None]) -> None:
    """Call `work` for each (name, item), list what failed, and end as `Failures.end` does."""
    try_all(what, items, work).end()


def try_all(what: str, items: Iterable[tuple[str, T]], work: Callable[[T], None]) -> Failures:
    """Call `work` for each (name, item), list what failed, and return it.

    A single item shows no progress here, so that `work` can show its own.
    """
    items = list(items)
    reasons: list[tuple[str, str]] = []
    shown = progress(what, len(items)) if len(items) > 1 else nullcontext(_no_step)
    with shown as advance:
        for name, item in items:
            try:
                work(item)
            except PetlesionError as error:
                reasons.append((name, str(error)))
            advance()
    if reasons and len(items) > 1:
        say(f"{len(reasons)} of {len(items)} failed:")
    for name, reason in reasons:
        say(f"error: {reason}" if len(items) == 1 else f"  {name}: {reason}")
    return Failures(len(items), tuple(reasons))


def _no_step() -> None:
    pass
