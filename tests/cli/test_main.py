"""How commands end: the exit status and what is told, as the shell sees it."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from petlesion.cli.main import main
from petlesion.cohort.layout import Cohort
from petlesion.io.nifti import write_volume
from petlesion.volume import Volume
from tests.conftest import make_phantom
from tests.training.conftest import make_cohort
from tests.training.test_planning import DATASET, whole_body_fingerprint

Call = Callable[..., tuple[int, str]]


@pytest.fixture
def petlesion(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["petlesion", *map(str, arguments)])
        monkeypatch.setattr("petlesion.cli.main.os._exit", sys.exit)
        with pytest.raises(SystemExit) as stopped:
            main()
        return int(stopped.value.code or 0), capsys.readouterr().err

    return call


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a file, a folder, a mask and a study in it."""
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    mask = np.zeros((4, 5, 6), bool)
    mask[1, 2, 3] = True
    write_volume(tmp_path / "masks" / "a.nii.gz", Volume(mask, np.eye(4)))
    study = make_phantom()
    assert study.ct is not None
    write_volume(tmp_path / "study" / "PET.nii.gz", study.pet)
    write_volume(tmp_path / "study" / "CT.nii.gz", study.ct)
    return tmp_path


@pytest.mark.parametrize(
    ("command", "output"),
    [
        (["segment", "study", "-m", "no-model"], "file"),
        (["segment", "study", "-m", "no-model"], "file/deep"),
        (["convert", "study"], "file"),
        (["convert", "study"], "/proc/nope"),
        (["evaluate", "masks", "masks"], "file/metrics.csv"),
        (["evaluate", "masks", "masks"], "folder"),
        (["experiment", "figure", "masks", "masks"], "file/figure.png"),
        (["postprocess", "masks", "--min-size", "2"], "file/deep"),
        (["cohort", "simulate", "-n", "1", "--spacing", "12"], "file"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else value.replace("/", "-"),
)
def test_an_output_that_cannot_be_written_ends_in_one_sentence(
    petlesion: Call, place: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], output: str
) -> None:
    monkeypatch.chdir(place)
    status, told = petlesion(*command, "-o", output)
    assert status == 2
    (sentence,) = [line for line in told.splitlines() if line.startswith("error: ")]
    assert output.split("/")[-1] in sentence or "file" in sentence
    assert not [path for path in place.rglob("*") if "partial" in path.name]


def test_a_plan_and_a_run_that_cannot_be_written(petlesion: Call, place: Path) -> None:
    (place / "f.json").write_text(json.dumps(whole_body_fingerprint()))
    (place / "d.json").write_text(json.dumps(DATASET))
    files = ["--fingerprint", place / "f.json", "--dataset", place / "d.json"]
    status, told = petlesion("plan", *files, "-o", place / "file" / "plans.json")
    assert status == 2 and told.startswith(f"error: {place / 'file' / 'plans.json'} cannot be written")
    cohort = make_cohort(place / "cohort").folder
    status, told = petlesion("train", cohort, "-e", "quick", "-o", place / "file")
    assert status == 2 and f"error: {place / 'file'}" in told and "Traceback" not in told


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (OSError(errno.EIO, os.strerror(errno.EIO), "a/file"), 2, "error: a/file cannot be used (Input"),
        (MemoryError(), 2, "error: there is too little memory"),
        (KeyboardInterrupt(), 130, ""),
    ],
    ids=["OSError", "MemoryError", "KeyboardInterrupt"],
)
def test_what_nobody_caught_ends_in_one_sentence_at_most(
    petlesion: Call, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, told: str
) -> None:
    def fail(folder: Path) -> Cohort:
        raise error

    monkeypatch.setattr(Cohort, "open", fail)
    found, text = petlesion("cohort", "check", "somewhere")
    assert found == status and text.startswith(told) and len(text.splitlines()) == bool(told)


STOPPED_BESIDE_WORK = """
import sys, threading, time
from petlesion.cli.main import main
from petlesion.cohort.layout import Cohort

def stopped(folder):
    threading.Thread(target=time.sleep, args=(600,)).start()
    raise KeyboardInterrupt

Cohort.open = stopped
sys.argv = ["petlesion", "cohort", "check", "somewhere"]
main()
"""


def test_ctrl_c_does_not_wait_for_what_computes() -> None:
    ended = subprocess.run([sys.executable, "-c", STOPPED_BESIDE_WORK], timeout=60, capture_output=True)
    assert ended.returncode == 130
