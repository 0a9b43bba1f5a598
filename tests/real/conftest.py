"""A small training on real studies that was killed in the middle and started again, made once."""

import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from petlesion.cli.main import app
from petlesion.cohort.layout import Cohort
from tests.training.test_trainer import wait_until

STUDIES = ("STS_001", "STS_004", "STS_024", "STS_034")
EPOCHS = 3
_SETTINGS = (f"epochs={EPOCHS}", "iterations=8", "base_features=4", "max_features=16")


@dataclass(frozen=True)
class KilledTraining:
    """Its fold's folder, progress.jsonl as the kill left it, and the groups of both runs' processes."""

    fold_folder: Path
    epochs_before: list[dict[str, Any]]
    process_groups: tuple[int, int]


@pytest.fixture(scope="session")
def sarcomas(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Four real studies in two folds, without a test set."""
    place = tmp_path_factory.mktemp("sarcomas")
    (place / "sts").mkdir()
    for name in STUDIES:
        (place / "sts" / name).symlink_to(real_data / "sts" / name)
    folder = str(place / "Dataset011_Sarcoma")
    build = ["cohort", "build", str(place / "sts"), "-o", folder]
    for command in (build, ["cohort", "split", folder, "--test-share", "0", "--folds", "2"]):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
    return Cohort.open(folder)


@pytest.fixture(scope="session")
def killed_training(sarcomas: Cohort, tmp_path_factory: pytest.TempPathFactory) -> KilledTraining:
    results = tmp_path_factory.mktemp("results")
    command = [sys.executable, "-m", "petlesion", "train", str(sarcomas.folder), "-e", "quick", "-f", "0"]
    command += ["-o", str(results), "--device", "cpu", "--precision", "float32", "--processes", "1"]
    command += [word for setting in _SETTINGS for word in ("--set", setting)]
    folder = results / sarcomas.name / "quick__nnUNetPlans__3d_fullres" / "fold_0"
    first = _start(command)
    wait_until(lambda: (folder / "checkpoint_latest.pth").exists() or first.poll() is not None, 120)
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    lines = (folder / "progress.jsonl").read_text().splitlines()
    second = _start(command)
    assert second.wait() == 0
    return KilledTraining(folder, [json.loads(line) for line in lines], (first.pid, second.pid))


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    """Start it as the head of a group of processes, to which all belong that it starts itself."""
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
