"""Plans beside those of nnU-Net's own planner, and every experiment's network once it is built."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner

from petlesion.cohort.layout import Cohort
from petlesion.errors import CohortError, ExperimentError, FormatError
from petlesion.experiments import EXPERIMENTS, Experiment, find_experiment, with_settings
from petlesion.training.planning import (
    build_network,
    pet_normalization_of,
    plan_arrays,
    plan_experiment,
    plan_fingerprint,
    select_input,
    take_fingerprint,
    training_dataset_json,
)
from tests.training.conftest import make_cohort

Json = dict[str, Any]

INTENSITIES = {
    "max": 3000.0,
    "mean": 5.0,
    "median": 50.0,
    "min": -1000.0,
    "percentile_00_5": -800.0,
    "percentile_99_5": 600.0,
    "std": 200.0,
}
DATASET = {
    "channel_names": {"0": "CT", "1": "PET"},
    "labels": {"background": 0, "lesion": 1},
    "numTraining": 919,
    "file_ending": ".nii.gz",
}


def whole_body_fingerprint() -> Json:
    """Whole-body studies on autoPET's grid."""
    return {
        "spacings": [[3.0, 2.0364201068878174, 2.0364201068878174]] * 9,
        "shapes_after_crop": [[326, 400, 400]] * 7 + [[284, 400, 400], [588, 400, 400]],
        "foreground_intensity_properties_per_channel": {
            "0": INTENSITIES,
            "1": {**INTENSITIES, "max": 300.0, "median": 4.0, "percentile_99_5": 31.0, "std": 5.0},
        },
        "median_relative_size_after_cropping": 1.0,
    }


def stock_plan(folder: Path, fingerprint: Json, dataset_json: Json, monkeypatch: pytest.MonkeyPatch) -> Json:
    """What nnU-Net's planner writes when it is called as its own commands call it."""
    name = "Dataset007_Stock"
    for kind in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{kind}", str(folder / kind))
        (folder / kind / name).mkdir(parents=True)
    case = {"images": ["a.nii.gz", "b.nii.gz"], "label": "c.nii.gz"}
    settings = {"overwrite_image_reader_writer": "SimpleITKIO", **dataset_json, "dataset": {"case": case}}
    (folder / "raw" / name / "dataset.json").write_text(json.dumps(settings))
    (folder / "preprocessed" / name / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    ExperimentPlanner(name).plan_experiment()
    plan: Json = json.loads((folder / "preprocessed" / name / "nnUNetPlans.json").read_text())
    return plan


@pytest.fixture(scope="module")
def whole_body_plan() -> Json:
    return plan_fingerprint(whole_body_fingerprint(), DATASET, "Dataset007_Stock")


def test_a_dataset_s_own_reader_stays_in_the_plan() -> None:
    dataset_json = {**DATASET, "overwrite_image_reader_writer": "NibabelIOWithReorient"}
    plan = plan_fingerprint(whole_body_fingerprint(), dataset_json, "Dataset007_Stock")
    assert plan["image_reader_writer"] == "NibabelIOWithReorient"


def test_a_plan_is_nnunets_own(
    whole_body_plan: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert whole_body_plan == stock_plan(tmp_path, whole_body_fingerprint(), DATASET, monkeypatch)


def test_planning_leaves_the_environment_and_standard_output_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("nnUNet_raw", "the user's own")
    monkeypatch.delenv("nnUNet_results", raising=False)
    import os

    before = dict(os.environ)
    with pytest.raises(FormatError, match="do not make a plan"):
        plan_fingerprint({"spacings": []}, DATASET, "Dataset007_Stock")
    assert dict(os.environ) == before
    assert capsys.readouterr().out == ""


# Patch and features of every row's network; the paper's d and e keep stages and strides of the 128³ plan.
SMALL = [32, 64, 128, 256, 320, 320]
LARGE = [32, 64, 128, 256, 512, 512]
NETWORKS = {
    **dict.fromkeys(("baseline", "a", "b", "c", "f", "g", "b-hecktor"), (128, SMALL)),
    **dict.fromkeys(("d", "e", "e-table2"), (192, LARGE)),
    **{f"{name}-table2": (128, SMALL) for name in ("baseline", "a", "b", "f", "g")},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_of_every_row(name: str, whole_body_plan: Json) -> None:
    size, features = NETWORKS[name]
    plan, dataset_json = prepared(whole_body_plan, find_experiment(name))
    assert plan["configurations"]["3d_fullres"]["patch_size"] == [size] * 3
    assert plan["configurations"]["3d_fullres"]["batch_size"] == 2
    network: Any = build_network(plan, dataset_json, deep_supervision=True)
    assert built_features(network) == features
    assert built_strides(network) == [[1, 1, 1]] + [[2, 2, 2]] * 5
    assert network.encoder.stages[0][0].convs[0].conv.in_channels == 2
    assert len(network.decoder.seg_layers) == 5


def test_b_hecktor_keeps_its_patch_where_nnunet_plans_another() -> None:
    fingerprint = whole_body_fingerprint()
    # The median of the 1,183 studies on their common grid, a little shorter than that of the 919.
    fingerprint["shapes_after_crop"] = [[318, 400, 400]] * 9
    theirs = plan_fingerprint(fingerprint, DATASET, "Dataset007_Stock")
    assert theirs["configurations"]["3d_fullres"]["patch_size"] == [112, 160, 128]
    plan, dataset_json = prepared(theirs, find_experiment("b-hecktor"))
    assert plan["configurations"]["3d_fullres"]["patch_size"] == [128] * 3
    network: Any = build_network(plan, dataset_json, deep_supervision=True)
    assert built_features(network) == SMALL
    assert built_strides(network) == [[1, 1, 1]] + [[2, 2, 2]] * 4 + [[1, 2, 2]]


def prepared(plan: Json, experiment: Experiment) -> tuple[Json, Json]:
    return select_input(plan_experiment(plan, experiment), DATASET, experiment)


def built_features(network: Any) -> list[int]:
    return [stage[0].convs[-1].conv.out_channels for stage in network.encoder.stages]


def built_strides(network: Any) -> list[list[int]]:
    return [list(stage[0].convs[0].conv.stride) for stage in network.encoder.stages]


def test_every_network_of_the_paper_is_built_here() -> None:
    assert set(NETWORKS) == set(EXPERIMENTS) - {"quick", "box", "box-pet"}


def test_a_small_patch_gets_fewer_stages_and_the_network_runs(whole_body_plan: Json) -> None:
    experiment = with_settings(
        find_experiment("d"), ["patch_size=32x48x48", "base_features=4", "max_features=64"]
    )
    plan, dataset_json = prepared(whole_body_plan, experiment)
    network: Any = build_network(plan, dataset_json, deep_supervision=True)
    assert built_features(network) == [4, 8, 16, 32]
    outputs = network(torch.zeros(1, 2, 32, 48, 48))
    assert [tuple(output.shape[1:]) for output in outputs] == [
        (2, 32, 48, 48),
        (2, 16, 24, 24),
        (2, 8, 12, 12),
    ]


def test_a_patch_that_cannot_be_halved_is_refused_with_what_can(whole_body_plan: Json) -> None:
    experiment = with_settings(find_experiment("b"), ["patch_size=50"])
    with pytest.raises(ExperimentError, match="multiples of 8x8x8"):
        plan_experiment(whole_body_plan, experiment)


def test_a_patch_is_given_in_z_y_x_whatever_the_plans_order_of_axes(whole_body_plan: Json) -> None:
    turned = copy.deepcopy(whole_body_plan)
    turned["transpose_forward"] = [1, 0, 2]
    experiment = with_settings(find_experiment("b"), ["patch_size=64x128x160"])
    configuration = plan_experiment(turned, experiment)["configurations"]["3d_fullres"]
    assert configuration["patch_size"] == [128, 64, 160]


def test_the_planned_patch_stays_where_none_is_given(whole_body_plan: Json) -> None:
    experiment = with_settings(find_experiment("b"), ["patch_size=planned", "max_features=320"])
    ours = plan_experiment(whole_body_plan, experiment)["configurations"]
    assert ours == {"3d_fullres": whole_body_plan["configurations"]["3d_fullres"]}


@pytest.mark.parametrize(("name", "channel"), [("ct", 0), ("pet", 1)])
def test_one_input_has_a_plan_and_dataset_of_its_own(name: str, channel: int, whole_body_plan: Json) -> None:
    experiment = with_settings(find_experiment("b"), [f"input={name}", "patch_size=32", "max_features=32"])
    plan, dataset_json = prepared(whole_body_plan, experiment)
    assert dataset_json["channel_names"] == {"0": name.upper()}
    scheme = ["CTNormalization", "ZScoreNormalization"][channel]
    assert plan["configurations"]["3d_fullres"]["normalization_schemes"] == [scheme]
    intensities = whole_body_fingerprint()["foreground_intensity_properties_per_channel"][str(channel)]
    assert plan["foreground_intensity_properties_per_channel"] == {"0": intensities}
    network: Any = build_network(plan, dataset_json, deep_supervision=False)
    assert network.encoder.stages[0][0].convs[0].conv.in_channels == 1
    shared = plan_experiment(whole_body_plan, find_experiment("b"))["configurations"]["3d_fullres"]
    assert plan["configurations"]["3d_fullres"]["data_identifier"] == shared["data_identifier"]


@pytest.mark.parametrize(
    ("name", "scale"), [("cohort", {}), ("suv", {"mean": 0.7, "std": 1.0})], ids=["cohort", "suv"]
)
def test_pet_scaled_alike_in_all_studies_is_preprocessed_apart(
    whole_body_plan: Json, name: str, scale: dict[str, float]
) -> None:
    experiment = with_settings(find_experiment("b"), [f"pet_normalization={name}"])
    plan = plan_arrays(whole_body_plan, experiment)
    assert pet_normalization_of(plan) == name and pet_normalization_of(whole_body_plan) == "study"
    configuration = plan["configurations"]["3d_fullres"]
    assert configuration["normalization_schemes"] == ["CTNormalization", "CTNormalization"]
    # Organs differ below the uptake of lesions, so nothing is clipped there.
    pet, planned = (p["foreground_intensity_properties_per_channel"]["1"] for p in (plan, whole_body_plan))
    assert pet == {**planned, "percentile_00_5": 0.0, **scale}
    usual = whole_body_plan["configurations"]["3d_fullres"]
    assert usual["normalization_schemes"] == ["CTNormalization", "ZScoreNormalization"]
    assert configuration["data_identifier"] == f"{usual['data_identifier']}_pet-by-{name}"


def test_only_training_cases_are_planned(cohort: Cohort) -> None:
    assert sorted(training_dataset_json(cohort)["dataset"]) == ["case0", "case1", "case2", "case3"]
    fingerprint = take_fingerprint(cohort, 1)
    assert len(fingerprint["spacings"]) == 4
    assert fingerprint["shapes_after_crop"] == [[32, 40, 36]] * 4
    # The phantoms' lesions have SUV 10 throughout.
    assert fingerprint["foreground_intensity_properties_per_channel"]["1"]["median"] == 10.0


def test_a_cohort_without_lesions_cannot_be_learnt_from(cohort: Cohort) -> None:
    healthy = [type(case)(**{**vars(case), "reference_volume_ml": 0.0}) for case in cohort.cases]
    with pytest.raises(CohortError, match="no training case has a lesion"):
        take_fingerprint(cohort.with_cases(healthy), 1)


def test_a_case_that_cannot_be_read_is_told_in_a_sentence(tmp_path: Path) -> None:
    cohort = make_cohort(tmp_path / "cohort")
    path = cohort.image_path("case1", 1)
    path.write_bytes(b"no image")
    with pytest.raises(CohortError, match="cannot be read"):
        take_fingerprint(cohort, 1)


def test_the_soft_dice_is_taken_as_planned_unless_a_run_says_otherwise() -> None:
    plan = plan_fingerprint(whole_body_fingerprint(), DATASET, "Dataset001_Whole")
    taken = {
        value: plan_experiment(plan, with_settings(find_experiment("b"), [f"batch_dice={value}"]))
        for value in ("planned", "true", "false")
    }
    found = {value: made["configurations"]["3d_fullres"]["batch_dice"] for value, made in taken.items()}
    assert found == {"planned": True, "true": True, "false": False}
