"""Two tiny runs, one of PET and CT and one of PET alone, become one bundle."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from petlesion.cli.main import app
from petlesion.cohort.layout import Cohort
from petlesion.experiments import find_experiment, with_settings
from petlesion.inference.predict import load_model, predict
from petlesion.model.bundle import Bundle
from petlesion.training.export import ExportRequest, export_model
from tests.conftest import make_phantom
from tests.inference.nnunet import Recipe, write_model_folder
from tests.training.conftest import make_cohort

RUNNER = CliRunner()
RECIPES = {
    "ct-pet": Recipe(folds=("0", "1")),
    "pet": Recipe(folds=("0", "1"), channels=("PET",), schemes=("ZScoreNormalization",)),
}


def call(*arguments: object) -> tuple[int, str, str]:
    result = RUNNER.invoke(app, list(map(str, arguments)))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return 2, result.stdout, f"{type(result.exception).__name__}: {result.exception}"
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return make_cohort(tmp_path_factory.mktemp("cohort") / "tiny")


@pytest.fixture(scope="module")
def runs(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Runs with predictions of their held-out studies."""
    folders = []
    for kind, recipe in RECIPES.items():
        run = write_model_folder(tmp_path_factory.mktemp("run") / kind, recipe, make_phantom())
        experiment = with_settings(find_experiment("quick"), [f"input={kind}"])
        (run / "experiment.json").write_text(json.dumps({"experiment": experiment.as_dict()}))
        predictions = run / "cross_validation" / "predictions"
        command = ("predict", run, cohort.folder, "--held-out", "--probabilities", "-o", predictions)
        status, _, said = call(*command)
        assert status == 0, said
        folders.append(run)
    return folders


def test_a_bundle_of_what_is_picked(runs: list[Path], cohort: Cohort, tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    status, told, said = call("experiment", "ensemble", *runs, cohort.folder, "-o", output, "--json")
    assert status == 0, said
    lines = json.loads(told)
    names = ["ct-pet", "pet", "ct-pet + pet", "best weights", "picked of all"]
    assert [line["name"] for line in lines] == names
    assert all(line["studies"] == 4 and line["sources"] == {} for line in lines)
    picked, bundle = lines[-1], Bundle.open(output)
    assert bundle.card.name == picked["chosen"]
    assert bundle.card.min_volume_ml == picked["min_volume_ml"]
    assert bundle.card.scores["dice"] == picked["dice"]
    assert [member.weight for member in bundle.members] == [w for w in picked["weights"] if w > 0]
    assert max(line["dice"] for line in lines[:3]) >= picked["dice"] > 0.5


def test_the_result_as_a_table(
    runs: list[Path], cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("petlesion.cli.ensemble._export", lambda *_: SimpleNamespace(size_bytes=0))
    command = ("experiment", "ensemble", *runs, cohort.folder, "-o", tmp_path / "bundle")
    status, told, said = call(*command, "--format", "markdown")
    assert status == 0, said
    assert "| average of | min mL | Dice | FN mL | FP mL |" in told
    assert "picked of all: " in told and "| comparison | metric |" in told


def test_the_result_by_source(
    runs: list[Path], cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("petlesion.cli.ensemble._export", lambda *_: SimpleNamespace(size_bytes=0))
    copied = Path(shutil.copytree(cohort.folder, tmp_path / cohort.folder.name))
    table = copied / "cases.csv"
    table.write_text(table.read_text().replace("case0,p0,phantom", "case0,p0,real"))
    command = ("experiment", "ensemble", *runs, copied, "-o", tmp_path / "bundle")
    status, told, said = call(*command, "--json")
    assert status == 0, said
    for line in json.loads(told):
        parts = line["sources"]
        assert {source: part["studies"] for source, part in parts.items()} == {"phantom": 3, "real": 1}
        assert parts["phantom"]["dice"] * 3 + parts["real"]["dice"] == pytest.approx(4 * line["dice"])
    status, told, said = call(*command, "--format", "markdown")
    assert [line for line in told.splitlines() if line in ("all sources", "phantom", "real")] == [
        "all sources",
        "phantom",
        "real",
    ]


def test_a_bundles_weights_count_in_prediction(runs: list[Path], cohort: Cohort, tmp_path: Path) -> None:
    request = ExportRequest(runs, folds=["0"], weights=(5 / 6, 1 / 6))
    bundle = export_model(request, tmp_path / "bundle")
    study = cohort.read_study(cohort.test_cases[0].case_id)
    alone = [predict(study, load_model(run, ["0"], precision="float32")).probability.array for run in runs]
    together = predict(study, load_model(bundle.path, precision="float32")).probability.array
    assert np.abs(alone[0] - alone[1]).max() > 0.1
    np.testing.assert_allclose(together, (5 * alone[0] + alone[1]) / 6, atol=1e-3)


def without_a_probability(runs: list[Path], cohort: Cohort) -> str:
    next((runs[1] / "cross_validation" / "predictions" / "probabilities").iterdir()).unlink()
    return "is missing; run petlesion predict"


def without_predictions(runs: list[Path], cohort: Cohort) -> str:
    shutil.rmtree(runs[0] / "cross_validation")
    return "holds no predictions of the run"


def of_the_test_set(runs: list[Path], cohort: Cohort) -> str:
    path = runs[0] / "cross_validation" / "predictions" / "predict.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"held_out": False}))
    return "makes of held-out studies"


def trained_on(runs: list[Path], cohort: Cohort) -> str:
    checkpoints = [runs[0] / f"fold_{fold}" / "checkpoint_final.pth" for fold in (0, 1)]
    checkpoints[0].write_bytes(checkpoints[1].read_bytes())
    return "as it is now"


def with_fewer_folds(runs: list[Path], cohort: Cohort) -> str:
    predictions = runs[1] / "cross_validation" / "predictions"
    shutil.rmtree(predictions)
    command = ("predict", runs[1], cohort.folder, "--held-out", "--probabilities", "--folds", "0")
    assert call(*command, "-o", predictions)[0] == 0
    return "predict the same ones"


def with_one_run(runs: list[Path], cohort: Cohort) -> str:
    del runs[1]
    return "2 to 6 members"


@pytest.mark.parametrize(
    "spoil",
    [without_a_probability, without_predictions, of_the_test_set, trained_on, with_fewer_folds, with_one_run],
)
def test_what_cannot_be_compared_is_refused(runs: list[Path], cohort: Cohort, tmp_path: Path, spoil) -> None:
    spoilt = [Path(shutil.copytree(run, tmp_path / run.name)) for run in runs]
    words = spoil(spoilt, cohort)
    status, _, said = call("experiment", "ensemble", *spoilt, cohort.folder, "-o", tmp_path / "bundle")
    assert status == 2
    assert words in said and len(said.strip().splitlines()) == 1
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("target", ["precious", "Dataset901_Tiny", "run", "."])
def test_nothing_but_a_bundle_is_replaced(tmp_path: Path, target: str) -> None:
    """What is to be averaged is not even looked at."""
    for name in ("precious", "Dataset901_Tiny", "run"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "kept").touch()
    inputs = (tmp_path / "run", tmp_path / "Dataset901_Tiny")
    status, _, said = call("experiment", "ensemble", *inputs, "-o", tmp_path / target)
    assert status == 2
    assert said.startswith("UsageError") and "give another -o" in said
    assert len(list(tmp_path.rglob("kept"))) == 3
