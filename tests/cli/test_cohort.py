import json
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from petlesion.cli.main import app
from petlesion.cohort import parallel
from petlesion.cohort.layout import Cohort
from petlesion.cohort.simulated import RECORD
from petlesion.errors import CohortError, OutputError, PetlesionError, UsageError
from petlesion.intake import find_studies
from petlesion.io.nifti import write_volume
from petlesion.simulation import dicom, study
from petlesion.simulation.masks import LIVER, LUNGS
from petlesion.volume import Volume
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
    (source,) = find_studies([tmp_path])
    assert source.kind == "dicom"
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.dcm")}
    assert runner.invoke(app, command).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.dcm")} == times


def simulate_at(output: Path, spacing: str, *more: str) -> PetlesionError | int:
    command = ["cohort", "simulate", "-n", "1", "--seed", "3", "--spacing", spacing, "-o", str(output), *more]
    result = runner.invoke(app, command)
    return result.exception if isinstance(result.exception, PetlesionError) else result.exit_code


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("more", [[], ["--dicom"]])
def test_studies_of_other_settings_are_not_taken_for_those_that_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    assert simulate_at(tmp_path / "c", "12", *more) == 0
    before = contents(tmp_path / "c")
    refusal = simulate_at(tmp_path / "c", "10", *more)
    assert isinstance(refusal, UsageError)
    assert "spacing_mm [12.0, 12.0, 12.0], not [10.0, 10.0, 10.0]" in str(refusal)
    monkeypatch.setattr(study, "__version__", "99")
    refusal = simulate_at(tmp_path / "c", "12", *more)
    assert isinstance(refusal, UsageError) and "petlesion" in str(refusal)
    (tmp_path / "c" / RECORD).unlink()
    del before[tmp_path / "c" / RECORD]
    assert simulate_at(tmp_path / "c", "10", *more) == 0
    assert contents(tmp_path / "c") == before


def test_bodies_are_simulated_around_organ_masks(tmp_path: Path) -> None:
    labels = np.zeros((90, 60, 80), np.uint8)
    labels[20:42, 20:45, 10:38], labels[46:85, 15:48, 10:70] = LIVER, LUNGS
    (tmp_path / "organs").mkdir()
    write_volume(tmp_path / "organs" / "a.nii.gz", Volume(labels, np.diag([4.0, 4.0, 4.0, 1.0])))
    organs = ["--organs", str(tmp_path / "organs")]
    assert simulate_at(tmp_path / "c", "12", *organs) == 0
    (case,) = Cohort.open(tmp_path / "c").cases
    # A body around masks is as long as they are.
    length_mm = Cohort.open(tmp_path / "c").read_study(case.case_id).pet.shape[0] * 12
    assert length_mm == pytest.approx(90 * 4, abs=24)
    assert "organs" in str(simulate_at(tmp_path / "c", "12"))


@pytest.mark.parametrize("more", [[], ["--dicom"]])
def test_nothing_is_simulated_for_a_place_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(study, "draw_patient", None)
    assert isinstance(simulate_at(tmp_path / "file" / "c", "12", *more), OutputError)


def test_a_dicom_folder_that_is_no_whole_study_is_not_taken_for_one(tmp_path: Path) -> None:
    folder = tmp_path / "simulated-3000000"
    folder.mkdir()
    assert simulate_at(tmp_path, "12", "--dicom") == 2
    folder.rmdir()
    assert simulate_at(tmp_path, "12", "--dicom") == 0
    (folder / "CT" / "0003.dcm").unlink()
    assert simulate_at(tmp_path, "12", "--dicom") == 2


def test_dicom_studies_are_made_as_many_at_a_time_as_there_are_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def pool(workers: int) -> Executor:
        asked.append(workers)
        return ThreadPoolExecutor(workers)

    monkeypatch.setattr(parallel, "_pool", pool)
    monkeypatch.setattr(dicom, "simulate_dicom", lambda output, settings, seed: (output / str(seed)).mkdir())
    command = ["cohort", "simulate", "-n", "6", "--spacing", "12", "--dicom", "--workers", "2"]
    result = runner.invoke(app, [*command, "-o", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert asked == [2]
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == set("012345")


@pytest.mark.parametrize(
    "extra",
    [
        ["--spacing", "99"],
        ["--spacing", "1"],
        ["--organs", "absent"],
        ["--name", "no name"],
        ["--dicom", "--name", "Dataset001_A"],
    ],
)
def test_simulate_refuses_what_cannot_be(tmp_path: Path, extra: list[str]) -> None:
    result = runner.invoke(app, ["cohort", "simulate", "-n", "1", "-o", str(tmp_path / "c"), *extra])
    assert isinstance(result.exception, PetlesionError) or result.exit_code == 2
    assert not (tmp_path / "c").exists()
