import errno
import os
from collections.abc import Callable

import pytest
import typer

from petlesion.cli.batch import run_batch, try_all
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
