"""A widened network answers as the one that it was made of, and can learn with its new features."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from petlesion.experiments import find_experiment
from petlesion.model.training_cases import case_digests
from petlesion.training.checkpoint import FINAL_NAME, RECORDS, load_checkpoint, save_checkpoint
from petlesion.training.nnunet import CONFIGURATION
from petlesion.training.planning import build_network
from tests.inference.nnunet import Recipe, dataset_of, plans_of

CPU = torch.device("cpu")
SMALL = Recipe(patch=(16, 16, 16), features=(4, 6, 6))
WIDER = replace(find_experiment("box"), patch_size=None, base_features=4, max_features=12)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Of a network with 4, 6 and 6 features, so that a skip connection is widened too."""
    plan, dataset_json = plans_of(SMALL), dataset_of(SMALL)
    torch.manual_seed(3)
    network = build_network(plan, dataset_json, deep_supervision=True)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    path = tmp_path / "fold_0" / FINAL_NAME
    init_args = {"plans": plan, "dataset_json": dataset_json}
    save_checkpoint(path, {"init_args": init_args, "network_weights": network.state_dict(), RECORDS: []})
    (path.parent / "split.json").write_text(json.dumps({"train": ["a"], "validation": ["b"]}))
    return path


def test_a_widened_network_answers_as_before(checkpoint: Path, tmp_path: Path) -> None:
    from widened import widened_checkpoint

    wider = widened_checkpoint(checkpoint, WIDER, tmp_path / "wider")
    features = {path: features_of(path) for path in (checkpoint, wider)}
    assert features == {checkpoint: [4, 6, 6], wider: [4, 8, 12]}
    patch = torch.randn(1, 2, 16, 16, 16)
    before, after = (network_of(path)(patch) for path in (checkpoint, wider))
    for ours, theirs in zip(after, before, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_what_new_features_find_can_be_learnt(checkpoint: Path, tmp_path: Path) -> None:
    from widened import widened_checkpoint

    network = network_of(widened_checkpoint(checkpoint, WIDER, tmp_path / "wider"))
    sum(output.square().mean() for output in network(torch.randn(1, 2, 16, 16, 16))).backward()
    bottom = network.encoder.stages[2][0].convs
    assert bottom[1].conv.weight[:6, 6:].abs().max() == 0
    assert bottom[1].conv.weight.grad[:6, 6:].abs().min() > 0


def test_a_widened_network_has_seen_what_the_smaller_has(checkpoint: Path, tmp_path: Path) -> None:
    from fresh import trained_on
    from widened import widened_checkpoint

    assert trained_on(widened_checkpoint(checkpoint, WIDER, tmp_path / "wider")) == case_digests(["a"])


def features_of(path: Path) -> list[int]:
    plan = load_checkpoint(path, CPU)["init_args"]["plans"]
    return plan["configurations"][CONFIGURATION]["architecture"]["arch_kwargs"]["features_per_stage"]


def network_of(path: Path) -> torch.nn.Module:
    content = load_checkpoint(path, CPU)
    network = build_network(*content["init_args"].values(), deep_supervision=True)
    network.load_state_dict(content["network_weights"])
    return network
