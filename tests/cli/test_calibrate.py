"""A bundle is calibrated on its held-out studies, and its lesions then come with a confidence."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from petlesion.calibration.evidence import read_evidence
from petlesion.calibration.stored import calibration_of, fit_calibration
from petlesion.cli.main import app
from petlesion.cohort.layout import Cohort
from petlesion.inference.predict import load_model
from petlesion.io.nifti import read_volume
from petlesion.model.bundle import Bundle
from petlesion.training.export import ExportRequest, export_model
from tests.inference.nnunet import Recipe, write_model_folder
from tests.training.conftest import make_cohort

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return make_cohort(tmp_path_factory.mktemp("cohort") / "tiny")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Two folds of random weights, whose masks hold real and false components."""
    folder = tmp_path_factory.mktemp("model")
    run_folder = write_model_folder(folder / "run", Recipe(folds=("0", "1"), patch=(16, 16, 16)))
    return export_model(ExportRequest([run_folder]), folder / "bundle")


@pytest.fixture(scope="module")
def evidence(bundle: Bundle, cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the bundle, which is calibrated then, keeps what its studies tell."""
    folder = tmp_path_factory.mktemp("evidence")
    status, said = run("model", "calibrate", bundle.path, cohort.folder, "-o", folder)
    assert status == 0, said
    return folder


def run(*arguments: object) -> tuple[int, str]:
    result = RUNNER.invoke(app, [*map(str, arguments), "--precision", "float32"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return 2, f"{type(result.exception).__name__}: {result.exception}"
    return result.exit_code, result.output


def test_the_calibration_is_that_of_the_held_out_studies(
    bundle: Bundle, cohort: Cohort, evidence: Path
) -> None:
    held_out = [case_id for fold in cohort.folds for case_id in fold.validation]
    assert sorted(path.stem for path in evidence.glob("*.npz")) == sorted(held_out)
    model = load_model(bundle.path)
    stored = calibration_of(model)
    assert stored is not None and model.fingerprint == bundle.fingerprint
    found = [read_evidence(evidence / f"{case_id}.npz") for case_id in held_out]
    fitted = fit_calibration(found, stored.sources)
    assert stored == fitted and stored.passes == 1
    assert stored.sources["studies"] == len(held_out) and stored.sources["cohort"] == cohort.name
    assert not any(case_id in json.dumps(stored.sources) for case_id in held_out)


def test_what_was_predicted_is_not_predicted_again(bundle: Bundle, cohort: Cohort, evidence: Path) -> None:
    before = load_model(bundle.path).calibration
    status, said = run("model", "calibrate", bundle.path, cohort.folder, "-o", evidence)
    assert status == 0 and "4 of 4 studies were predicted before" in said
    assert "ROC area of the confidence" in said
    assert load_model(bundle.path).calibration == before
    status, said = run("model", "calibrate", bundle.path, cohort.folder, "-o", evidence, "--step", "0.9")
    assert status == 2 and "another model, cohort or settings" in said


def test_lesions_come_with_a_confidence_and_go_by_it(
    bundle: Bundle, cohort: Cohort, evidence: Path, tmp_path: Path
) -> None:
    images = [cohort.image_path("case4", channel) for channel in (0, 1)]
    command = ("segment", *images, "-m", bundle.path, "--min-size", "0")
    status, said = run(*command, "-o", tmp_path / "all", "--uncertainty")
    assert status == 0, said
    (folder,) = (tmp_path / "all").iterdir()
    uncertainty = read_volume(folder / "uncertainty.nii.gz").array
    assert uncertainty.min() >= 0 and 0 < uncertainty.max() <= 1
    confidence = column(folder / "lesions.csv")
    assert ((confidence >= 0) & (confidence <= 1)).all() and len(set(confidence)) > 1
    record = json.loads((folder / "run.json").read_text())
    assert 0 < record["expected_dice"] < 1 and record["run"]["calibration_sha256"]
    page = (folder / "report.html").read_text()
    assert "Expected Dice" in page and 'id="uncertainty"' in page
    middle = np.unique(confidence)[len(set(confidence)) // 2 - 1 :]
    least = float(middle[:2].mean())  # between two lesions' confidences
    status, said = run(*command, "-o", tmp_path / "sure", "--min-confidence", least)
    assert status == 0, said
    (folder,) = (tmp_path / "sure").iterdir()
    np.testing.assert_allclose(column(folder / "lesions.csv"), confidence[confidence >= least], atol=1e-6)
    assert not (folder / "uncertainty.nii.gz").exists()


def test_a_model_that_is_not_calibrated_cannot_remove_by_confidence(cohort: Cohort, tmp_path: Path) -> None:
    run_folder = write_model_folder(tmp_path / "run", Recipe(patch=(16, 16, 16)))
    image = cohort.image_path("case4", 1)
    status, said = run(
        "segment", cohort.image_path("case4", 0), image, "-m", run_folder, "-o", tmp_path / "out",
        "--min-confidence", "0.5",
    )  # fmt: skip
    assert status == 2 and "not calibrated" in said


def column(table: Path) -> np.ndarray:
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return np.array([float(row["confidence"]) for row in rows if row["lesion"] != "total"])
