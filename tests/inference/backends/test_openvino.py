import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from petlesion.errors import ModelError, UsageError
from petlesion.inference.backends.openvino import (
    OpenVinoNetwork,
    choose_precision,
    computes_bfloat16,
    open_network,
    processor_capabilities,
)
from petlesion.inference.backends.torch import LogitDifference, open_model_folder
from petlesion.inference.predict import PredictionSettings, load_model, predict
from petlesion.inference.verify import verify_bundle
from petlesion.model.bundle import Bundle, write_bundle_file
from petlesion.training.export import ExportRequest, export_model
from petlesion.volume import Study
from tests.inference.nnunet import Recipe, write_model_folder


@pytest.fixture
def network_path(bundle: Bundle) -> Path:
    _, _, path = next(bundle.network_paths())
    return path


@pytest.fixture
def patch(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(1, 2, 32, 32, 32)).astype(np.float32)


def test_float32_is_torchs(network_path: Path, model_folder: Path, patch: np.ndarray) -> None:
    network = LogitDifference(open_model_folder(model_folder, ["0"]).networks["0"])
    with torch.inference_mode():
        expected = network(torch.from_numpy(patch)).numpy()
    found = OpenVinoNetwork(network_path, "float32")(patch)
    assert found.shape == (1, 1, 32, 32, 32)
    assert np.abs(1 / (1 + np.exp(-found)) - 1 / (1 + np.exp(-expected))).max() <= 1e-3


def test_the_same_bytes_every_time_and_with_any_number_of_threads(
    network_path: Path, patch: np.ndarray
) -> None:
    network = OpenVinoNetwork(network_path, "float32", threads=2)
    first = network(patch)
    network.release()
    for other in (network, OpenVinoNetwork(network_path, "float32", threads=1)):
        np.testing.assert_array_equal(other(patch), first)


def test_the_mask_of_a_study_does_not_depend_on_threads(bundle: Bundle, known_study: Study) -> None:
    one, two = (
        predict(known_study, load_model(bundle.path, precision="float32", threads=threads)).probability.array
        for threads in (1, 2)
    )
    assert np.abs(one - two).max() <= 1e-4
    np.testing.assert_array_equal(one > 0.5, two > 0.5)


def test_resampling_does_not_depend_on_threads(tmp_path: Path, known_study: Study) -> None:
    folder = write_model_folder(tmp_path / "model", Recipe(spacing=(3.0, 5.0, 4.5)))
    path = export_model(ExportRequest([folder]), tmp_path / "bundle").path
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            model = load_model(path, precision="float32", threads=threads)
            found.append(predict(known_study, model).probability.array)
    assert np.abs(found[0] - found[1]).max() <= 1e-4
    np.testing.assert_array_equal(found[0] > 0.5, found[1] > 0.5)


needs_bfloat16 = pytest.mark.skipif(not computes_bfloat16(), reason="the processor has no bfloat16")


@needs_bfloat16
def test_bfloat16_gives_the_same_bytes_with_as_many_threads(network_path: Path, patch: np.ndarray) -> None:
    first = OpenVinoNetwork(network_path, "bfloat16", threads=2)(patch)
    np.testing.assert_array_equal(OpenVinoNetwork(network_path, "bfloat16", threads=2)(patch), first)


@needs_bfloat16
def test_bfloat16_is_near_float32(bundle: Bundle, known_study: Study) -> None:
    settings = PredictionSettings(tiles="full")
    exact, short = (
        predict(known_study, load_model(bundle.path, precision=precision), settings).probability.array
        for precision in ("float32", "bfloat16")
    )
    assert np.abs(exact - short).mean() < 0.01
    exact, short = exact > 0.5, short > 0.5
    assert 2 * (exact & short).sum() / (exact.sum() + short.sum()) >= 0.98


def test_auto_is_bfloat16_only_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (choose_precision("auto") == "bfloat16") == ("BF16" in processor_capabilities())
    module = "petlesion.inference.backends.openvino.processor_capabilities"
    monkeypatch.setattr(module, lambda: ["FP32", "INT8"])
    assert choose_precision("auto") == "float32"
    with pytest.raises(UsageError, match="no bfloat16 instructions"):
        choose_precision("bfloat16")
    monkeypatch.setattr(module, lambda: ["FP32", "BF16"])
    assert choose_precision("auto") == "bfloat16"
    assert choose_precision("bfloat16") == "bfloat16"
    assert choose_precision("float32") == "float32"
    with pytest.raises(UsageError, match="precision is one of"):
        choose_precision("half")


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    path.write_bytes(b"no network")
    with pytest.raises(ModelError, match="cannot be run as a network"):
        OpenVinoNetwork(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"patch_size": (32, 32, 16)},
        {"labels": {"background": 0, "organ": 1, "lesion": 2}},
    ],
)
def test_a_network_that_does_not_fit_its_plan_is_refused(
    changes: dict[str, Any], bundle: Bundle, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(bundle.path, tmp_path / "bundle"))
    (member,) = bundle.members
    write_bundle_file(path, (replace(member, plan=replace(member.plan, **changes)),), bundle.card)
    message = r"member_0_fold_0\.onnx takes and gives arrays of .*; export the model again"
    with pytest.raises(ModelError, match=message):
        load_model(path)
    with pytest.raises(ModelError, match=message):
        verify_bundle(Bundle.open(path))


def test_what_openvino_cannot_run_is_a_model_error(bundle: Bundle, network_path: Path, patch: Any) -> None:
    network = open_network(network_path, bundle.members[0].plan, "float32")
    expected = network(patch)
    with pytest.raises(ModelError, match=r"member_0_fold_0\.onnx cannot be run on this input .*; free some"):
        network(patch[:, :, :16])
    np.testing.assert_array_equal(network(patch), expected)


def test_a_bundle_predicts_without_torch(bundle: Bundle) -> None:
    code = f"""
import sys
sys.modules["torch"] = sys.modules["nnunetv2"] = sys.modules["onnx"] = None
import numpy as np
from petlesion.inference.predict import load_model, predict
from petlesion.volume import Study, Volume
affine = np.diag([4.0, 4.0, 4.0, 1.0])
pet = Volume(np.ones((32, 32, 32), dtype=np.float32), affine)
study = Study("block", pet, pet.with_array(pet.array * 40))
print(predict(study, load_model({str(bundle.path)!r})).probability.shape)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "(32, 32, 32)"


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_signals_are_handled_after_networks_are_gone(network_path: Path) -> None:
    code = f"""
import signal
from pathlib import Path
from petlesion.inference.backends.openvino import OpenVinoNetwork
handled = []
signal.signal(signal.SIGUSR1, lambda *_: handled.append(True))
first, second = (OpenVinoNetwork(Path({str(network_path)!r})) for _ in range(2))
del first
del second
signal.raise_signal(signal.SIGUSR1)
assert handled
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_network_is_loaded_without_a_call_to_its_makers(tmp_path: Path) -> None:
    """OpenVINO's telemetry would leave an identity in the home folder."""
    code = "import sys, petlesion.pipeline; print(sys.modules.get('openvino_telemetry'))"
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    environment["HOME"] = str(tmp_path)
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "None"
    assert not list(tmp_path.iterdir())
