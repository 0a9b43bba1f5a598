"""A short run of what `make fuzz` does at length, and what it found before."""

import signal
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.fuzz.corpus import KINDS, write_corpus
from tests.fuzz.run import check, read_all, too_long

# What once ended otherwise than it must: a quaternion that is not finite, a zip of a member of zeros.
FOUND = (20049, 122)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def run(corpus: dict[str, Path], folder: Path, seeds: Iterable[int]) -> None:
    former = signal.signal(signal.SIGALRM, too_long)
    try:
        for seed in seeds:
            _, problem = check(seed, corpus, folder)
            assert problem is None, f"seed {seed}: {problem}"
    finally:
        signal.signal(signal.SIGALRM, former)


@pytest.mark.parametrize("kind", KINDS)
def test_the_corpus_itself_is_sound(corpus: dict[str, Path], kind: str) -> None:
    assert read_all(corpus[kind]) == "success"


@pytest.mark.parametrize("first", range(0, 270, 27))
def test_spoilt_files_end_in_success_or_a_typed_error(
    corpus: dict[str, Path], tmp_path: Path, first: int
) -> None:
    run(corpus, tmp_path, range(first, first + 27))


@pytest.mark.parametrize("seed", FOUND)
def test_what_was_found_before_stays_mended(corpus: dict[str, Path], tmp_path: Path, seed: int) -> None:
    run(corpus, tmp_path, [seed])
