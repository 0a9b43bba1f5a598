import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from petlesion.cli.main import app
from petlesion.cohort.layout import Cohort
from petlesion.errors import CohortError, PetlesionError
from petlesion.intake import find_studies
from tests.cohort.trees import hecktor_tree, small_cohort, small_study, write_study

runner = CliRunner()


def test_build_split_and_check(tmp_path: Path) -> None:
    for number in range(6):
        write_study(tmp_path / "clinic" / f"S{number}", small_study(number, lesions=number > 2))
    hecktor = hecktor_tree(tmp_path / "h", ("CHUM-001",))
    folder = tmp_path / "Dataset009_Both"
    built = runner.invoke(
        app, ["cohort", "build", str(tmp_path / "clinic"), f"hecktor={hecktor}", "-o", str(folder)]
    )
    assert built.exit_code == 0, built.output
    split = runner.invoke(app, ["cohort", "split", str(folder), "--folds", "3", "--json"])
    assert split.exit_code == 0, split.output
    parts = json.loads(split.stdout)
    assert [part["name"] for part in parts] == ["training", "fold 0", "fold 1", "fold 2", "test"]
    assert sum(part["studies"] for part in parts[1:]) == 7
    checked = runner.invoke(app, ["cohort", "check", str(folder), "--json"])
    assert checked.exit_code == 0, checked.output
    assert json.loads(checked.stdout) == {"cohort": "Dataset009_Both", "cases": 7, "problems": []}
    held = runner.invoke(
        app, ["cohort", "split", str(folder), "--hold-out-source", "hecktor", "--folds", "2"]
    )
    assert held.exit_code == 0 and "test" in held.stdout
    assert [case.source for case in Cohort.open(folder).test_cases] == ["hecktor"]


def test_one_bad_study_fails_alone(tmp_path: Path) -> None:
    for name in ("good", "bad"):
        write_study(tmp_path / "in" / name, small_study())
    (tmp_path / "in" / "bad" / "SEG.nii.gz").unlink()
    result = runner.invoke(app, ["cohort", "build", str(tmp_path / "in"), "-o", str(tmp_path / "c")])
    assert result.exit_code == 1
    assert "1 of 2 failed" in result.stderr and "bad: no reference mask" in result.stderr
    assert [case.case_id for case in Cohort.open(tmp_path / "c").cases] == ["good"]


def test_nothing_usable_is_status_2_and_leaves_nothing(tmp_path: Path) -> None:
    write_study(tmp_path / "in" / "bad", small_study())
    (tmp_path / "in" / "bad" / "SEG.nii.gz").unlink()
    result = runner.invoke(app, ["cohort", "build", str(tmp_path / "in"), "-o", str(tmp_path / "c")])
    assert result.exit_code == 2
    (tmp_path / "empty").mkdir()
    result = runner.invoke(app, ["cohort", "build", str(tmp_path / "empty"), "-o", str(tmp_path / "c")])
    assert isinstance(result.exception, CohortError)
    assert not (tmp_path / "c").exists()


def test_check_lists_problems_with_status_1(tmp_path: Path) -> None:
    cohort = small_cohort(tmp_path / "c", 2)
    cohort.label_path("case-1").unlink()
    result = runner.invoke(app, ["cohort", "check", str(cohort.folder)])
    assert result.exit_code == 1
    assert "case-1.nii.gz: missing" in result.stdout
    listed = json.loads(runner.invoke(app, ["cohort", "check", str(cohort.folder), "--json"]).stdout)
    assert [problem["case_id"] for problem in listed["problems"]] == ["case-1"]


def test_simulate_adds_what_is_missing_and_repeats_its_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    command = ["cohort", "simulate", "-n", "2", "--seed", "3", "--spacing", "9", "-o", str(folder)]
    result = runner.invoke(app, command)
    assert result.exit_code == 0, result.output
    cohort = Cohort.open(folder)
    assert [case.case_id for case in cohort.cases] == ["simulated-3000000", "simulated-3000001"]
    before = {path: path.read_bytes() for path in folder.rglob("*.gz")}
    times = {path: path.stat().st_mtime_ns for path in cohort.paths("simulated-3000000")}
    cohort.label_path("simulated-3000001").unlink()
    assert runner.invoke(app, command).exit_code == 0
    assert {path: path.read_bytes() for path in folder.rglob("*.gz")} == before
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert runner.invoke(app, ["cohort", "check", str(folder)]).exit_code == 0


def test_simulate_dicom_studies(tmp_path: Path) -> None:
    command = ["cohort", "simulate", "-n", "1", "--spacing", "12", "--dicom", "-o", str(tmp_path)]
    result = runner.invoke(app, command)
    assert result.exit_code == 0, result.output
    (source,) = find_studies([tmp_path / "simulated-0000000"])
    assert source.kind == "dicom"
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.dcm")}
    assert runner.invoke(app, command).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.dcm")} == times


@pytest.mark.parametrize(
    "extra",
    [
        ["--spacing", "99"],
        ["--organs", "absent"],
        ["--name", "no name"],
        ["--dicom", "--name", "Dataset001_A"],
    ],
)
def test_simulate_refuses_what_cannot_be(tmp_path: Path, extra: list[str]) -> None:
    result = runner.invoke(app, ["cohort", "simulate", "-n", "1", "-o", str(tmp_path / "c"), *extra])
    assert isinstance(result.exception, PetlesionError) or result.exit_code == 2
    assert not (tmp_path / "c").exists()
