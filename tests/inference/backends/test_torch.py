import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from petlesion.errors import ModelError, UsageError
from petlesion.inference.backends.torch import (
    TorchNetwork,
    available_folds,
    build_network,
    choose_device,
    load_checkpoint,
    open_model_folder,
)
from petlesion.model.plan import plan_from_nnunet
from tests.inference.nnunet import Recipe, dataset_of, plans_of


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    """A copy of the model folder that a test may spoil."""
    return Path(shutil.copytree(model_folder, tmp_path / "model"))


class Evil:
    """What a checkpoint must not be able to do when it is read."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch evil-was-here",)


def change_plans(folder: Path, **architecture: object) -> None:
    path = folder / "plans.json"
    plans = json.loads(path.read_text())
    plans["configurations"]["3d_fullres"]["architecture"].update(architecture)
    path.write_text(json.dumps(plans))


def test_folds_are_found_by_name(folder: Path) -> None:
    assert available_folds(folder) == ["0", "1"]
    assert sorted(open_model_folder(folder).networks) == ["0", "1"]
    assert sorted(open_model_folder(folder, ["1"]).networks) == ["1"]
    with pytest.raises(ModelError, match="no checkpoint of fold 4"):
        open_model_folder(folder, ["4"])


def test_a_fold_in_training_is_taken_from_its_latest_checkpoint(folder: Path) -> None:
    final = folder / "fold_1" / "checkpoint_final.pth"
    final.rename(final.with_name("checkpoint_latest.pth"))
    assert available_folds(folder) == ["0", "1"]


def test_the_fingerprint_tells_weights_apart(folder: Path) -> None:
    first = open_model_folder(folder, ["0"]).weights_sha256
    assert first == open_model_folder(folder, ["0"]).weights_sha256
    assert first != open_model_folder(folder, ["1"]).weights_sha256


def test_a_checkpoint_that_brings_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"network_weights": {}, "logging": Evil()}, tmp_path / "checkpoint.pth")
    with pytest.raises(ModelError, match="more than weights and plain values"):
        load_checkpoint(tmp_path / "checkpoint.pth")
    assert not (tmp_path / "evil-was-here").exists()


def test_numpys_values_are_read(tmp_path: Path) -> None:
    values = {"scalar": np.float64(0.5), "array": np.arange(3, dtype=np.float32), "int": np.int64(2)}
    torch.save({"network_weights": {}, **values}, tmp_path / "checkpoint.pth")
    found = load_checkpoint(tmp_path / "checkpoint.pth")
    assert found["scalar"] == 0.5 and found["int"] == 2
    np.testing.assert_array_equal(found["array"], [0, 1, 2])


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 cut short"])
def test_an_unreadable_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "checkpoint.pth").write_bytes(content)
    with pytest.raises(ModelError, match="checkpoint"):
        load_checkpoint(tmp_path / "checkpoint.pth")


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save({"state": 1}, tmp_path / "checkpoint.pth")
    with pytest.raises(ModelError, match="network_weights"):
        load_checkpoint(tmp_path / "checkpoint.pth")


def test_plans_cannot_name_code_to_run(folder: Path) -> None:
    change_plans(folder, network_class_name="os.system")
    with pytest.raises(ModelError, match="not one of nnU-Net's"):
        open_model_folder(folder)


def test_plans_cannot_name_layers_that_are_none(folder: Path) -> None:
    kwargs = plans_of(Recipe())["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    change_plans(folder, arch_kwargs={**kwargs, "nonlin": "os.system"})
    with pytest.raises(ModelError, match="not one of torch's layers"):
        open_model_folder(folder)


def test_weights_of_another_network_are_refused(folder: Path) -> None:
    kwargs = plans_of(Recipe())["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    change_plans(folder, arch_kwargs={**kwargs, "features_per_stage": [4, 4]})
    with pytest.raises(ModelError, match="do not fit the network"):
        open_model_folder(folder)


def test_a_folder_without_plans_or_checkpoints_is_refused(folder: Path) -> None:
    (folder / "dataset.json").unlink()
    with pytest.raises(ModelError, match=r"dataset\.json is missing"):
        open_model_folder(folder)
    shutil.copytree(folder, folder.parent / "empty", ignore=shutil.ignore_patterns("fold_*"))
    (folder.parent / "empty" / "dataset.json").write_text(json.dumps(dataset_of(Recipe())))
    with pytest.raises(ModelError, match="no fold with a checkpoint"):
        open_model_folder(folder.parent / "empty")


def test_old_and_new_plans_describe_the_same_network() -> None:
    shapes = []
    for old in (False, True):
        plans = plans_of(Recipe(old_plans=old))
        plan = plan_from_nnunet(plans, dataset_of(Recipe()), "3d_fullres")
        network = build_network(plans["configurations"]["3d_fullres"], plan)
        shapes.append({name: value.shape for name, value in network.state_dict().items()})
        assert "UNet_class_name" in plans["configurations"]["3d_fullres"] or not old
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("cuda", "mps", "chosen"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_the_processor_is_always_there_and_a_missing_gpu_is_an_error(
    cuda: bool, mps: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device("cpu") == "cpu"
    assert choose_device("auto") == chosen
    for name, there in (("cuda", cuda), ("mps", mps)):
        if there:
            assert choose_device(name) == name
        else:
            with pytest.raises(UsageError, match=f"'{name}' is not available here; choose auto"):
                choose_device(name)


def test_bfloat16_on_torch_is_near_float32(model_folder: Path, rng: np.random.Generator) -> None:
    network = open_model_folder(model_folder, ["0"]).networks["0"]
    patch = rng.normal(size=(1, 2, 32, 32, 32)).astype(np.float32)
    exact, short = (TorchNetwork(network, "cpu", precision)(patch) for precision in ("float32", "bfloat16"))
    assert 0 < np.abs(exact - short).mean() < 0.05 * np.abs(exact).mean() + 0.05
