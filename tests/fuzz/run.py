"""The long run: `python -m tests.fuzz.run [--count 10000] [--seed 0] [--workers 2]`, or `make fuzz`.

Each input is a study of the corpus with one file spoilt. It has to end within 5 s and 1 GB, in success or in
a PetlesionError. What does not is printed with its seed: `python -m tests.fuzz.run --seed SEED --count 1`.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from petlesion.errors import PetlesionError
from petlesion.intake import find_studies, read_source, to_study
from tests.fuzz.corpus import KINDS, write_corpus
from tests.fuzz.mutations import spoil

SECONDS = 5.0
KILOBYTES = 2**20
_BLOCK = 200


class TooLongError(BaseException):
    """An input took too long; no PetlesionError and no Exception, so that nothing swallows it."""


def make_input(seed: int, corpus: dict[str, Path], folder: Path) -> str:
    """Copy a study of the corpus to `folder` and spoil one of its files; returns its kind."""
    chance = random.Random(seed)
    kind = KINDS[seed % len(KINDS)]
    shutil.copytree(corpus[kind], folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    # The rare kinds of object get their share beside the many slices.
    special = [path for path in files if path.parent == folder]
    spoil(chance.choice(special if special and chance.random() < 0.5 else files), chance)
    return kind


def read_all(folder: Path) -> str:
    """Read what is in a folder as far as it goes; returns how it ended."""
    try:
        sources = find_studies([folder])
    except PetlesionError as error:
        return type(error).__name__
    ends = []
    for source in sources:
        try:
            to_study(read_source(source))
            ends.append("success")
        except PetlesionError as error:
            ends.append(type(error).__name__)
    return ", ".join(sorted(set(ends)))


def check(seed: int, corpus: dict[str, Path], folder: Path) -> tuple[str, str | None]:
    """Run one input; returns how it ended and, if that is not as it must be, why."""
    target = folder / "input"
    make_input(seed, corpus, target)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        end, problem = read_all(target), None
    except TooLongError:
        end, problem = "too long", f"took more than {SECONDS:g} s"
    except BaseException:
        end, problem = "untyped", traceback.format_exc(limit=-4)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        shutil.rmtree(target)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if problem is None and (grown > KILOBYTES or time.monotonic() - start > SECONDS):
        problem = f"took {time.monotonic() - start:.1f} s and {grown / 2**20:.2f} GB"
    return end, problem


def _work(first: int, last: int) -> None:
    signal.signal(signal.SIGALRM, too_long)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = write_corpus(folder / "corpus")
        for seed in range(first, last):
            print(json.dumps({"begun": seed}), flush=True)
            end, problem = check(seed, corpus, folder)
            print(json.dumps({"seed": seed, "end": end, "problem": problem}), flush=True)


def too_long(_: int, __: FrameType | None) -> None:
    raise TooLongError


def _run_block(first: int, last: int) -> Iterator[tuple[str, str | None]]:
    """Run seeds in a process of their own, and go on after one that kills it."""
    while first < last:
        command = [sys.executable, "-m", "tests.fuzz.run", "--worker", str(first), str(last)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        begun = first
        for line in result.stdout.splitlines():
            told = json.loads(line)
            if "begun" in told:
                begun = told["begun"]
            else:
                problem = told["problem"] and f"seed {told['seed']}: {told['problem']}"
                yield told["end"], problem
        if result.returncode == 0:
            return
        yield "crash", f"seed {begun}: the process died ({result.returncode})\n{result.stderr[-2000:]}"
        first = begun + 1


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="the first input")
    parser.add_argument("--worker", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        _work(*arguments.worker)
        return 0
    ends: Counter[str] = Counter()
    problems = []
    last = arguments.seed + arguments.count
    for first in range(arguments.seed, last, _BLOCK):
        for end, problem in _run_block(first, min(first + _BLOCK, last)):
            ends[end] += 1
            if problem:
                problems.append(problem)
                print(problem, flush=True)
        print(
            f"{min(first + _BLOCK, last) - arguments.seed} of {arguments.count}", file=sys.stderr, flush=True
        )
    for end, count in ends.most_common():
        print(f"{count:8} {end}")
    print(f"{len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
