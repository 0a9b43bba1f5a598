"""What a command shows: progress on a terminal and plain lines elsewhere, results as tables or JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[], None]]:
    """Yield a function to call after each of `total` steps; shows a bar on a terminal, lines elsewhere."""
    if sys.stderr.isatty():
        with _progress_bar(description, total) as advance:
            yield advance
    else:
        yield _progress_lines(description, total)


@contextmanager
def step(description: str) -> Iterator[None]:
    """Show on a terminal that a short step is under way; elsewhere a line would tell too late."""
    if not sys.stderr.isatty():
        yield
        return
    with _progress_bar(description, 1) as advance:
        yield
        advance()


@contextmanager
def _progress_bar(description: str, total: int) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=total)
        yield lambda: bar.advance(task)


def _progress_lines(description: str, total: int) -> Callable[[], None]:
    done = 0
    last_line = time.monotonic()

    def advance() -> None:
        nonlocal done, last_line
        done += 1
        if done == total or time.monotonic() - last_line >= _SECONDS_BETWEEN_LINES:
            last_line = time.monotonic()
            print(f"{description}: {done} of {total}", file=sys.stderr, flush=True)

    return advance


def say(sentence: str) -> None:
    """Tell the user a fact about the work, on standard error, so that standard output stays data."""
    print(sentence, file=sys.stderr, flush=True)


def print_json(data: Any) -> None:
    """Print data as JSON on standard output."""
    print(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on standard output, the first column flush left and the others flush right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    # A cut number is worse than a wrapped line.
    needed = Console(width=10_000).measure(table).maximum
    Console(width=max(Console().width, needed)).print(table)
