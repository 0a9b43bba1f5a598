"""Work on cases in processes of their own."""

import os
from pathlib import Path

import pytest

from petlesion.errors import CohortError
from petlesion.training.processes import in_processes


def end(case_id: str) -> None:
    os._exit(9)


def test_a_killed_process_is_told_in_a_sentence() -> None:
    with pytest.raises(CohortError, match=r"cohort: .* was killed, .*; give fewer with --processes"):
        list(in_processes(end, ["a", "b"], 2, Path("cohort")))


def test_one_process_works_here() -> None:
    done: list[str] = []
    assert list(in_processes(done.append, ["a", "b"], 1, Path("cohort"))) == done == ["a", "b"]
