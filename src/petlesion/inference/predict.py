"""From a study to the probability of a lesion in every voxel."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from petlesion.errors import MissingExtraError, ModelError, StudyError, UsageError
from petlesion.inference.backends.openvino import check_precision, choose_precision, open_network
from petlesion.inference.body import body_mask
from petlesion.inference.preprocessing import (
    NetworkInput,
    channel_arrays,
    mask_on_network_grid,
    prepare,
    restore,
    transposed_spacing,
)
from petlesion.inference.resampling import Float
from petlesion.inference.tiling import (
    Box,
    MirroredNetwork,
    Network,
    Window,
    all_tiles,
    body_tiles,
    mirror_combinations,
    pad_to_patch,
    weighted_mean,
)
from petlesion.inference.uncertainty import PassSums, Uncertainty
from petlesion.model.bundle import BUNDLE_FILE, Bundle
from petlesion.model.calibrated import read_calibration
from petlesion.model.plan import CT, Plan
from petlesion.model.training_cases import Digests, case_digests, read_training_cases, trained_on
from petlesion.volume import Grid, Study, Volume

DEVICES = ("auto", "cpu", "cuda", "mps")
TILES = ("body", "full")
AVERAGES = ("logits", "probabilities")
LESION_PROBABILITY = 0.5
"""A voxel is lesion where its probability is above this."""

NOWHERE = -100.0
"""The lesion's logit against the background where no network looked."""

OnTile = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Member:
    """Networks of one plan, by fold, and the digests of the cases that each was trained on, where known.

    `weight` is its share in the mean of the members' probabilities, as against the others'.
    """

    plan: Plan
    networks: Mapping[str, Network]
    trained_on: Mapping[str, Digests] = field(default_factory=dict)
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class Model:
    """What segments a study: one member, or several of other input or architecture, loaded once.

    `name` says what it is to a reader of a result, `fingerprint` (a sha256) which weights exactly;
    `precision` is the one computed in. `calibration` is stored beside the weights, as petlesion.calibration
    reads it; None where the model was never calibrated.
    `min_volume_ml` is the smallest size of a lesion that was chosen for it, if any.
    """

    name: str
    members: tuple[Member, ...]
    precision: str
    fingerprint: str
    calibration: Mapping[str, Any] | None = None
    min_volume_ml: float | None = None

    @property
    def needs_ct(self) -> bool:
        """Whether a study without CT cannot be given to it."""
        return any(CT in member.plan.channels for member in self.members)

    @property
    def knows_its_training_cases(self) -> bool:
        """Whether it can be told of every network what it was trained on."""
        return all(set(member.networks) <= set(member.trained_on) for member in self.members)

    def has_seen(self, case_ids: Iterable[str]) -> bool:
        """Whether any of its networks is known to be trained on any of these cases."""
        digests = case_digests(case_ids)
        return any(
            not digests.isdisjoint(member.trained_on.get(fold, ()))
            for member in self.members
            for fold in member.networks
        )


@dataclass(frozen=True)
class PredictionSettings:
    """How the window moves and how folds are averaged. Raises UsageError for what cannot be.

    `tiles`: "body", or "full" for nnU-Net's own; `step`: distance of tiles in patches, above 0, at most 1;
    `mirror`: None mirrors as the model was trained; `fold_average`: "logits" as stock nnU-Net's predictor
    does, or "probabilities" as the paper's test predictions were averaged.
    """

    tiles: str = "body"
    step: float = 0.5
    mirror: bool | None = None
    fold_average: str = "logits"

    def __post_init__(self) -> None:
        if self.tiles not in TILES:
            raise UsageError(f"tiles are {' or '.join(TILES)}, not {self.tiles!r}")
        if not 0 < self.step <= 1:
            raise UsageError(f"a step of {self.step} patches cannot be; give a number above 0 and at most 1")
        if self.fold_average not in AVERAGES:
            raise UsageError(f"folds are averaged by {' or '.join(AVERAGES)}, not {self.fold_average!r}")


@dataclass(frozen=True, eq=False)
class Prediction:
    """Probability of a lesion (float32, 0 to 1) on the PET's grid and in its axes.

    `uncertainty` is None unless it was asked for.
    """

    probability: Volume
    uncertainty: Uncertainty | None = None


@dataclass(frozen=True, eq=False)
class PreparedMember:
    """One member's input: the padded data, where the image lies in it, and the tiles to look at."""

    member: Member
    network_input: NetworkInput
    padded: Float
    image_box: Box
    window: Window


@dataclass(frozen=True, eq=False)
class PreparedStudy:
    """A study ready for a model's networks; what `prepare_study` hands to `predict_prepared`."""

    name: str
    grid: Grid
    members: tuple[PreparedMember, ...]
    settings: PredictionSettings


def load_model(
    path: str | Path,
    folds: Sequence[str] | None = None,
    device: str = "auto",
    precision: str = "auto",
    *,
    threads: int | None = None,
    orientation: str | None = None,
) -> Model:
    """Load a bundle, or a run or any nnU-Net v2 model folder (which needs torch).

    A bundle runs on the processor by OpenVINO. `folds`: names such as "0"; None takes all of a bundle, and
    of a model folder those that `open_model_folder` takes. `threads`: of the processor, for bundles alone;
    None takes all. `orientation` as in `plan_from_nnunet`, for model
    folders alone. Raises ModelError for what is neither, MissingExtraError where torch is needed and absent,
    UsageError.
    """
    path = Path(path)
    if device not in DEVICES:
        raise UsageError(f"a device is one of {', '.join(DEVICES)}, not {device!r}")
    if folds is not None and not folds:
        raise UsageError(f"{path}: no fold is named; name one such as 0, or leave folds out to take all")
    if (path / BUNDLE_FILE).is_file():
        if orientation is not None:
            raise UsageError(f"{path} is a bundle, which knows its orientation; leave it out")
        return _load_bundle(path, folds, device, precision, threads)
    if (path / "plans.json").is_file():
        if threads is not None:
            raise UsageError(f"{path} runs on torch, whose own settings tell the threads; leave them out")
        return _load_model_folder(path, folds, device, precision, orientation)
    raise ModelError(
        f"{path} is neither a bundle ({BUNDLE_FILE}) nor an nnU-Net v2 model folder (plans.json); "
        "give the folder that petlesion model export or a training wrote"
    )


def predict(
    study: Study,
    model: Model,
    settings: PredictionSettings = PredictionSettings(),
    on_tile: OnTile = lambda done, total: None,
    *,
    with_uncertainty: bool = False,
) -> Prediction:
    """Find the probability of a lesion in every voxel of the study, in the study's own axes.

    Members' probabilities are averaged by their weights, equal ones as nnUNetv2_ensemble does. `on_tile(done,
    total)` is called after each tile of each network. `with_uncertainty` takes each pass's answer to the
    study's grid by itself, which takes longer and leaves the probability as it is but for float32's rounding.
    Raises StudyError where a CT is needed and absent, or no body is found.
    """
    prepared = prepare_study(study, model, settings)
    return predict_prepared(prepared, on_tile, with_uncertainty=with_uncertainty)


def prepare_study(study: Study, model: Model, settings: PredictionSettings) -> PreparedStudy:
    """The part of `predict` that needs no network, so that it may run beside another study's network."""
    body = _body(study) if settings.tiles == "body" else None
    inputs = _network_inputs(study, [member.plan for member in model.members])
    members = tuple(
        _prepare_member(inputs[member.plan.preprocessing], member, settings, body) for member in model.members
    )
    return PreparedStudy(study.name, study.pet.grid, members, settings)


def predict_prepared(
    prepared: PreparedStudy,
    on_tile: OnTile = lambda done, total: None,
    *,
    with_uncertainty: bool = False,
) -> Prediction:
    """The part of `predict` that runs the networks and takes their answer back to the study's grid.

    Raises ModelError where a network cannot be run or gives what is no number, MemoryError.
    """
    total = sum(_count_tiles(part, each_mirroring=with_uncertainty) for part in prepared.members)
    tiles_done = 0

    def count_tile() -> None:
        nonlocal tiles_done
        tiles_done += 1
        on_tile(tiles_done, total)

    sums = PassSums(prepared.grid) if with_uncertainty else None
    members = [partial(_predict_member, prepared, part, sums, count_tile) for part in prepared.members]
    try:
        probability = _mean(members, [part.member.weight for part in prepared.members])
    except ModelError as error:
        raise ModelError(f"study {prepared.name}: {error}") from None
    return Prediction(probability, uncertainty=sums.uncertainty() if sums else None)


def lesion_probability(logits: Float, lesion_channel: int) -> Float:
    """Softmax probability of a label from logits against the background, [label, z, y, x] -> [z, y, x]."""
    if len(logits) == 1:
        return np.asarray(expit(logits[0]), dtype=np.float32)
    highest = np.maximum(logits.max(axis=0), 0)
    total = np.exp(-highest) + np.exp(logits - highest).sum(axis=0)
    return np.asarray(np.exp(logits[lesion_channel] - highest) / total, dtype=np.float32)


def _load_bundle(
    path: Path, folds: Sequence[str] | None, device: str, precision: str, threads: int | None
) -> Model:
    if device not in ("auto", "cpu"):
        raise UsageError(f"a bundle runs on the processor; for {device} give the run that it was made from")
    bundle = Bundle.open(path)
    chosen = choose_precision(precision)
    cases = read_training_cases(path)
    members = []
    for member in bundle.members:
        wanted = list(member.networks) if folds is None else list(folds)
        missing = [fold for fold in wanted if fold not in member.networks]
        if missing:
            raise ModelError(f"{path} has no fold {missing[0]}; there are {', '.join(member.networks)}")
        networks = {
            fold: open_network(path / member.networks[fold], member.plan, chosen, threads) for fold in wanted
        }
        known = {fold: cases[member.networks[fold]] for fold in wanted if member.networks[fold] in cases}
        members.append(Member(member.plan, networks, known, member.weight))
    return Model(
        bundle.card.name,
        tuple(members),
        chosen,
        bundle.fingerprint,
        bundle.calibration,
        min_volume_ml=bundle.card.min_volume_ml,
    )


def _load_model_folder(
    path: Path, folds: Sequence[str] | None, device: str, precision: str, orientation: str | None
) -> Model:
    try:
        from petlesion.inference.backends.torch import TorchNetwork, choose_device, open_model_folder
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{path}, a folder of checkpoints,", "train") from error
    chosen_device = choose_device(device)
    check_precision(precision)
    chosen = "float32" if precision == "auto" else precision  # torch has bfloat16 everywhere, if slowly
    folder = open_model_folder(path, folds, orientation)
    networks = {fold: TorchNetwork(net, chosen_device, chosen) for fold, net in folder.networks.items()}
    member = Member(folder.plan, networks, trained_on(path, networks))
    calibration = read_calibration(path, folder.weights_sha256)
    return Model(path.name, (member,), chosen, folder.weights_sha256, calibration)


def _body(study: Study) -> Volume:
    """The body, found in one orientation so that it does not hang on how a file lies."""
    study = study.reoriented()
    body = body_mask(study)
    if not body.any():
        raise StudyError(
            f"study {study.name}: no body is found in its PET and CT; look at the images, "
            "or search all of them with --tiles full"
        )
    return study.pet.with_array(body)


def _network_inputs(study: Study, plans: Iterable[Plan]) -> dict[Hashable, NetworkInput]:
    """What the networks see, by their plans' preprocessing: made once for those that see the same."""
    distinct = {plan.preprocessing: plan for plan in plans}
    return {
        preprocessing: prepare(channel_arrays(study, plan), transposed_spacing(study, plan), plan)
        for preprocessing, plan in distinct.items()
    }


def _prepare_member(
    network_input: NetworkInput, member: Member, settings: PredictionSettings, body: Volume | None
) -> PreparedMember:
    plan = member.plan
    padded, image_box = pad_to_patch(network_input.data, plan.patch_size)
    z, y, x = padded.shape[1:]
    if body is None:
        tiles = all_tiles((z, y, x), plan.patch_size, settings.step)
    else:
        mask = np.zeros((z, y, x), dtype=bool)
        mask[image_box] = mask_on_network_grid(body, network_input, plan)
        tiles = body_tiles(mask, plan.patch_size, settings.step)
    window = Window(tuple(tiles), plan.patch_size, mirror_axes(plan, settings.mirror))
    return PreparedMember(member, network_input, padded, image_box, window)


def _predict_member(
    prepared: PreparedStudy, part: PreparedMember, sums: PassSums | None, on_tile: Callable[[], None]
) -> Volume:
    """Lesion probability on the study's grid; with `sums`, each pass by itself is added to them."""
    networks = list(part.member.networks.values())
    apart = prepared.settings.fold_average == "probabilities"
    groups = [[network] for network in networks] if apart else [networks]

    def predict_group(group: Sequence[Network]) -> Volume:
        if sums is None:
            logits = _logits(part, part.window, group, on_tile)
        else:
            logits = _mean_of_passes(prepared, part, group, sums, on_tile)
        return _as_probability(logits, part.member.plan, prepared.grid)

    return _mean([partial(predict_group, group) for group in groups], [1.0] * len(groups))


def _mean_of_passes(
    prepared: PreparedStudy,
    part: PreparedMember,
    networks: Sequence[Network],
    sums: PassSums,
    on_tile: Callable[[], None],
) -> Float:
    """As `_logits`, one network under one mirroring after the other."""
    window = replace(part.window, mirror_axes=())
    mirrorings = mirror_combinations(part.window.mirror_axes)
    weight = part.member.weight / (len(part.member.networks) * len(mirrorings))
    total: Float | None = None
    for network, axes in itertools.product(networks, mirrorings):
        logits = _logits(part, window, [MirroredNetwork(network, axes)], on_tile)
        sums.add(_as_probability(logits, part.member.plan, prepared.grid).array, weight)
        total = logits if total is None else np.add(total, logits, out=total)
    assert total is not None
    total /= len(networks) * len(mirrorings)
    return total


def _logits(
    part: PreparedMember, window: Window, networks: Sequence[Network], on_tile: Callable[[], None]
) -> Float:
    """Mean logits [label, z, y, x] of some networks on the study's voxels, in the plan's orientation."""
    padded = weighted_mean(part.padded, window, networks, NOWHERE, on_tile)
    if not np.isfinite(padded).all():
        raise ModelError(
            "the network's answer is no number somewhere; take --precision float32, or verify the model"
        )
    return restore(padded[(slice(None), *part.image_box)], part.network_input, part.member.plan, NOWHERE)


def _as_probability(logits: Float, plan: Plan, grid: Grid) -> Volume:
    """Lesion probability, in the axes of the study's grid."""
    probability = lesion_probability(logits, plan.lesion_channel)
    oriented = Volume(probability, grid.reoriented(plan.orientation).affine)
    return oriented.reoriented(grid.orientation)


def _count_tiles(part: PreparedMember, *, each_mirroring: bool) -> int:
    mirrorings = len(mirror_combinations(part.window.mirror_axes)) if each_mirroring else 1
    return len(part.window.tiles) * len(part.member.networks) * mirrorings


def mirror_axes(plan: Plan, mirror: bool | None) -> tuple[int, ...]:
    """The axes along which a member's patches are mirrored too; None mirrors as it was trained."""
    if mirror is None:
        return plan.mirror_axes if plan.mirrored else ()
    return (plan.mirror_axes or (0, 1, 2)) if mirror else ()


def _mean(volumes: Sequence[Callable[[], Volume]], weights: Sequence[float]) -> Volume:
    """Weighted mean of volumes that are computed one after the other, of which only the sum is kept."""
    first, *others = volumes
    if not others:
        return first()
    shares = [np.float32(weight) for weight in weights]
    mean = first()
    mean = mean.with_array(mean.array * shares[0])
    total = mean.array
    for compute, share in zip(others, shares[1:], strict=True):
        total += compute().array * share
    total /= sum(shares)
    return mean
