import json
from typing import Any

import pytest

from petlesion.errors import ModelError
from petlesion.model.plan import (
    Interpolation,
    Normalization,
    Plan,
    plan_from_json,
    plan_from_nnunet,
    plan_to_nnunet,
)
from tests.inference.nnunet import Recipe, dataset_of, plans_of

NAN, INFINITY = float("nan"), float("inf")
RECIPE = Recipe(spacing=(3.0, 2.0, 2.5), transpose=(1, 0, 2), mirror_axes=(0, 1))


def read(recipe: Recipe = RECIPE, **changes: Any) -> Plan:
    plans, dataset = plans_of(recipe), dataset_of(recipe)
    plans["configurations"]["3d_fullres"].update(changes)
    return plan_from_nnunet(plans, dataset, "3d_fullres", mirror_axes=(0, 1))


def test_the_facts_of_nnunets_plans() -> None:
    plan = read()
    assert plan.channels == ("CT", "PET")
    assert plan.patch_size == (32, 32, 32)
    assert plan.spacing_mm == (3.0, 2.0, 2.5)
    assert plan.transpose == (1, 0, 2)
    assert plan.mirror_axes == (0, 1)
    assert plan.labels == {"background": 0, "lesion": 1}
    assert plan.lesion_channel == 0
    assert plan.orientation == "LPS"
    assert plan.normalization == (
        Normalization("CTNormalization", False, mean=30.0, std=90.0, lower=-800.0, upper=300.0),
        Normalization("ZScoreNormalization", False),
    )
    assert plan.image_interpolation == Interpolation(3, 0, None)
    assert plan.logit_interpolation == Interpolation(1, 0, None)


def test_plans_of_2023_have_the_same_facts() -> None:
    assert read(Recipe(old_plans=True)) == read(Recipe())


def test_json_there_and_back() -> None:
    plan = read()
    assert plan_from_json(json.loads(json.dumps(plan.as_json()))) == plan


def test_nnunets_plans_there_and_back() -> None:
    plan = read()
    plans, dataset = plan_to_nnunet(plan, "3d_fullres", {})
    assert plan_from_nnunet(plans, dataset, "3d_fullres", mirror_axes=(0, 1)) == plan


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": ["MR", "PET"]}, "channels are"),
        ({"channels": ["PET", "PET"]}, "channels are"),
        ({"channels": [], "normalization": []}, "channels are"),
        ({"channels": [["CT"], 2]}, "not in order"),
        ({"normalization": [{"scheme": "PercentileNormalization"}] * 2}, "'PercentileNormalization' is not"),
        ({"normalization": [{"scheme": "CTNormalization", "std": NAN}] * 2}, "statistics"),
        ({"normalization": [{"scheme": "CTNormalization", "mean": 10**400}] * 2}, "not in order"),
        ({"normalization": [{"scheme": "CTNormalization", "lower": 3, "upper": 2}] * 2}, "statistics"),
        ({"normalization": [{"scheme": "NoNormalization"}]}, "normalise each channel"),
        ({"spacing_mm": [NAN, 2.0, 2.0]}, "spacing"),
        ({"spacing_mm": [2.0, INFINITY, 2.0]}, "spacing"),
        ({"patch_size": [INFINITY, 2, 2]}, "not in order"),
        ({"patch_size": [0, 2, 2]}, "patch"),
        ({"transpose": [0, 1, 1]}, "order of axes"),
        ({"mirror_axes": [7]}, "mirrors along"),
        ({"mirror_axes": [-1]}, "mirrors along"),
        ({"mirror_axes": [0, 0]}, "mirrors along"),
        ({"labels": {"background": 0, "lesion": 9}}, "labels"),
        ({"labels": {"background": 0}}, "labels"),
        ({"image_interpolation": {"order": 9}}, "order 9"),
        ({"image_interpolation": {"order": 3.0}}, "order 3.0"),
        ({"logit_interpolation": {"order": 1, "order_across": -1}}, "order 1 and -1"),
        ({"logit_interpolation": {"order": 1, "separate_slices": "yes"}}, "thick slices"),
    ],
)
def test_a_garbled_plan_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=rf"{message}.*; (take|export)") as caught:
        plan_from_json({**read().as_json(), **changes})
    assert "\n" not in str(caught.value)


def test_settings_are_inherited() -> None:
    plans, dataset = plans_of(RECIPE), dataset_of(RECIPE)
    plans["configurations"]["small"] = {"inherits_from": "3d_fullres", "patch_size": [16, 16, 16]}
    plans["configurations"]["loop"] = {"inherits_from": "loop"}
    plan = plan_from_nnunet(plans, dataset, "small")
    assert plan.patch_size == (16, 16, 16)
    assert plan.spacing_mm == (3.0, 2.0, 2.5)
    for name in ("loop", "absent"):
        with pytest.raises(ModelError, match="inherits from itself"):
            plan_from_nnunet(plans, dataset, name)


def test_a_reader_that_reorients_sets_the_orientation() -> None:
    plans, dataset = plans_of(RECIPE), dataset_of(RECIPE)
    plans["image_reader_writer"] = "NibabelIOWithReorient"
    assert plan_from_nnunet(plans, dataset, "3d_fullres").orientation == "RAS"
    assert plan_from_nnunet(plans, dataset, "3d_fullres", orientation="LAS").orientation == "LAS"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normalization_schemes": ["RGBTo01Normalization", "NoNormalization"]}, "normalisation"),
        ({"patch_size": [32, 32], "spacing": [2.0, 2.0]}, "2-D"),
        ({"previous_stage": "3d_lowres"}, "cascade"),
        ({"resampling_fn_data": "resample_torch_fornnunet"}, "resamples by"),
    ],
)
def test_what_cannot_be_run_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read(**change)


def test_an_orientation_that_is_none_is_refused() -> None:
    with pytest.raises(ModelError, match="LLL"):
        plan_from_nnunet(plans_of(RECIPE), dataset_of(RECIPE), "3d_fullres", orientation="LLL")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channel_names": {"0": "MR", "1": "PET"}}, "'MR'"),
        ({"labels": {"background": 0, "whole": [1, 2], "core": 2}}, "region"),
        ({"labels": None}, "lacks or garbles"),
    ],
)
def test_a_dataset_of_another_kind_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        plan_from_nnunet(plans_of(RECIPE), {**dataset_of(RECIPE), **change}, "3d_fullres")


@pytest.mark.parametrize(
    "change",
    [{"transpose_forward": [0, 0, 2]}, {"spacing": [0.0, 1.0, 1.0]}, {"use_mask_for_norm": [False]}],
)
def test_facts_that_cannot_be_are_refused(change: dict[str, Any]) -> None:
    plans = plans_of(RECIPE)
    plans.update(change)
    plans["configurations"]["3d_fullres"].update(change)
    with pytest.raises(ModelError):
        plan_from_nnunet(plans, dataset_of(RECIPE), "3d_fullres")


def test_plans_without_a_fact_are_refused() -> None:
    plans = plans_of(RECIPE)
    del plans["transpose_forward"]
    with pytest.raises(ModelError, match="transpose_forward"):
        plan_from_nnunet(plans, dataset_of(RECIPE), "3d_fullres")
    with pytest.raises(ModelError, match="not in order"):
        plan_from_json({"channels": ["CT"]})


def test_the_lesion_is_found_among_several_labels() -> None:
    def channel(**labels: int) -> int:
        dataset = {**dataset_of(RECIPE), "labels": {"background": 0, **labels}}
        return plan_from_nnunet(plans_of(RECIPE), dataset, "3d_fullres").lesion_channel

    assert channel(liver=1, tumour=2) == 1
    assert channel(uptake=1) == 0
    with pytest.raises(ModelError, match="lesion"):
        channel(liver=1, spleen=2)


def test_labels_to_ignore_are_no_output() -> None:
    dataset = {**dataset_of(RECIPE), "labels": {"background": 0, "lesion": 1, "ignore": 2}}
    assert plan_from_nnunet(plans_of(RECIPE), dataset, "3d_fullres").labels == {"background": 0, "lesion": 1}


def test_channels_of_one_name_are_refused() -> None:
    dataset = {**dataset_of(RECIPE), "channel_names": {"0": "CT", "1": "CT"}}
    with pytest.raises(ModelError, match="which of them is the PET"):
        plan_from_nnunet(plans_of(RECIPE), dataset, "3d_fullres")
