import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from petlesion.cli.main import app
from petlesion.cohort.layout import Cohort, write_folds, write_index
from petlesion.inference.predict import PredictionSettings, load_model, predict
from petlesion.io.nifti import read_volume
from petlesion.model.bundle import Bundle
from petlesion.model.training_cases import write_split
from petlesion.training.export import ExportRequest, export_model
from tests.inference.nnunet import Recipe, write_model_folder
from tests.training.conftest import make_cohort

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return make_cohort(tmp_path_factory.mktemp("cohort") / "tiny")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model_folder(tmp_path_factory.mktemp("run") / "run", Recipe(folds=("0", "1")))


@pytest.fixture(scope="module")
def bundle(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export_model(ExportRequest([run_folder]), tmp_path_factory.mktemp("bundle") / "bundle")


def run(*arguments: object) -> tuple[int, str]:
    result = RUNNER.invoke(app, ["predict", *map(str, arguments), "--precision", "float32"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return 2, f"{type(result.exception).__name__}: {result.exception}"
    return result.exit_code, result.stderr


def masks(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: read_volume(path).array for path in sorted(folder.glob("*.nii.gz"))}


def test_the_test_set_is_predicted_by_all_folds(bundle: Bundle, cohort: Cohort, tmp_path: Path) -> None:
    status, _ = run(bundle.path, cohort.folder, "-o", tmp_path, "--probabilities")
    assert status == 0
    assert list(masks(tmp_path)) == ["case4.nii.gz"]
    study = cohort.read_study("case4")
    expected = predict(study, load_model(bundle.path, precision="float32")).probability.array
    np.testing.assert_array_equal(masks(tmp_path)["case4.nii.gz"], expected > 0.5)
    written = masks(tmp_path / "probabilities")["case4.nii.gz"]
    np.testing.assert_allclose(written, expected, atol=1e-5)
    np.testing.assert_array_equal(written > 0.5, expected > 0.5)


def test_held_out_studies_are_predicted_by_the_fold_that_did_not_see_them(
    run_folder: Path, cohort: Cohort, tmp_path: Path
) -> None:
    status, _ = run(run_folder, cohort.folder, "-o", tmp_path, "--held-out", "--tiles", "full")
    assert status == 0
    found = masks(tmp_path)
    assert list(found) == [f"case{number}.nii.gz" for number in range(4)]
    for number, fold in enumerate(cohort.folds):
        model = load_model(run_folder, [str(number)], precision="float32")
        for case_id in fold.validation:
            study = cohort.read_study(case_id)
            expected = predict(study, model, PredictionSettings(tiles="full")).probability.array > 0.5
            np.testing.assert_array_equal(found[f"{case_id}.nii.gz"], expected)


def test_a_fold_that_is_not_trained_leaves_its_studies_out(
    run_folder: Path, cohort: Cohort, tmp_path: Path
) -> None:
    status, said = run(run_folder, cohort.folder, "-o", tmp_path, "--held-out", "--folds", "1")
    assert status == 0
    assert "fold 0 is not trained" in said
    assert list(masks(tmp_path)) == [f"{case_id}.nii.gz" for case_id in sorted(cohort.folds[1].validation)]


def test_what_is_there_is_skipped_and_what_is_broken_is_made_again(
    bundle: Bundle, cohort: Cohort, tmp_path: Path
) -> None:
    command = (bundle.path, cohort.folder, "-o", tmp_path, "--held-out")
    assert run(*command)[0] == 0
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.nii.gz")}
    broken = tmp_path / "case2.nii.gz"
    expected = broken.read_bytes()
    broken.write_bytes(expected[:40])
    status, said = run(*command)
    assert status == 0
    assert "3 of 4 studies were predicted before" in said
    assert broken.read_bytes() == expected
    assert all(path.stat().st_mtime_ns == times[path] for path in times if path != broken)


def test_predictions_of_other_settings_are_not_mixed(bundle: Bundle, cohort: Cohort, tmp_path: Path) -> None:
    assert run(bundle.path, cohort.folder, "-o", tmp_path)[0] == 0
    record = json.loads((tmp_path / "predict.json").read_text())
    assert record["weights_sha256"] == bundle.own_sha256
    status, said = run(bundle.path, cohort.folder, "-o", tmp_path, "--tiles", "full")
    assert status == 2
    assert "another model or other settings" in said


def test_a_study_that_fails_does_not_stop_the_others(bundle: Bundle, tmp_path: Path) -> None:
    spoiled = make_cohort(tmp_path / "cohort")
    path = spoiled.image_path("case1", 1)
    path.write_bytes(path.read_bytes()[:100])
    status, said = run(bundle.path, spoiled.folder, "-o", tmp_path / "out", "--held-out")
    assert status == 1
    assert "case1" in said
    assert list(masks(tmp_path / "out")) == ["case0.nii.gz", "case2.nii.gz", "case3.nii.gz"]


def _listen_to_ctrl_c() -> None:
    # A shell that starts the tests in the background makes them, and their children, deaf to it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_stops_within_two_seconds_and_leaves_no_half_file(
    bundle: Bundle, cohort: Cohort, tmp_path: Path
) -> None:
    command = [
        sys.executable,
        "-m",
        "petlesion",
        "predict",
        bundle.path,
        cohort.folder,
        "-o",
        tmp_path / "out",
    ]
    command += ["--held-out", "--probabilities", "--step", "0.02", "--tiles", "full"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        list(map(str, command)), env=environment, stderr=subprocess.DEVNULL, preexec_fn=_listen_to_ctrl_c
    )
    while not (tmp_path / "out" / "predict.json").exists():
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.5)
    before = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) != 0
    assert time.monotonic() - before < 10  # two seconds on a machine that has nothing else to do
    left = [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not [name for name in left if "partial" in name]
    for path in (tmp_path / "out").rglob("*.nii.gz"):
        read_volume(path)


@pytest.fixture(scope="module")
def split_run(run_folder: Path, cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has kept on what its folds were trained."""
    folder = tmp_path_factory.mktemp("split") / "run"
    shutil.copytree(run_folder, folder)
    for number, fold in enumerate(cohort.folds):
        write_split(folder / f"fold_{number}", fold)
    return folder


@pytest.fixture(scope="module")
def split_bundle(split_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_model(ExportRequest([split_run]), tmp_path_factory.mktemp("split") / "bundle").path


@pytest.fixture(params=["split_run", "split_bundle"])
def split_model(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


def test_a_model_that_knows_its_split_predicts_what_it_has_not_seen(
    split_model: Path, cohort: Cohort, tmp_path: Path
) -> None:
    for name, choice in {"test": [], "held out": ["--held-out"]}.items():
        status, said = run(split_model, cohort.folder, "-o", tmp_path / name, *choice)
        assert status == 0
        assert "cannot be checked" not in said


def test_studies_trained_on_are_not_held_out_by_another_split(split_model: Path, tmp_path: Path) -> None:
    changed = make_cohort(tmp_path / "cohort")
    write_folds(changed, list(reversed(changed.folds)))
    status, said = run(split_model, changed.folder, "-o", tmp_path / "out", "--held-out")
    assert status == 2
    assert "was trained on 4 of the 4 studies to be predicted" in said
    assert not (tmp_path / "out").exists()


def test_a_new_test_set_of_what_was_trained_on_is_refused(split_model: Path, tmp_path: Path) -> None:
    changed = make_cohort(tmp_path / "cohort")
    write_index(changed.with_cases(replace(case, split="test") for case in changed.cases))
    status, said = run(split_model, changed.folder, "-o", tmp_path / "out")
    assert status == 2
    assert "was trained on 4 of the 5 studies to be predicted" in said
    assert "(the first is case0)" in said


def test_a_new_study_of_a_patient_that_was_trained_on_is_refused(split_model: Path, tmp_path: Path) -> None:
    changed = make_cohort(tmp_path / "cohort")
    write_index(changed.with_cases(replace(case, patient_id="one") for case in changed.cases))
    status, said = run(split_model, changed.folder, "-o", tmp_path / "out")
    assert status == 2
    assert "1 of the 1 studies to be predicted, or on others of their patients (the first is case4)" in said


def test_a_fold_may_predict_what_only_others_were_trained_on(
    split_model: Path, cohort: Cohort, tmp_path: Path
) -> None:
    changed = make_cohort(tmp_path / "cohort")
    held_out = cohort.folds[0].validation[0]
    cases = [replace(case, split="test" if case.case_id == held_out else "train") for case in changed.cases]
    write_index(changed.with_cases(cases))
    assert run(split_model, changed.folder, "-o", tmp_path / "one", "--folds", "0")[0] == 0
    assert run(split_model, changed.folder, "-o", tmp_path / "all")[0] == 2


@pytest.mark.parametrize("kind", ["run_folder", "bundle"])
def test_a_model_without_a_split_is_used_with_a_word_about_it(
    kind: str, cohort: Cohort, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    given = request.getfixturevalue(kind)
    status, said = run(getattr(given, "path", given), cohort.folder, "-o", tmp_path)
    assert status == 0
    assert said.count("it cannot be checked that none of them is predicted") == 1


def test_masks_of_another_hand_are_not_taken_for_predictions(
    bundle: Bundle, cohort: Cohort, tmp_path: Path
) -> None:
    (tmp_path / "case4.nii.gz").write_bytes(cohort.label_path("case4").read_bytes())
    status, said = run(bundle.path, cohort.folder, "-o", tmp_path)
    assert status == 2
    assert "case4.nii.gz was not predicted here" in said
    assert not (tmp_path / "predict.json").exists()


def test_a_cohort_without_test_set_says_so(bundle: Bundle, tmp_path: Path) -> None:
    whole = make_cohort(tmp_path / "cohort")
    text = (whole.folder / "cases.csv").read_text().replace("test", "train")
    (whole.folder / "cases.csv").write_text(text)
    status, said = run(bundle.path, whole.folder, "-o", tmp_path / "out")
    assert status == 2
    assert "has no test set" in said
