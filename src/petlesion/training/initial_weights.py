"""Initial weights: the network of an earlier run, or of a bundle, that another one starts from.

A filter means something only in the plan that it was learnt in: on that spacing, with those axes and
intensities, through those stages. So whoever starts from weights takes their plan over, whatever nnU-Net
would plan for the cohort, as `nnUNetv2_move_plans_between_datasets` does for fine-tuning. The scale of PET
alone may be another one: between two scales that are the same in all studies, filters are converted.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from petlesion.cohort.layout import PET_CHANNEL
from petlesion.errors import CohortError, ExperimentError
from petlesion.experiments import Experiment
from petlesion.model.bundle import BUNDLE_FILE
from petlesion.model.training_cases import Digests, case_digests, read_training_cases, seen_cases
from petlesion.training.bundle_weights import bundled_checkpoint
from petlesion.training.checkpoint import FINAL_NAME, Checkpoint, load_checkpoint
from petlesion.training.jsonfile import Json
from petlesion.training.nnunet import CONFIGURATION
from petlesion.training.planning import BY_COHORT, NORMALIZATION_KEYS, pet_normalization_of
from petlesion.training.run import fold_folder

_SMALLEST_STD = 1e-8  # as nnU-Net has it
_ORDER_OF_AXES = ("transpose_forward", "transpose_backward")
_RESAMPLING = (
    "spacing",
    "resampling_fn_data",
    "resampling_fn_data_kwargs",
    "resampling_fn_seg",
    "resampling_fn_seg_kwargs",
    "resampling_fn_probabilities",
    "resampling_fn_probabilities_kwargs",
)


@dataclass(frozen=True)
class InitialWeights:
    """A checkpoint to start from, and digests of the cases that it saw; None where nobody kept them."""

    path: Path
    checkpoint: Checkpoint
    trained_on: Digests | None

    @classmethod
    def of(cls, experiment: Experiment, fold: int) -> InitialWeights | None:
        """Those that an experiment names for a fold, if it does.

        They are of a checkpoint, or of the same fold of a run or a bundle. Raises CohortError for a path that
        holds none of these, and ModelError for a bundle whose network cannot be trained on.
        """
        if experiment.initial_weights is None:
            return None
        path = Path(experiment.initial_weights)
        if (path / BUNDLE_FILE).is_file():
            network, checkpoint = bundled_checkpoint(path, str(fold))
            return cls(network, checkpoint, read_training_cases(path).get(network.name))
        if path.is_dir():
            path = fold_folder(path, fold) / FINAL_NAME
        if not path.is_file():
            raise CohortError(
                f"{path} is missing; give a checkpoint, a run with that fold or a bundle to start from"
            )
        return cls(path, load_checkpoint(path, torch.device("cpu")), seen_cases(path.parent))

    @property
    def plan(self) -> Json:
        """The plan that they were trained with, of the channels that they see."""
        plan: Json = self.checkpoint["init_args"]["plans"]
        return plan

    def places(self, dataset_json: Mapping[str, Any]) -> list[int | None]:
        """Where each channel of a dataset.json is among those of the weights; None for one they never saw."""
        theirs = {name: int(place) for place, name in self._dataset_json["channel_names"].items()}
        ours = dataset_json["channel_names"]
        return [theirs.get(ours[str(place)]) for place in range(len(ours))]

    def load_into(self, network: nn.Module, plan: Json, dataset_json: Mapping[str, Any]) -> None:
        """Give a network these weights, as far as its channels were theirs.

        Raises ExperimentError unless its shape is theirs otherwise, and for a channel that they never saw.
        """
        try:
            network.load_state_dict(self._weights_for(network, plan, dataset_json))
        except RuntimeError as error:
            raise ExperimentError(
                f"{self.path} holds the weights of another network; start from one of this run's labels "
                "and features, or set base_features and max_features to its own"
            ) from error

    def _weights_for(self, network: nn.Module, plan: Json, dataset_json: Mapping[str, Any]) -> dict[str, Any]:
        """The weights by name, fitted to a network of fewer channels or other scales.

        Of the first convolution the filters of the network's own channels are taken, converted to the scales
        of its plan.
        """
        channels = self._channels(dataset_json)
        factors = torch.tensor([self._factor(plan, *pair) for pair in enumerate(channels)])
        first = next(network.parameters())
        fitted: dict[str, Any] = dict(self.checkpoint["network_weights"])
        # nnU-Net's networks list the first convolution under several names.
        for name, own in network.state_dict(keep_vars=True).items():
            if name in fitted and own is first:
                fitted[name] = fitted[name][:, channels] * factors.reshape(1, -1, 1, 1, 1)
        return fitted

    def check_unseen(self, held_out: Iterable[str]) -> None:
        """Raise CohortError if they were trained on a case that is held out or kept for the test."""
        if seen := (self.trained_on or frozenset()) & case_digests(held_out):
            raise CohortError(
                f"{self.path} was trained on {len(seen)} of the cases that this fold holds out or the cohort "
                "keeps for its test; start from weights that have not seen them"
            )

    def take_plan_over(self, plan: Json, dataset_json: Mapping[str, Any]) -> Json:
        """A cohort's plan with the spacing, axes, intensities and stages that the weights were trained with.

        What they do not say of a channel that they never saw stays the cohort's. Where arrays come out
        otherwise than by the cohort's own plan, their identifier says so. Raises ExperimentError if they saw
        PET in another normalisation.
        """
        taken = copy.deepcopy(plan)
        configuration, theirs = (each["configurations"][CONFIGURATION] for each in (taken, self.plan))
        taken.update({key: self.plan[key] for key in _ORDER_OF_AXES})
        configuration.update({key: theirs[key] for key in (*_RESAMPLING, "patch_size", "architecture")})
        for channel, place in enumerate(self.places(dataset_json)):
            if place is not None and not (channel == PET_CHANNEL and self._converts_pet(plan, place)):
                self._take_normalization_over(taken, channel, place)
        if _of_arrays(taken) != _of_arrays(plan):
            configuration["data_identifier"] += f"_as-{_digest(_of_arrays(taken))}"
        return copy.deepcopy(taken)

    def _factor(self, plan: Json, channel: int, place: int) -> float:
        """What filters are multiplied by to see on this plan's scale of a channel what they saw on theirs.

        The scales' centres need no conversion: what a convolution gains by them is the same in all voxels,
        and is subtracted by the instance normalisation after it.
        """
        theirs, ours = (
            max(each["foreground_intensity_properties_per_channel"][str(number)]["std"], _SMALLEST_STD)
            if each["configurations"][CONFIGURATION]["normalization_schemes"][number] == BY_COHORT
            else 1.0
            for each, number in ((self.plan, place), (plan, channel))
        )
        return float(ours / theirs)

    def _channels(self, dataset_json: Mapping[str, Any]) -> list[int]:
        places = self.places(dataset_json)
        names = dataset_json["channel_names"]
        if missing := sorted(names[str(place)] for place, theirs in enumerate(places) if theirs is None):
            raise ExperimentError(
                f"{self.path} was trained without {', '.join(missing)}, which this run sees; "
                "start from a network whose input holds this run's"
            )
        return [place for place in places if place is not None]

    @property
    def _dataset_json(self) -> Json:
        dataset_json: Json = self.checkpoint["init_args"]["dataset_json"]
        return dataset_json

    def _take_normalization_over(self, plan: Json, channel: int, place: int) -> None:
        ours, theirs = (each["configurations"][CONFIGURATION] for each in (plan, self.plan))
        for key in NORMALIZATION_KEYS:
            ours[key][channel] = theirs[key][place]
        intensities = self.plan["foreground_intensity_properties_per_channel"][str(place)]
        plan["foreground_intensity_properties_per_channel"][str(channel)] = intensities

    def _converts_pet(self, plan: Json, place: int) -> bool:
        """Whether this plan scales PET otherwise. Raises ExperimentError where one scales study by study."""
        wanted, name = pet_normalization_of(plan), pet_normalization_of(self.plan, place)
        if wanted != name and "study" in (wanted, name):
            raise ExperimentError(
                f"{self.path} was trained with pet_normalization={name}; set it for this run too"
            )
        return wanted != name


def _of_arrays(plan: Json) -> Json:
    """What of a plan decides how preprocessed arrays come out."""
    configuration = plan["configurations"][CONFIGURATION]
    return {
        **{key: configuration[key] for key in (*_RESAMPLING, *NORMALIZATION_KEYS)},
        **{key: plan[key] for key in (*_ORDER_OF_AXES, "foreground_intensity_properties_per_channel")},
    }


def _digest(settings: Json) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
