"""Reading, computing and writing of successive studies at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import Any, Generic, TypeVar

T = TypeVar("T")
P = TypeVar("P")
W = TypeVar("W")


class Overlap(Generic[T, P]):
    """Writes the last item and then prepares the next one while its user computes the current one.

    One after the other, so that no more than two items are in memory. As a context it waits at its end until
    all is written, unless it was interrupted (Ctrl-C): the threads are daemons.
    """

    def __init__(self, items: Sequence[T], prepare: Callable[[T], P]) -> None:
        self._items = items
        self._prepare = prepare
        self._ahead: tuple[int, Future[P]] | None = None
        self._writing: Future[Any] | None = None

    def __enter__(self) -> Overlap[T, P]:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or issubclass(kind, Exception):
            self.finish()

    def take(self, index: int) -> P:
        """What `prepare` makes of an item; the next one follows. Raises what `prepare` raised."""
        if self._ahead is not None and self._ahead[0] == index:
            current = self._ahead[1]
        else:
            current = self._begin(index)
        try:
            return current.result()
        finally:
            following = index + 1
            self._ahead = (following, self._begin(following)) if following < len(self._items) else None

    def write(self, write: Callable[[], W]) -> Future[W]:
        """Begin to write, once what was begun before has ended; the future holds what comes of it."""
        self.finish()
        writing = _in_background(write)
        self._writing = writing
        return writing

    def finish(self) -> None:
        """Wait until nothing is being written."""
        if self._writing is not None:
            wait([self._writing])

    def _begin(self, index: int) -> Future[P]:
        writing = [] if self._writing is None else [self._writing]

        def work() -> P:
            wait(writing)
            return self._prepare(self._items[index])

        return _in_background(work)


def _in_background(work: Callable[[], T]) -> Future[T]:
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
