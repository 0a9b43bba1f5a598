"""Plans: nnU-Net's own for a cohort or a fingerprint, and what an experiment changes in it.

A plan is nnU-Net's plans.json as a dict. Its patch, strides and spacing are in the plan's order of axes,
which `transpose_forward` relates to the array's (z, y, x).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

from nnunetv2.experiment_planning.dataset_fingerprint import fingerprint_extractor
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

from petlesion.cohort.layout import CT_CHANNEL, PET_CHANNEL, Cohort
from petlesion.errors import CohortError, ExperimentError, FormatError
from petlesion.experiments import Experiment
from petlesion.training.jsonfile import Json, read_json
from petlesion.training.nnunet import CONFIGURATION, workplace
from petlesion.training.processes import tended_pools

# nnU-Net's choice for .nii.gz, named here so that planning opens no image to find it out.
_READER = {"overwrite_image_reader_writer": "SimpleITKIO"}
_SMALLEST_FEATURE_MAP = 4
_UNLIMITED_POOLINGS = 999_999
_CONVOLUTIONS_PER_STAGE = 2

# What a configuration says of each channel, and the scheme that scales it alike in all studies.
NORMALIZATION_KEYS = ("normalization_schemes", "use_mask_for_norm")
BY_COHORT = "CTNormalization"

# What PET is centred on by pet_normalization=suv: nnU-Net pads with zeros, which then look like soft tissue.
_BY_SUV = {"mean": 0.7, "std": 1.0}

INPUT_CHANNELS: Mapping[str, tuple[int, ...]] = {
    "ct-pet": (CT_CHANNEL, PET_CHANNEL),
    "ct": (CT_CHANNEL,),
    "pet": (PET_CHANNEL,),
}


def take_fingerprint(cohort: Cohort, processes: int) -> Json:
    """nnU-Net's fingerprint of the training cases: shapes, spacings and intensities inside lesions.

    With one process it is taken in this one. Raises CohortError if no training case has a lesion.
    """
    if not any(case.has_lesion for case in cohort.training_cases):
        raise CohortError(
            f"{cohort.folder}: no training case has a lesion, so there is nothing to learn from"
        )
    pools = tended_pools(fingerprint_extractor, processes)
    with workplace(cohort.name, training_dataset_json(cohort)), pools:
        extractor = fingerprint_extractor.DatasetFingerprintExtractor(cohort.name, processes)
        extractor.show_progress_bar = False
        try:
            return _as_json(extractor.run())
        except (RuntimeError, AssertionError) as error:
            raise CohortError(
                f"{cohort.folder}: a case cannot be read ({error}); run petlesion cohort check on it"
            ) from error


def plan_cohort(cohort: Cohort, processes: int) -> Json:
    """nnU-Net's plan of a cohort's training cases, whose images are read for it."""
    return plan_fingerprint(take_fingerprint(cohort, processes), training_dataset_json(cohort), cohort.name)


def plan_fingerprint(
    fingerprint: Mapping[str, Any], dataset_json: Mapping[str, Any], dataset_name: str
) -> Json:
    """The plan that nnU-Net's ExperimentPlanner makes of a fingerprint; no image is needed.

    Raises FormatError if either lacks what the planner reads.
    """
    settings = {**_READER, **dataset_json, "dataset": {"unread": {"images": [""], "label": ""}}}
    with workplace(dataset_name, settings) as place:
        target = place.preprocessed / "dataset_fingerprint.json"
        target.write_text(json.dumps(fingerprint), encoding="utf-8")
        try:
            return _as_json(ExperimentPlanner(dataset_name).plan_experiment())
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise FormatError(
                f"the fingerprint and the dataset.json of {dataset_name} do not make a plan ({error!r}); "
                "take both as nnU-Net v2 wrote them"
            ) from error


def training_dataset_json(cohort: Cohort) -> Json:
    """The dataset.json by which nnU-Net sees a cohort: training cases alone, with absolute paths."""
    folder = cohort.folder.resolve()
    stored = read_json(folder / "dataset.json")
    cases = {}
    for case in cohort.training_cases:
        ct, pet, label = cohort.paths(case.case_id)
        cases[case.case_id] = {
            "images": [str(ct.resolve()), str(pet.resolve())],
            "label": str(label.resolve()),
        }
    return {**stored, **_READER, "numTraining": len(cases), "dataset": cases}


def plan_arrays(plan: Mapping[str, Any], experiment: Experiment) -> Json:
    """nnU-Net's plan with what an experiment says of preprocessed arrays: PET's normalisation.

    With PET scaled alike in all studies, nnU-Net treats it as it treats CT, but nothing is clipped below,
    where organs differ from each other.
    """
    planned: Json = copy.deepcopy(dict(plan))
    configuration = planned["configurations"][CONFIGURATION]
    if experiment.pet_normalization != "study":
        configuration["normalization_schemes"][PET_CHANNEL] = BY_COHORT
        configuration["data_identifier"] += f"_pet-by-{experiment.pet_normalization}"
        intensities = planned["foreground_intensity_properties_per_channel"][str(PET_CHANNEL)]
        intensities["percentile_00_5"] = 0.0
        if experiment.pet_normalization == "suv":
            intensities |= _BY_SUV
    return planned


def pet_normalization_of(plan: Mapping[str, Any], channel: int = PET_CHANNEL) -> str:
    """The experiment's setting by which a plan's PET is normalised, which is its `channel`."""
    if plan["configurations"][CONFIGURATION]["normalization_schemes"][channel] != BY_COHORT:
        return "study"
    intensities = plan["foreground_intensity_properties_per_channel"][str(channel)]
    return "suv" if _BY_SUV.items() <= intensities.items() else "cohort"


def plan_experiment(plan: Mapping[str, Any], experiment: Experiment) -> Json:
    """nnU-Net's plan with an experiment's patch, features and batch in it.

    The plan's stages and strides stay wherever the patch can go through them; a patch that is too small for
    them gets the stages that nnU-Net gives to a patch of that size. Only the configuration that is trained is
    kept. Raises ExperimentError for a patch that no network can halve evenly.
    """
    planned: Json = copy.deepcopy(dict(plan))
    configuration = planned["configurations"][CONFIGURATION]
    if experiment.patch_size is not None:
        configuration["patch_size"] = [experiment.patch_size[axis] for axis in planned["transpose_forward"]]
        _fit_stages(configuration)
    _limit_features(configuration["architecture"]["arch_kwargs"], experiment)
    configuration["batch_size"] = experiment.batch_size
    if experiment.batch_dice is not None:
        configuration["batch_dice"] = experiment.batch_dice
    planned["configurations"] = {CONFIGURATION: configuration}
    return planned


def select_input(plan: Json, dataset_json: Mapping[str, Any], experiment: Experiment) -> tuple[Json, Json]:
    """The plan and the dataset.json of a network that sees only the experiment's channels, as 0 and up."""
    channels = INPUT_CHANNELS[experiment.input]
    selected = copy.deepcopy(plan)
    configuration = selected["configurations"][CONFIGURATION]
    for key in NORMALIZATION_KEYS:
        configuration[key] = [configuration[key][channel] for channel in channels]
    intensities = plan["foreground_intensity_properties_per_channel"]
    selected["foreground_intensity_properties_per_channel"] = {
        str(new): intensities[str(old)] for new, old in enumerate(channels)
    }
    names = dataset_json["channel_names"]
    channel_names = {str(new): names[str(old)] for new, old in enumerate(channels)}
    kept = {key: value for key, value in dataset_json.items() if key not in ("dataset", *_READER)}
    return selected, {**kept, "channel_names": channel_names}


def build_network(plan: Json, dataset_json: Mapping[str, Any], *, deep_supervision: bool) -> nn.Module:
    """nnU-Net's network for a plan: input (batch, channels, *patch), output logits of every label."""
    manager = PlansManager(plan)
    configuration = manager.get_configuration(CONFIGURATION)
    channels = determine_num_input_channels(manager, configuration, dataset_json)
    heads = manager.get_label_manager(dataset_json).num_segmentation_heads
    network: nn.Module = nnUNetTrainer.build_network_architecture(
        manager, configuration, channels, heads, enable_deep_supervision=deep_supervision
    )
    return network


def _fit_stages(configuration: Json) -> None:
    patch, network = configuration["patch_size"], configuration["architecture"]["arch_kwargs"]
    if _goes_through(patch, network["strides"]):
        return
    _, strides, kernels, fitting, divisors = get_pool_and_conv_props(
        configuration["spacing"], patch, _SMALLEST_FEATURE_MAP, _UNLIMITED_POOLINGS
    )
    if list(fitting) != list(patch):
        raise ExperimentError(
            f"patch_size={'x'.join(map(str, patch))} cannot be halved evenly at every stage; "
            f"give multiples of {'x'.join(map(str, divisors))}"
        )
    stages = len(strides)
    network["n_stages"] = stages
    network["strides"] = [list(stride) for stride in strides]
    network["kernel_sizes"] = [list(kernel) for kernel in kernels]
    network["n_conv_per_stage"] = [_CONVOLUTIONS_PER_STAGE] * stages
    network["n_conv_per_stage_decoder"] = [_CONVOLUTIONS_PER_STAGE] * (stages - 1)


def _goes_through(patch: Sequence[int], strides: Sequence[Sequence[int]]) -> bool:
    for axis, size in enumerate(patch):
        for stride in strides:
            if size % stride[axis]:
                return False
            size //= stride[axis]
        if size < _SMALLEST_FEATURE_MAP:
            return False
    return True


def _limit_features(network: Json, experiment: Experiment) -> None:
    network["features_per_stage"] = [
        min(experiment.max_features, experiment.base_features * 2**stage)
        for stage in range(network["n_stages"])
    ]


def _as_json(value: Any) -> Json:
    """What `value` is after being written to a file and read back: no tuples, no NumPy."""
    result: Json = json.loads(json.dumps(value, default=_plain))
    return result


def _plain(value: Any) -> Any:
    return value.tolist()
