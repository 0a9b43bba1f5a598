"""From a study to the probability of a lesion in every voxel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from petlesion.errors import ModelError, UsageError
from petlesion.inference.preprocessing import channel_arrays, prepare, restore, transposed_spacing
from petlesion.inference.resampling import Float
from petlesion.inference.tiling import Network, Window, all_tiles, pad_to_patch, weighted_mean
from petlesion.model.plan import Plan
from petlesion.volume import Study, Volume

NOWHERE = -100.0
"""The lesion's logit against the background where no network looked."""

TILES = ("full", "body")
OnTile = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Member:
    """Networks of one plan, by fold; their logits are averaged, as nnU-Net does."""

    plan: Plan
    networks: Mapping[str, Network]


@dataclass(frozen=True, eq=False)
class Model:
    """What segments a study: one member, or several of other input or architecture.

    `name` says what it is to a reader of a result.
    """

    name: str
    members: tuple[Member, ...]


@dataclass(frozen=True)
class PredictionSettings:
    """How the window moves. Raises UsageError for what cannot be.

    `tiles`: "full" (nnU-Net's) or "body"; `step`: distance of tiles in patches, above 0 and at most 1;
    `mirror`: None mirrors as the model was trained.
    """

    tiles: str = "body"
    step: float = 0.5
    mirror: bool | None = None

    def __post_init__(self) -> None:
        if self.tiles not in TILES:
            raise UsageError(f"tiles are {' or '.join(TILES)}, not {self.tiles!r}")
        if not 0 < self.step <= 1:
            raise UsageError(f"a step of {self.step} patches cannot be; give a number above 0 and at most 1")


@dataclass(frozen=True, eq=False)
class Prediction:
    """Probability of a lesion (float32, 0 to 1) on the PET's grid, and that of each member of the model."""

    probability: Volume
    members: tuple[Volume, ...]


def load_model(
    path: Path,
    folds: Sequence[str] | None = None,
    device: str = "auto",
    precision: str = "auto",
    orientation: str | None = None,
) -> Model:
    """Load a bundle, or a run or any nnU-Net v2 model folder (which needs torch).

    Raises ModelError for what is neither, MissingExtraError where torch is needed and absent.
    """
    path = Path(path)
    if not (path / "plans.json").is_file():
        raise ModelError(
            f"{path} is neither a bundle (bundle.json) nor an nnU-Net v2 model folder (plans.json)"
        )
    from petlesion.inference.backends.torch import TorchNetwork, choose_device, open_model_folder

    folder = open_model_folder(path, folds, orientation)
    chosen = choose_device(device)
    networks = {fold: TorchNetwork(network, chosen, precision) for fold, network in folder.networks.items()}
    return Model(path.name, (Member(folder.plan, networks),))


def predict(
    study: Study,
    model: Model,
    settings: PredictionSettings = PredictionSettings(),
    on_tile: OnTile = lambda done, total: None,
) -> Prediction:
    """Find the probability of a lesion in every voxel of the study, in the study's own axes.

    Within a member the folds' logits are averaged, between members their probabilities (as stock nnU-Net's
    predictor and its nnUNetv2_ensemble do). `on_tile(done, total)` is called after each tile.
    """
    members = tuple(_predict_member(study, member, settings, on_tile) for member in model.members)
    return Prediction(_mean(members), members)


def _predict_member(study: Study, member: Member, settings: PredictionSettings, on_tile: OnTile) -> Volume:
    plan = member.plan
    network_input = prepare(channel_arrays(study, plan), transposed_spacing(study, plan), plan)
    data, image_box = pad_to_patch(network_input.data, plan.patch_size)
    tiles = all_tiles(data.shape[1:], plan.patch_size, settings.step)
    window = Window(tuple(tiles), plan.patch_size, _mirror_axes(plan, settings.mirror))
    padded = weighted_mean(data, window, list(member.networks.values()), NOWHERE, on_tile)
    logits = restore(padded[(slice(None), *image_box)], network_input, plan, NOWHERE)
    probability = lesion_probability(logits, plan.lesion_channel)
    oriented = study.pet.reoriented(plan.orientation)
    return oriented.with_array(probability).reoriented(study.pet.orientation)


def lesion_probability(logits: Float, lesion_channel: int) -> Float:
    """Softmax probability of one label from logits against the background, [label, z, y, x] -> [z, y, x]."""
    if len(logits) == 1:
        return _sigmoid(logits[0])
    highest = np.maximum(logits.max(axis=0), 0)
    total = np.exp(-highest) + np.exp(logits - highest).sum(axis=0)
    return np.asarray(np.exp(logits[lesion_channel] - highest) / total, dtype=np.float32)


def _sigmoid(logits: Float) -> Float:
    """1 / (1 + exp(-logits)), in as little memory as one copy takes."""
    result = np.negative(logits)
    np.exp(result, out=result)
    result += 1
    return np.reciprocal(result, out=result)


def _mirror_axes(plan: Plan, mirror: bool | None) -> tuple[int, ...]:
    if mirror is None:
        return plan.mirror_axes
    return (plan.mirror_axes or (0, 1, 2)) if mirror else ()


def _mean(members: Sequence[Volume]) -> Volume:
    if len(members) == 1:
        return members[0]
    mean = members[0].array.copy()
    for member in members[1:]:
        mean += member.array
    mean /= len(members)
    return members[0].with_array(mean)
