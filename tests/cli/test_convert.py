import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from petlesion.cli.main import app
from petlesion.io.nifti import read_volume, write_volume
from tests.conftest import make_phantom
from tests.dicom.builders import ROOT, body_images, ct_spec, pet_spec, structure_set, write_series

RUNNER = CliRunner()


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    pet, ct = body_images()
    write_series(folder / "pet", pet, pet_spec())
    write_series(folder / "ct", ct, ct_spec(spacing=(4.0, 4.0, 4.5)))
    corners = np.array([(9.5, 7.5, 4), (13.5, 7.5, 4), (13.5, 12.5, 4), (9.5, 12.5, 4)]) * 4.0
    contours = {"GTV": [corners + pet_spec().origin]}
    structure_set(contours, pet_spec()).save_as(folder / "rs.dcm", enforce_file_format=True)
    return folder


def test_convert_writes_what_the_study_has(study: Path, tmp_path: Path) -> None:
    result = RUNNER.invoke(app, ["convert", str(study), "-o", str(tmp_path / "out"), "--json"])
    assert result.exit_code == 0, result.output
    (folder,) = (tmp_path / "out").iterdir()
    assert {path.name for path in folder.iterdir()} == {
        "SUV.nii.gz",
        "CT.nii.gz",
        "CTres.nii.gz",
        "SEG.nii.gz",
        "conversion.json",
    }
    pet, ct = body_images()
    suv = read_volume(folder / "SUV.nii.gz")
    np.testing.assert_allclose(suv.array, pet * 0.01, rtol=1e-6)
    np.testing.assert_array_equal(read_volume(folder / "CT.nii.gz").array, ct.astype(int) - 1024)
    assert read_volume(folder / "CTres.nii.gz").grid.matches(suv.grid)
    assert read_volume(folder / "SEG.nii.gz").array.sum() == 20
    record = json.loads((folder / "conversion.json").read_text())
    assert record["factors"] == [1.0] * len(pet) and record["derived_from"]["units"] == "GML"
    assert json.loads(result.stdout)[0]["study"] == folder.name


def test_nothing_of_the_patient_is_written(study: Path, tmp_path: Path) -> None:
    result = RUNNER.invoke(app, ["convert", str(study), "-o", str(tmp_path / "out"), "--json"])
    told = result.output + "".join(str(path) for path in (tmp_path / "out").rglob("*"))
    told += "".join(path.read_text() for path in (tmp_path / "out").rglob("*.json"))
    assert not any(word in told for word in ("secret-patient", "Doe", "19600101", ROOT))


def test_a_pet_alone_is_enough(tmp_path: Path) -> None:
    write_series(tmp_path / "in", body_images()[0], pet_spec())
    result = RUNNER.invoke(app, ["convert", str(tmp_path / "in"), "-o", str(tmp_path / "out")])
    assert result.exit_code == 0
    assert {path.name for path in (tmp_path / "out").rglob("*.*")} == {"SUV.nii.gz", "conversion.json"}


def test_a_second_run_does_only_what_is_missing(study: Path, tmp_path: Path) -> None:
    command = ["convert", str(study), "-o", str(tmp_path / "out")]
    RUNNER.invoke(app, command)
    (folder,) = (tmp_path / "out").iterdir()
    first = (folder / "SUV.nii.gz").stat().st_mtime_ns
    RUNNER.invoke(app, command)
    assert (folder / "SUV.nii.gz").stat().st_mtime_ns == first
    (folder / "CT.nii.gz").unlink()
    RUNNER.invoke(app, command)
    assert (folder / "CT.nii.gz").exists() and (folder / "SUV.nii.gz").stat().st_mtime_ns > first


def test_input_is_never_replaced(tmp_path: Path) -> None:
    study = make_phantom()
    for name in ("s1", "s2"):
        write_volume(tmp_path / "in" / name / "PET.nii.gz", study.pet)
    result = RUNNER.invoke(app, ["convert", str(tmp_path / "in" / "s2"), "-o", str(tmp_path / "in")])
    assert result.exit_code == 2 and "where the input lies" in result.output
    assert [path.name for path in (tmp_path / "in" / "s2").iterdir()] == ["PET.nii.gz"]


def test_earlier_results_beside_the_input_are_no_input(study: Path, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    study.rename(tmp_path / "site" / "a")
    command = ["convert", str(tmp_path / "site"), "-o", str(tmp_path / "site" / "out"), "--json"]
    first, second = RUNNER.invoke(app, command), RUNNER.invoke(app, command)
    assert first.exit_code == second.exit_code == 0, first.output
    assert first.stdout == second.stdout
    assert len(list((tmp_path / "site" / "out").iterdir())) == 1


def test_a_study_of_the_same_name_is_not_replaced(tmp_path: Path) -> None:
    study = make_phantom()
    for site in ("a", "b"):
        write_volume(tmp_path / site / "p1" / "PET.nii.gz", study.pet)
    command = ["convert", "-o", str(tmp_path / "out")]
    assert RUNNER.invoke(app, [*command, str(tmp_path / "a" / "p1")]).exit_code == 0
    record = (tmp_path / "out" / "p1" / "conversion.json").read_text()
    result = RUNNER.invoke(app, [*command, str(tmp_path / "b" / "p1")])
    assert result.exit_code == 2 and "another study of the same name; give another -o" in result.output
    assert (tmp_path / "out" / "p1" / "conversion.json").read_text() == record
    write_volume(tmp_path / "a" / "p1" / "PET.nii.gz", study.pet.with_array(study.pet.array / 2))
    assert RUNNER.invoke(app, [*command, str(tmp_path / "a" / "p1")]).exit_code == 0
    assert read_volume(tmp_path / "out" / "p1" / "SUV.nii.gz").array.max() == pytest.approx(5)


def test_an_suv_that_cannot_be_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "in", body_images()[0] // 50, pet_spec())
    result = RUNNER.invoke(app, ["convert", str(tmp_path / "in"), "-o", str(tmp_path / "out")])
    assert result.exit_code == 2 and "cannot be a PET in SUV" in result.output
    assert not (tmp_path / "out").exists()


def test_one_failing_study_leaves_the_others(study: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    write_series(bad, body_images()[0], pet_spec(header={"Units": "BQML", "PatientWeight": ""}))
    result = RUNNER.invoke(app, ["convert", str(bad), str(study), "-o", str(tmp_path / "out")])
    assert result.exit_code == 1 and "PatientWeight" in result.output
    assert len(list((tmp_path / "out").iterdir())) == 1
    result = RUNNER.invoke(app, ["convert", str(bad), "-o", str(tmp_path / "none")])
    assert result.exit_code == 2 and not (tmp_path / "none").exists()
