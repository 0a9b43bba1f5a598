import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from petlesion.cli.batch import try_all
from petlesion.errors import ModelError, UsageError
from petlesion.inference.backends.torch import (
    TorchNetwork,
    available_folds,
    build_network,
    choose_device,
    load_checkpoint,
    open_model_folder,
)
from petlesion.inference.predict import Model, PredictionSettings, load_model, predict
from petlesion.model.plan import plan_from_nnunet
from petlesion.volume import Study
from tests.inference.nnunet import Recipe, dataset_of, plans_of


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    """A copy of the model folder that a test may spoil."""
    return Path(shutil.copytree(model_folder, tmp_path / "model"))


class Evil:
    """What a checkpoint must not be able to do when it is read."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch evil-was-here",)


def change_configuration(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "plans.json"
    plans = json.loads(path.read_text())
    change(plans["configurations"]["3d_fullres"])
    path.write_text(json.dumps(plans))


def change_plans(folder: Path, **architecture: object) -> None:
    change_configuration(folder, lambda configuration: configuration["architecture"].update(architecture))


def change_checkpoint(folder: Path, **content: object) -> None:
    path = folder / "fold_0" / "checkpoint_final.pth"
    torch.save({**load_checkpoint(path), **content}, path)


def test_folds_are_found_by_name(folder: Path) -> None:
    assert available_folds(folder) == ["0", "1"]
    assert sorted(open_model_folder(folder).networks) == ["0", "1"]
    assert sorted(open_model_folder(folder, ["1"]).networks) == ["1"]
    with pytest.raises(ModelError, match="no checkpoint of fold 4"):
        open_model_folder(folder, ["4"])


def rename_final(fold: Path, name: str) -> None:
    (fold / "checkpoint_final.pth").rename(fold / name)


def test_folds_in_training_are_taken_where_they_are_named_or_alone(folder: Path) -> None:
    rename_final(folder / "fold_1", "checkpoint_latest.pth")
    shutil.copy(folder / "fold_1" / "checkpoint_latest.pth", folder / "fold_1" / "checkpoint_best.pth")
    assert available_folds(folder) == ["0", "1"]
    assert list(open_model_folder(folder).networks) == ["0"]
    assert list(open_model_folder(folder, ["0", "1"]).networks) == ["0", "1"]
    rename_final(folder / "fold_0", "checkpoint_latest.pth")
    assert list(open_model_folder(folder).networks) == ["0", "1"]


def test_a_fold_that_was_handed_on_by_its_best_checkpoint_is_trained(folder: Path) -> None:
    rename_final(folder / "fold_1", "checkpoint_best.pth")
    assert list(open_model_folder(folder).networks) == ["0", "1"]


def test_the_fold_of_all_is_taken_where_it_is_named_or_alone(folder: Path) -> None:
    (folder / "fold_1").rename(folder / "fold_all")
    assert list(open_model_folder(folder).networks) == ["0"]
    assert list(open_model_folder(folder, ["all", "0"]).networks) == ["all", "0"]
    rename_final(folder / "fold_0", "checkpoint_latest.pth")
    assert list(open_model_folder(folder).networks) == ["all"]


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


@pytest.mark.parametrize(
    "content",
    [[1], {"state": 1}, {"network_weights": [torch.zeros(1)]}, {"network_weights": {0: torch.zeros(1)}}],
)
def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "checkpoint.pth")
    with pytest.raises(ModelError, match=r"checkpoint\.pth is no nnU-Net v2 checkpoint.*; take it from"):
        load_checkpoint(tmp_path / "checkpoint.pth")


@pytest.mark.parametrize("name", ["os.system", None, 7, ["dynamic_network_architectures."]])
def test_plans_cannot_name_code_to_run(folder: Path, name: object) -> None:
    change_plans(folder, network_class_name=name)
    with pytest.raises(ModelError, match=f"^{folder}: .* not one of nnU-Net's; take"):
        open_model_folder(folder)


ARCHITECTURES = "dynamic_network_architectures.architectures"


def of_2023(**changes: object) -> Callable[[dict[str, Any]], None]:
    """What takes the architecture from a configuration and puts in that of older plans."""

    def change(configuration: dict[str, Any]) -> None:
        del configuration["architecture"]
        configuration.update(plans_of(Recipe(old_plans=True))["configurations"]["3d_fullres"], **changes)

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (of_2023(UNet_class_name="UMamba"), "Unknown architecture UMamba"),
        (of_2023(n_conv_per_stage_encoder=None), "NoneType"),
        (lambda configuration: configuration.pop("architecture"), "'UNet_class_name' is missing"),
        (lambda c: c["architecture"].pop("network_class_name"), "'network_class_name' is missing"),
        (lambda c: c["architecture"].update(network_class_name=f"{ARCHITECTURES}.UMamba"), "not be found"),
        (lambda c: c["architecture"].update(network_class_name=f"{ARCHITECTURES}.unet"), "not callable"),
        (lambda c: c["architecture"].update(arch_kwargs=[1]), "list"),
        (lambda c: c["architecture"]["arch_kwargs"].update(colour="red"), "'colour'"),
        (lambda c: c["architecture"]["arch_kwargs"].update(strides=[[1, 1, 1]]), "strides must have"),
    ],
)
def test_plans_of_a_network_that_cannot_be_built_are_refused(
    folder: Path, change: Callable[[dict[str, Any]], object], reason: str
) -> None:
    change_configuration(folder, change)
    message = rf"^{folder}: the network that plans\.json describes cannot be built \(.*{reason}.*\); take"
    with pytest.raises(ModelError, match=message):
        open_model_folder(folder)


def test_only_our_own_output_reaches_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    """nnU-Net looks for the class of older residual plans, and says so."""
    configuration = plans_of(Recipe(old_plans=True))["configurations"]["3d_fullres"]
    plan = plan_from_nnunet(plans_of(Recipe()), dataset_of(Recipe()), "3d_fullres")
    network = build_network({**configuration, "UNet_class_name": "ResidualEncoderUNet"}, plan)
    assert type(network).__name__ == "ResidualEncoderUNet"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("axes", [(5,), (0, 0), (-1,), "x", 3, (float("inf"),)])
def test_mirror_axes_that_cannot_be_are_refused(folder: Path, axes: object) -> None:
    change_checkpoint(folder, inference_allowed_mirroring_axes=axes)
    with pytest.raises(ModelError, match=f"^{folder}.*; take"):
        open_model_folder(folder, ["0"])


@pytest.mark.parametrize("content", [{"init_args": {}}, {"init_args": None}])
def test_a_checkpoint_that_does_not_tell_its_training_is_refused(
    folder: Path, content: dict[str, object]
) -> None:
    change_checkpoint(folder, **content)
    with pytest.raises(ModelError, match=r"checkpoint_final\.pth lacks or garbles .*; take it from"):
        open_model_folder(folder, ["0"])


def test_weights_that_are_no_arrays_are_refused(folder: Path) -> None:
    weights = load_checkpoint(folder / "fold_0" / "checkpoint_final.pth")["network_weights"]
    change_checkpoint(folder, network_weights={**weights, min(weights): "none"})
    with pytest.raises(ModelError, match=r"checkpoint_final\.pth do not fit the network.*; take both"):
        open_model_folder(folder, ["0"])


def test_plans_cannot_name_layers_that_are_none(folder: Path) -> None:
    kwargs = plans_of(Recipe())["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    change_plans(folder, arch_kwargs={**kwargs, "nonlin": "os.system"})
    with pytest.raises(ModelError, match=f"^{folder}: .* not one of torch's layers; take"):
        open_model_folder(folder)
    change_plans(folder, arch_kwargs={**kwargs, "nonlin": "torch.nn.Absent"})
    with pytest.raises(ModelError, match=f"^{folder}: .* does not have here; install"):
        open_model_folder(folder)


def test_weights_of_another_network_are_refused(folder: Path) -> None:
    kwargs = plans_of(Recipe())["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    change_plans(folder, arch_kwargs={**kwargs, "features_per_stage": [4, 4]})
    with pytest.raises(ModelError, match="do not fit the network"):
        open_model_folder(folder)


def test_a_folder_without_plans_or_checkpoints_is_refused(folder: Path) -> None:
    (folder / "dataset.json").unlink()
    with pytest.raises(ModelError, match=r"dataset\.json is missing .*; take it from"):
        open_model_folder(folder)
    shutil.copytree(folder, folder.parent / "empty", ignore=shutil.ignore_patterns("fold_*"))
    (folder.parent / "empty" / "dataset.json").write_text(json.dumps(dataset_of(Recipe())))
    with pytest.raises(ModelError, match="no fold with a checkpoint"):
        open_model_folder(folder.parent / "empty")


@pytest.mark.parametrize("content", ["[" * 200_000, "[1]"])
def test_plans_that_are_none_are_refused(folder: Path, content: str) -> None:
    (folder / "plans.json").write_text(content)
    with pytest.raises(ModelError, match=r"plans\.json .*; take it from"):
        open_model_folder(folder)


def test_plans_that_lack_a_fact_are_told_with_their_folder(folder: Path) -> None:
    change_configuration(folder, lambda configuration: configuration.pop("spacing"))
    with pytest.raises(ModelError, match=f"^{folder}: .* lacks or garbles 'spacing'; take them from"):
        open_model_folder(folder)


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


class Failing(torch.nn.Module):
    """A network that fails."""

    def __init__(self, error: RuntimeError) -> None:
        super().__init__()
        self.error = error

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA has none left"),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
    ],
)
def test_too_little_memory_is_a_memory_error(error: RuntimeError) -> None:
    with pytest.raises(MemoryError):
        TorchNetwork(Failing(error), "cpu", "float32")(np.zeros((1, 1, 2, 2, 2), dtype=np.float32))


def test_a_device_that_fails_costs_a_batch_that_study_alone(model_folder: Path, known_study: Study) -> None:
    good = load_model(model_folder, ["0"], device="cpu")
    settings = PredictionSettings(tiles="full")

    def failing_with(error: RuntimeError) -> Model:
        networks = {"0": TorchNetwork(Failing(error), "cpu", "float32")}
        return replace(good, members=(replace(good.members[0], networks=networks),))

    models = {
        "full": failing_with(torch.cuda.OutOfMemoryError("CUDA has none left")),
        "broken": failing_with(RuntimeError("no kernel image is there\nfor this device")),
        "good": good,
    }
    failures = try_all("", models.items(), lambda model: predict(known_study, model, settings))
    full, broken = failures.reasons
    assert full[0] == "full" and "too little memory" in full[1]
    assert broken == (
        "broken",
        "study phantom-0: torch cannot run the network on cpu (no kernel image is there); "
        "take another --device, or export the model and run the bundle",
    )


class Watching(torch.nn.Module):
    """A network that notes whether cuDNN may round."""

    def __init__(self) -> None:
        super().__init__()
        self.rounds: list[bool] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.rounds.append(torch.backends.cudnn.allow_tf32)
        return torch.cat([image, image], dim=1)


@pytest.mark.parametrize("former", [True, False])
def test_float32_is_not_rounded_and_the_users_choice_is_restored(
    former: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", former)
    network = Watching()
    TorchNetwork(network, "cpu", "float32")(np.zeros((1, 1, 2, 2, 2), dtype=np.float32))
    assert network.rounds == [False]
    assert torch.backends.cudnn.allow_tf32 is former
