from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from petlesion.cli.main import app
from petlesion.errors import ModelError, OutputError, UsageError
from petlesion.inference.predict import PredictionSettings, load_model, predict
from petlesion.inference.verify import verify_bundle
from petlesion.model.bundle import Bundle, write_bundle_file
from petlesion.model.join import join_bundles
from petlesion.model.probe import PROBE_FILE
from petlesion.model.training_cases import SPLIT_FILE, read_training_cases
from petlesion.training.export import ExportRequest, export_model
from petlesion.volume import Study
from tests.inference.nnunet import Recipe, write_model_folder

RUNNER = CliRunner()
RECIPES = {
    "pet": Recipe(channels=("PET",), schemes=("ZScoreNormalization",), features=(4, 8), patch=(16,) * 3),
    "both": Recipe(features=(4, 8), folds=("0", "1")),
}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    """Two bundles of other input and patch; fold 0 of each knows what it was trained on."""
    folder = tmp_path_factory.mktemp("bundles")
    made = []
    for name, recipe in RECIPES.items():
        run = write_model_folder(folder / f"{name}-run", recipe)
        (run / "fold_0" / SPLIT_FILE).write_text(f'{{"train": ["{name}1"], "validation": []}}')
        made.append(export_model(ExportRequest([run], name=name, licence="CC0"), folder / name))
    return made


def test_probabilities_of_joint_bundles_are_averaged(
    bundles: list[Bundle], tmp_path: Path, phantom: Study
) -> None:
    paths = [str(bundle.path) for bundle in bundles]
    result = RUNNER.invoke(app, ["model", "join", *paths, "-o", str(tmp_path / "joint")])
    assert result.exit_code == 0, result.output
    joint = Bundle.open(tmp_path / "joint")
    assert (joint.card.name, joint.card.licence) == ("pet + both", "CC0")
    assert [member.plan.channels for member in joint.members] == [("PET",), ("CT", "PET")]
    settings = PredictionSettings(tiles="full")
    found, *alone = (
        predict(phantom, load_model(path, precision="float32"), settings).probability.array
        for path in (joint.path, *paths)
    )
    np.testing.assert_allclose(found, np.mean(alone, axis=0), atol=1e-6)
    assert len(verify_bundle(joint)) == 3


def test_what_each_was_trained_on_goes_with_it(bundles: list[Bundle], tmp_path: Path) -> None:
    joint = join_bundles(bundles, tmp_path / "joint", name="two", licence="mine")
    assert (joint.card.name, joint.card.licence) == ("two", "mine")
    assert joint.card.training_data == "Dataset901_Test (3 studies)"
    assert set(read_training_cases(joint.path)) == {"member_0_fold_0.onnx", "member_1_fold_0.onnx"}
    model = load_model(joint.path)
    assert model.has_seen(["pet1"]) and model.has_seen(["both1"]) and not model.has_seen(["pet2"])


def test_what_cannot_be_joined_leaves_nothing(bundles: list[Bundle], tmp_path: Path) -> None:
    alone = RUNNER.invoke(app, ["model", "join", str(bundles[0].path), "-o", str(tmp_path / "joint")])
    assert isinstance(alone.exception, UsageError)
    joint = join_bundles(bundles, tmp_path / "blind")
    (joint.path / PROBE_FILE).unlink()
    write_bundle_file(joint.path, joint.members, replace(joint.card, name="blind"))
    with pytest.raises(ModelError, match=r"probe\.npz is missing"):
        join_bundles([bundles[0], Bundle.open(joint.path)], tmp_path / "joint")
    assert [path.name for path in tmp_path.iterdir()] == ["blind"]


def join(bundles: list[Bundle], output: Path) -> BaseException | None:
    paths = [str(bundle.path) for bundle in bundles]
    return RUNNER.invoke(app, ["model", "join", *paths, "-o", str(output)]).exception


def test_only_another_bundle_is_replaced(bundles: list[Bundle], tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "notes.txt").touch()
    inputs = bundles[0].path.parent
    before = sorted(inputs.rglob("*"))
    for output in (tmp_path / "precious", bundles[0].path, inputs):
        refused = join(bundles, output)
        assert isinstance(refused, UsageError) and "give another -o" in str(refused)
    assert isinstance(join(bundles, tmp_path / "precious" / "notes.txt" / "joint"), OutputError)
    assert (tmp_path / "precious" / "notes.txt").is_file()
    assert sorted(inputs.rglob("*")) == before


def test_a_joint_bundle_takes_the_place_of_an_earlier_one(bundles: list[Bundle], tmp_path: Path) -> None:
    for name in ("first", "second"):
        joint = join_bundles(bundles, tmp_path / "joint", name=name)
        assert Bundle.open(joint.path).card.name == name
    assert [path.name for path in tmp_path.iterdir()] == ["joint"]
