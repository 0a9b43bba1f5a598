import errno
import os
import weakref
from collections.abc import Callable

import pytest
import typer

from petlesion.cli.batch import Failures, run_batch, try_all, try_overlapped
from petlesion.errors import StudyError

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out/a.csv")


def fail_on(error: Exception) -> Callable[[int], None]:
    def work(item: int) -> None:
        if item == 2:
            raise error

    return work


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (StudyError("b has no CT; give one"), "b has no CT; give one"),
        (FULL, "out/a.csv cannot be used (No space left on device); check the path and who may use it"),
        (MemoryError(), "there is too little memory for this; close other programs"),
    ],
)
def test_one_that_fails_is_told_in_one_sentence_and_the_others_are_done(
    capsys: pytest.CaptureFixture[str], error: Exception, told: str
) -> None:
    with pytest.raises(typer.Exit) as ended:
        run_batch("working", [("a", 1), ("b", 2), ("c", 3)], fail_on(error))
    assert ended.value.exit_code == 1
    assert capsys.readouterr().err.splitlines()[-2] == "1 of 3 failed:"
    failures = try_all("working", [("b", 2)], fail_on(error))
    assert failures.reasons[0][0] == "b" and failures.reasons[0][1].startswith(told)
    assert capsys.readouterr().err.startswith(f"error: {told}")


def test_a_fault_of_ours_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        run_batch("working", [("b", 2)], fail_on(ZeroDivisionError()))
    for part in ("prepare", "compute", "write"):
        with pytest.raises(ZeroDivisionError):
            overlapped({part: {"b": ZeroDivisionError()}}, [])


def overlapped(errors: dict[str, dict[str, Exception]], written: list[str]) -> Failures:
    """Work on a, b and c in three parts, of which some fail; `written` gets what is written."""

    def fail(part: str, name: str) -> None:
        if name in errors.get(part, {}):
            raise errors[part][name]

    def prepare(name: str) -> str:
        fail("prepare", name)
        return f"prepared {name}"

    def compute(name: str, prepared: str) -> Callable[[], None]:
        assert prepared == f"prepared {name}"
        fail("compute", name)

        def write() -> None:
            fail("write", name)
            written.append(name)

        return write

    return try_overlapped("working", [(name, name) for name in "abc"], prepare, compute)


@pytest.mark.parametrize("failing", ["a", "b", "c"])
@pytest.mark.parametrize("part", ["prepare", "compute", "write"])
def test_of_overlapping_work_each_part_fails_for_its_own_item(part: str, failing: str) -> None:
    written: list[str] = []
    failures = overlapped({part: {failing: FULL}}, written)
    assert failures.total == 3 and failures.errors == ((failing, FULL),)
    assert written == [name for name in "abc" if name != failing]


def test_failures_are_told_in_the_items_order() -> None:
    errors = {"write": {"a": FULL}, "compute": {"b": StudyError("b")}, "prepare": {"c": StudyError("c")}}
    assert [name for name, _ in overlapped(errors, []).errors] == ["a", "b", "c"]


def test_what_failed_keeps_nothing_of_the_study_in_memory() -> None:
    class Images:
        pass

    seen: list[weakref.ref[Images]] = []

    def work(name: str) -> None:
        images = Images()
        seen.append(weakref.ref(images))
        try:
            raise ValueError
        except ValueError as error:
            raise StudyError("no body is found") from error

    failures = try_all("working", [("a", "a")], work)
    assert failures.reasons == [("a", "no body is found")]
    assert seen[0]() is None


def test_what_could_not_be_written_leaves_memory_before_the_batch_ends() -> None:
    class Images:
        pass

    alive: list[weakref.ref[Images]] = []
    most = 0

    def compute(name: str, images: Images) -> Callable[[], None]:
        nonlocal most
        alive.append(weakref.ref(images))
        most = max(most, sum(image() is not None for image in alive))

        def write() -> None:
            assert images is not None
            raise FULL

        return write

    items = [(str(number), str(number)) for number in range(8)]
    failures = try_overlapped("working", items, lambda name: Images(), compute)
    assert len(failures.errors) == 8
    assert most <= 3  # the one that is computed, the one before and the one behind it
