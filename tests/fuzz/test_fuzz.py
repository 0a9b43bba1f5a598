"""A short run of what `make fuzz` does at length, and what it found before."""

import signal
from pathlib import Path

import pytest

from petlesion.errors import PetlesionError
from tests.fuzz.corpus import KINDS, write_corpus
from tests.fuzz.run import _too_long, check, read_all

# Seeds that once ended otherwise than they must; each is run again.
FOUND: tuple[int, ...] = ()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_corpus_itself_is_sound(corpus: dict[str, Path], kind: str) -> None:
    assert read_all(corpus[kind]) == "success"


@pytest.mark.parametrize("first", range(0, 270, 27))
def test_spoilt_files_end_in_success_or_a_typed_error(
    corpus: dict[str, Path], tmp_path: Path, first: int
) -> None:
    former = signal.signal(signal.SIGALRM, _too_long)
    try:
        for seed in range(first, first + 27):
            _, problem = check(seed, corpus, tmp_path)
            assert problem is None, f"seed {seed}: {problem}"
    finally:
        signal.signal(signal.SIGALRM, former)


def test_what_is_raised_is_of_one_tree() -> None:
    assert issubclass(PetlesionError, Exception)
