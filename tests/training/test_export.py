import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from petlesion.errors import ModelError, OutputError, UsageError
from petlesion.inference.backends.openvino import OpenVinoNetwork
from petlesion.inference.backends.torch import TorchNetwork, open_model_folder
from petlesion.inference.predict import PredictionSettings, load_model, predict
from petlesion.inference.tiling import Network
from petlesion.model.bundle import BUNDLE_FILE, Bundle
from petlesion.model.plan import Plan
from petlesion.training.export import ExportRequest, export_model
from petlesion.volume import Study
from tests.inference.nnunet import Recipe, write_model_folder

FULL = PredictionSettings(tiles="full")


def weight_types(path: Path) -> set[int]:
    """ONNX data types of the weights of many values."""
    graph = onnx.load(path).graph
    return {weight.data_type for weight in graph.initializer if np.prod(weight.dims) >= 4096}


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(),
        Recipe(old_plans=True, folds=("0", "all")),
        Recipe(labels=("background", "liver", "lesion")),
        Recipe(patch=(16, 32, 64), spacing=(6.0, 4.0, 3.0), transpose=(1, 2, 0)),
        Recipe(residual=True),
    ],
    ids=["as it is", "plans of 2023", "three labels", "transposed", "residual encoder"],
)
def test_a_bundle_gives_torchs_probabilities(recipe: Recipe, tmp_path: Path, phantom: Study) -> None:
    folder = write_model_folder(tmp_path / "model", recipe)
    bundle = export_model(ExportRequest([folder], recipe.folds), tmp_path / "bundle")
    assert list(bundle.members[0].networks) == sorted(recipe.folds)
    model = load_model(folder, recipe.folds, precision="float32")
    expected = predict(phantom, model, FULL).probability.array
    found = predict(phantom, load_model(bundle.path, precision="float32"), FULL).probability.array
    assert np.abs(found - expected).max() <= 1e-3


def test_a_bundle_may_leave_mirroring_to_those_who_ask_for_it(tmp_path: Path, phantom: Study) -> None:
    folder = write_model_folder(tmp_path / "model", Recipe(mirror_axes=(0, 1)))
    bundle = export_model(ExportRequest([folder], mirrored=False), tmp_path / "bundle").path
    expected, found = (load_model(path, precision="float32") for path in (folder, bundle))
    for mirror in (False, True):
        settings = PredictionSettings(tiles="full", mirror=mirror)
        both = [predict(phantom, model, settings).probability.array for model in (expected, found)]
        np.testing.assert_allclose(*both, atol=1e-3)
    assert np.array_equal(
        predict(phantom, found, FULL).probability.array,
        predict(phantom, found, PredictionSettings(tiles="full", mirror=False)).probability.array,
    )


def test_weights_are_halved_only_where_no_label_changes(tmp_path: Path) -> None:
    """Nothing is near to 0.5 where the lesion's logit is far below the background's."""
    types = {}
    for name, bias in (("decided", -20.0), ("undecided", 0.0)):
        folder = write_model_folder(tmp_path / name, Recipe(), bias=bias)
        export_model(ExportRequest([folder]), tmp_path / f"{name}-bundle")
        types[name] = weight_types(tmp_path / f"{name}-bundle" / "member_0_fold_0.onnx")
    assert types == {"decided": {onnx.TensorProto.FLOAT16}, "undecided": {onnx.TensorProto.FLOAT}}


def test_the_network_tells_nothing_of_where_it_was_exported(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "model", Recipe())
    bundle = export_model(ExportRequest([folder]), tmp_path / "bundle")
    for name in bundle.sha256:
        content = (bundle.path / name).read_bytes()
        assert b"site-packages" not in content
        assert str(tmp_path).encode() not in content


def test_the_card_tells_where_the_model_comes_from(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "model", Recipe())
    (folder / "experiment.json").write_text(json.dumps({"name": "b", "epochs": 2}))
    bundle = export_model(ExportRequest([folder], folds=["0"]), tmp_path / "bundle")
    assert bundle.card.name == "model"
    assert bundle.card.licence == "not stated"
    assert bundle.card.training_data == "Dataset901_Test (3 studies)"
    assert bundle.members[0].trained_as["experiment"] == {"name": "b", "epochs": 2}
    assert bundle.members[0].trained_as["trainer"] == "nnUNetTrainer"


def test_a_shift_is_added_to_the_logits_of_lesions(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "model", Recipe())
    patch = np.random.default_rng(0).normal(size=(1, 2, *Recipe().patch)).astype(np.float32)

    def logits(shift: float) -> np.ndarray:
        request = ExportRequest([folder], folds=["0"], logit_shift=shift)
        bundle = export_model(request, tmp_path / f"bundle{shift}")
        assert bundle.members[0].trained_as["logit_shift"] == shift
        return OpenVinoNetwork(next(bundle.network_paths())[2], "float32")(patch)

    np.testing.assert_allclose(logits(-2.5), logits(0.0) - 2.5, atol=2e-3)


def test_a_halved_bundle_is_the_network_of_rounded_weights(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "model", Recipe(features=(16, 32, 64)))
    request = ExportRequest([folder], folds=["0"], halved=True)
    bundle = export_model(request, tmp_path / "bundle")
    path = next(bundle.network_paths())[2]
    assert weight_types(path) == {onnx.TensorProto.FLOAT16}
    network = open_model_folder(folder, ["0"]).networks["0"]
    for weight in network.parameters():
        if weight.numel() >= 4096:
            weight.data = weight.data.half().float()
    patch = np.random.default_rng(0).normal(size=(1, 2, *Recipe().patch)).astype(np.float32)
    expected = TorchNetwork(network, "cpu", "float32")(patch)
    np.testing.assert_allclose(OpenVinoNetwork(path, "float32")(patch), expected, atol=2e-3)


def test_places_of_the_machine_stay_behind(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "model", Recipe())
    start = tmp_path / "run" / "fold_0" / "checkpoint_final.pth"
    settings = {"name": "box", "initial_weights": str(start), "earlier_run": None}
    (folder / "experiment.json").write_text(json.dumps({"experiment": settings}))
    bundle = export_model(ExportRequest([folder], folds=["0"]), tmp_path / "bundle")
    kept = bundle.members[0].trained_as["experiment"]["experiment"]
    assert kept == {**settings, "initial_weights": "run/fold_0/checkpoint_final.pth"}


def test_the_orientation_can_be_stated(tmp_path: Path, phantom: Study) -> None:
    folder = write_model_folder(tmp_path / "model", Recipe())
    bundle = export_model(ExportRequest([folder], orientation="RAS"), tmp_path / "bundle")
    assert Bundle.open(bundle.path).members[0].plan.orientation == "RAS"
    turned = phantom.reoriented("RAS")
    as_lps = Study("turned", *(volume.with_array(volume.array) for volume in (turned.pet, turned.ct)))
    expected = predict(phantom, load_model(folder, orientation="RAS"), FULL).probability
    found = predict(as_lps, load_model(bundle.path, precision="float32"), FULL).probability
    assert found.orientation == "RAS"
    np.testing.assert_allclose(found.reoriented("LPS").array, expected.array, atol=1e-3)


def test_a_network_that_comes_out_otherwise_is_not_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_model_folder(tmp_path / "model", Recipe())

    def answer(network: Network, plan: Plan) -> np.ndarray:
        off = 0.002 if isinstance(network, OpenVinoNetwork) else 0.0
        return np.full(plan.patch_size, 0.6 + off, dtype=np.float32)

    monkeypatch.setattr("petlesion.training.export.probe_probability", answer)
    with pytest.raises(ModelError, match="cannot be exported"):
        export_model(ExportRequest([folder]), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_what_cannot_be_exported_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        export_model(ExportRequest([tmp_path / "absent"]), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("target", ["runs/run", "runs", "precious", "precious/notes.txt"])
def test_only_a_bundle_is_replaced(tmp_path: Path, target: str) -> None:
    """A run that could not be loaded is not even looked at."""
    (tmp_path / "runs" / "run").mkdir(parents=True)
    (tmp_path / "runs" / "run" / "plans.json").write_text("no plans")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "notes.txt").touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match="give another -o"):
        export_model(ExportRequest([tmp_path / "runs" / "run"]), tmp_path / target)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_place_that_cannot_be_written_is_told_before_the_run_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        export_model(ExportRequest([tmp_path / "absent"]), tmp_path / "file" / "bundle")


def test_a_bundle_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "model", Recipe())
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / BUNDLE_FILE).touch()
    assert export_model(ExportRequest([folder], name="new"), tmp_path / "bundle").card.name == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "model"]
