"""The commands train, plan and experiment, as they are typed."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from petlesion.cli.main import app
from petlesion.cli.train import describe, parse_folds
from petlesion.errors import ExperimentError, FormatError, UsageError
from petlesion.experiments import EXPERIMENTS
from petlesion.training.trainer import EpochReport
from tests.training.conftest import make_cohort
from tests.training.test_planning import DATASET, whole_body_fingerprint

RUNNER = CliRunner()
TINY = ["epochs=2", "iterations=2", "patch_size=16", "base_features=4", "max_features=8"]


def sets(*changes: str) -> list[str]:
    return [word for change in changes for word in ("--set", change)]


def test_every_fold_is_trained_and_told(tmp_path: Path) -> None:
    cohort = make_cohort(tmp_path / "cohort")
    arguments = ["train", str(cohort.folder), "-e", "quick", "-o", str(tmp_path / "results")]
    arguments += ["--device", "cpu", "--processes", "1", "--precision", "float32", *sets(*TINY)]
    result = RUNNER.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert "preprocessing: 4 of 4" in result.stderr
    for fold in (0, 1):
        assert f"fold {fold}: cpu, float32, not compiled" in result.stderr
        line = (
            rf"quick, fold {fold}: epoch 2 of 2, loss -?\d\.\d+, validation .*Dice .*% waited, 00:00:00 left"
        )
        assert re.search(line, result.stderr)
        run = tmp_path / "results" / "Dataset001_Tiny" / "quick__nnUNetPlans__3d_fullres"
        assert (run / f"fold_{fold}" / "checkpoint_final.pth").exists()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["-e", "z"], ExperimentError, "no experiment 'z'"),
        (["-e", "b", "--set", "epochs=none"], ExperimentError, "not a whole number"),
        (["-e", "b", "--precision", "float16"], ExperimentError, "auto or float32 or bfloat16"),
        (["-e", "b", "--precision", "float32", "--set", "precision=auto"], UsageError, "not both"),
        (["-e", "b", "--set", "patch_size=33"], ExperimentError, "not all of them odd"),
        (["-e", "b", "-f", "first"], UsageError, "no list of folds"),
        (["-e", "b", "-f", "0,9"], UsageError, "there is no fold 9"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_done(
    arguments: list[str], error: type[Exception], message: str, tmp_path: Path
) -> None:
    cohort = make_cohort(tmp_path / "cohort")
    result = RUNNER.invoke(app, ["train", str(cohort.folder), "-o", str(tmp_path / "results"), *arguments])
    assert isinstance(result.exception, error)
    assert message in str(result.exception)
    assert not (tmp_path / "results").exists()


def test_folds_are_a_list_or_all() -> None:
    assert parse_folds("0,2", 5) == [0, 2]
    assert parse_folds("all", 3) == [0, 1, 2]


def test_an_epoch_in_one_line() -> None:
    report = EpochReport(0, 9, -0.5, -0.25, None, None, 0.01, 61.25, 0.034, 100_000.0)
    assert describe(report) == (
        "loss -0.500, validation -0.250, Dice undefined, 61.2 s, 3% waited, 1 d 03:46:40 left"
    )


def test_a_plan_of_a_fingerprint_alone(tmp_path: Path) -> None:
    (tmp_path / "fingerprint.json").write_text(json.dumps(whole_body_fingerprint()))
    (tmp_path / "dataset.json").write_text(json.dumps(DATASET))
    arguments = ["plan", "--fingerprint", str(tmp_path / "fingerprint.json")]
    arguments += ["--dataset", str(tmp_path / "dataset.json"), "-o", str(tmp_path / "plans.json")]
    result = RUNNER.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "128×128×128" in result.stderr
    plans = json.loads((tmp_path / "plans.json").read_text())
    assert plans["configurations"]["3d_fullres"]["patch_size"] == [128, 128, 128]


@pytest.mark.parametrize(
    "arguments", [[], ["--fingerprint", "f.json"], ["cohort", "--fingerprint", "f.json"]]
)
def test_a_plan_needs_a_cohort_or_both_files(arguments: list[str]) -> None:
    assert isinstance(RUNNER.invoke(app, ["plan", *arguments]).exception, UsageError)


def test_a_fingerprint_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text("[1]")
    (tmp_path / "d.json").write_text(json.dumps(DATASET))
    arguments = ["plan", "--fingerprint", str(tmp_path / "f.json"), "--dataset", str(tmp_path / "d.json")]
    error = RUNNER.invoke(app, arguments).exception
    assert isinstance(error, FormatError)
    assert "f.json" in str(error)


def test_experiments_are_listed() -> None:
    table = RUNNER.invoke(app, ["experiment", "list"]).stdout
    assert all(name in table for name in EXPERIMENTS)
    for title in ("oversampling", "loss", "input", "dice_ce", "ct-pet"):
        assert title in table
    rows = json.loads(RUNNER.invoke(app, ["experiment", "list", "--json"]).stdout)
    assert [row["name"] for row in rows] == list(EXPERIMENTS)


def test_one_experiment_is_shown_with_sources() -> None:
    table = RUNNER.invoke(app, ["experiment", "show", "b", "--set", "epochs=20"]).stdout
    assert re.search(r"epochs\s+20\s+set for this run", table)
    assert re.search(r"mirroring\s+no\s+Table 2", table)
    assert re.search(r"batch_dice\s+planned\s", table)
    assert re.search(r"initial_weights\s+none\s", table)
    assert re.search(r"network\s+nnU-Net's PlainConvUNet.*Table 1", table)
    shown = json.loads(RUNNER.invoke(app, ["experiment", "show", "d", "--json"]).stdout)
    assert shown["experiment"]["patch_size"] == [192, 192, 192]
    assert shown["table_1"]["momentum of sgd"].startswith("0.99")
