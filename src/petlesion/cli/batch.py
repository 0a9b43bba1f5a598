"""Work on several studies where one that fails does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import TypeVar

import typer

from petlesion.cli.console import progress, say
from petlesion.errors import PetlesionError

T = TypeVar("T")


def run_batch(what: str, items: Iterable[tuple[str, T]], work: Callable[[T], None]) -> None:
    """Call `work` for each (name, item); list what failed at the end.

    A single item shows no progress here, so that `work` can show its own. Raises typer.Exit with status 1 if
    some failed and 2 if all did.
    """
    items = list(items)
    failures: list[tuple[str, PetlesionError]] = []
    shown = progress(what, len(items)) if len(items) > 1 else nullcontext(_no_step)
    with shown as advance:
        for name, item in items:
            try:
                work(item)
            except PetlesionError as error:
                failures.append((name, error))
            advance()
    if not failures:
        return
    if len(items) > 1:
        say(f"{len(failures)} of {len(items)} failed:")
    for name, failure in failures:
        say(f"error: {failure}" if len(items) == 1 else f"  {name}: {failure}")
    raise typer.Exit(2 if len(failures) == len(items) else 1)


def _no_step() -> None:
    pass
