"""The plans of the paper's real training sets, from their released fingerprints alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from petlesion.experiments import find_experiment
from petlesion.training.planning import build_network, plan_experiment, plan_fingerprint
from tests.training.test_planning import NETWORKS, built_features, built_strides, stock_plan

FIRST_STRIDES = [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2]]


@pytest.mark.parametrize(
    ("name", "patch", "last_stride"),
    [("autopet_919", [128, 128, 128], [2, 2, 2]), ("autopet_hecktor_1183", [112, 160, 128], [1, 2, 2])],
)
def test_a_released_fingerprint_gives_what_nnunets_planner_gives(
    name: str,
    patch: list[int],
    last_stride: list[int],
    real_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = real_data / "autopet_release" / name
    fingerprint = json.loads((folder / "dataset_fingerprint.json").read_text())
    dataset_json = json.loads((folder / "dataset.json").read_text())
    ours = plan_fingerprint(fingerprint, dataset_json, "Dataset007_Stock")
    assert ours == stock_plan(tmp_path, fingerprint, dataset_json, monkeypatch)
    configuration = ours["configurations"]["3d_fullres"]
    assert configuration["patch_size"] == patch
    assert configuration["batch_size"] == 2
    assert configuration["architecture"]["arch_kwargs"]["strides"] == [*FIRST_STRIDES, last_stride]
    assert configuration["architecture"]["arch_kwargs"]["features_per_stage"] == [32, 64, 128, 256, 320, 320]


@pytest.mark.parametrize("name", ["b", "d", "e"])
def test_rows_of_the_paper_on_its_real_plan(name: str, real_data: Path) -> None:
    folder = real_data / "autopet_release" / "autopet_919"
    fingerprint = json.loads((folder / "dataset_fingerprint.json").read_text())
    dataset_json = json.loads((folder / "dataset.json").read_text())
    plan = plan_experiment(
        plan_fingerprint(fingerprint, dataset_json, "Dataset007_Stock"), find_experiment(name)
    )
    size, features = NETWORKS[name]
    network: Any = build_network(plan, dataset_json, deep_supervision=True)
    assert plan["configurations"]["3d_fullres"]["patch_size"] == [size] * 3
    assert built_features(network) == features
    assert built_strides(network) == [*FIRST_STRIDES, [2, 2, 2]]
