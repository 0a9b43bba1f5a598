"""Work on several studies where one that fails does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import typer

from petlesion.cli.console import progress, say
from petlesion.errors import PetlesionError

T = TypeVar("T")


def run_batch(what: str, items: Iterable[tuple[str, T]], work: Callable[[T], None]) -> None:
    """Call `work` for each (name, item); list what failed at the end.

    Raises typer.Exit with status 1 if some failed and 2 if all did.
    """
    items = list(items)
    failures: list[tuple[str, PetlesionError]] = []
    with progress(what, len(items)) as advance:
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
