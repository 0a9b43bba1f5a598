import threading

import pytest

from petlesion.inference.overlap import Overlap


def test_the_last_is_written_and_then_the_next_prepared_meanwhile() -> None:
    prepared = [threading.Event() for _ in range(3)]
    written: list[int] = []
    wait_for_write = threading.Event()

    def prepare(item: int) -> int:
        prepared[item].set()
        return item * 10

    def write(item: int) -> None:
        assert wait_for_write.wait(5)
        written.append(item)

    overlap = Overlap(range(3), prepare)
    assert overlap.take(0) == 0
    assert prepared[1].wait(5)
    assert not prepared[2].is_set()
    overlap.write(lambda: write(0))
    assert overlap.take(1) == 10
    assert written == []
    assert not prepared[2].wait(0.1)
    wait_for_write.set()
    assert prepared[2].wait(5)
    overlap.write(lambda: write(1))
    assert written[:1] == [0]
    overlap.finish()
    assert written == [0, 1]


def test_an_item_that_fails_does_not_stop_the_next() -> None:
    def prepare(item: int) -> int:
        if item == 1:
            raise ValueError("bad item")
        return item

    overlap = Overlap(range(3), prepare)
    assert overlap.take(0) == 0
    with pytest.raises(ValueError, match="bad item"):
        overlap.take(1)
    assert overlap.take(2) == 2


def test_its_end_waits_for_the_writing_unless_it_is_interrupted() -> None:
    for error in (ValueError, KeyboardInterrupt):
        go_on, written = threading.Event(), threading.Event()

        def write(go_on: threading.Event = go_on, written: threading.Event = written) -> None:
            go_on.wait(5)
            written.set()

        if error is ValueError:
            threading.Timer(0.1, go_on.set).start()
        with pytest.raises(error), Overlap(range(1), int) as overlap:
            overlap.write(write)
            raise error
        assert written.is_set() == (error is ValueError)
        go_on.set()


def test_a_failed_writing_is_its_own_and_does_not_stop_the_next() -> None:
    def write() -> None:
        raise OSError("disk full")

    overlap = Overlap(range(2), lambda item: item)
    failed = overlap.write(write)
    written = overlap.write(lambda: None)
    overlap.finish()
    assert written.result() is None
    with pytest.raises(OSError, match="disk full"):
        failed.result()
