"""A widened network answers as the one that it was made of, and can learn with its new features."""

import json
from pathlib import Path

import pytest
import torch

from petlesion.training.checkpoint import FINAL_NAME, RECORDS, load_checkpoint, save_checkpoint
from petlesion.training.nnunet import CONFIGURATION
from petlesion.training.planning import build_network

CPU = torch.device("cpu")
DATASET = {
    "channel_names": {"0": "CT", "1": "PET"},
    "labels": {"background": 0, "lesion": 1},
    "file_ending": ".nii.gz",
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Of a network with 4, 6 and 6 features, so that a skip connection is widened too."""
    plan = plan_with([4, 6, 6])
    torch.manual_seed(3)
    network = build_network(plan, DATASET, deep_supervision=True)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    path = tmp_path / "fold_0" / FINAL_NAME
    init_args = {"plans": plan, "dataset_json": DATASET}
    save_checkpoint(path, {"init_args": init_args, "network_weights": network.state_dict(), RECORDS: []})
    (path.parent / "split.json").write_text(json.dumps({"train": ["a"], "validation": ["b"]}))
    return path


def test_a_widened_network_answers_as_before(checkpoint: Path, tmp_path: Path) -> None:
    from widened import widened_checkpoint

    wider = widened_checkpoint(checkpoint, 12, tmp_path / "wider")
    features = {path: features_of(path) for path in (checkpoint, wider)}
    assert features == {checkpoint: [4, 6, 6], wider: [4, 8, 12]}
    patch = torch.randn(1, 2, 16, 16, 16)
    before, after = (network_of(path)(patch) for path in (checkpoint, wider))
    for ours, theirs in zip(after, before, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_what_new_features_find_can_be_learnt(checkpoint: Path, tmp_path: Path) -> None:
    from widened import widened_checkpoint

    network = network_of(widened_checkpoint(checkpoint, 12, tmp_path / "wider"))
    sum(output.square().mean() for output in network(torch.randn(1, 2, 16, 16, 16))).backward()
    bottom = network.encoder.stages[2][0].convs
    assert bottom[1].conv.weight[:6, 6:].abs().max() == 0
    assert bottom[1].conv.weight.grad[:6, 6:].abs().min() > 0


def test_a_widened_network_has_seen_what_the_smaller_has(checkpoint: Path, tmp_path: Path) -> None:
    from fresh import trained_on
    from widened import widened_checkpoint

    assert trained_on(widened_checkpoint(checkpoint, 12, tmp_path / "wider")) == {"a"}


def plan_with(features: list[int]) -> dict:
    network = {
        "n_stages": 3,
        "features_per_stage": features,
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3]] * 3,
        "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
        "n_conv_per_stage": [2, 2, 2],
        "n_conv_per_stage_decoder": [2, 2],
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": network,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    return {
        "dataset_name": "Dataset001_Cohort",
        "plans_name": "nnUNetPlans",
        "configurations": {CONFIGURATION: {"patch_size": [16, 16, 16], "architecture": architecture}},
    }


def features_of(path: Path) -> list[int]:
    plan = load_checkpoint(path, CPU)["init_args"]["plans"]
    return plan["configurations"][CONFIGURATION]["architecture"]["arch_kwargs"]["features_per_stage"]


def network_of(path: Path) -> torch.nn.Module:
    content = load_checkpoint(path, CPU)
    network = build_network(*content["init_args"].values(), deep_supervision=True)
    network.load_state_dict(content["network_weights"])
    return network
