"""Batches of augmented patches, drawn by nnU-Net's data loader.

Batch n of a run is drawn with random states derived from (seed, fold, n) alone. So it is the same whichever
process draws it, however many do, and whether or not the training was interrupted before it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from torch.utils.data import DataLoader, Dataset

from petlesion.experiments import Experiment
from petlesion.training.centres import Centres
from petlesion.training.nnunet import LESION
from petlesion.training.processes import begin_worker

# nnU-Net's: "data" (batch, channels, z, y, x), "target", one array of labels (batch, 1, z, y, x) for each
# supervised output with the finest first, and "keys", the case of each patch.
Batch = dict[str, Any]
# What nnU-Net would take for a label, of voxels with high uptake.
_UPTAKE = "uptake"
# Of the patches that are not on a lesion, the share that is centred on such a voxel; the others keep the
# rest of the body, and the air around it, in sight.
_UPTAKE_SHARE = 0.8


@dataclass(frozen=True)
class Places:
    """Where patches are drawn beside anywhere and the lesions of any case.

    Oversampled ones are centred on the voxels of `oversampled` in place of the lesions', in cases drawn by
    their `shares`; most of the others on the voxels of `uptake`.
    """

    oversampled: Centres | None = None
    shares: Mapping[str, float] | None = None
    uptake: Centres | None = None


@dataclass(frozen=True)
class _ChannelView:
    """Some channels of an array on disk, read only where they are sliced."""

    array: Any
    channels: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.channels), *self.array.shape[1:])

    def __getitem__(self, place: tuple[slice, ...]) -> Any:
        return np.stack([self.array[(channel, *place[1:])] for channel in self.channels])


class SelectedChannels(nnUNetDatasetBlosc2):  # type: ignore[misc]
    """Preprocessed cases of which only some channels are seen, with the places to draw patches at."""

    def __init__(
        self, folder: Path, case_ids: Sequence[str], channels: Sequence[int], places: Places = Places()
    ) -> None:
        super().__init__(str(folder), list(case_ids))
        self.channels = tuple(channels)
        self.places = places

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Arrays (channels, *space) of the image and of the reference, nothing, and the case's properties."""
        data, reference, previous, properties = super().load_case(identifier)
        if self.channels != tuple(range(data.shape[0])):
            data = _ChannelView(data, self.channels)
        locations: dict[Any, Any] = dict(properties["class_locations"])
        if self.places.oversampled is not None:
            locations = {LESION: self.places.oversampled.read(identifier)}
        if self.places.uptake is not None:
            locations[_UPTAKE] = self.places.uptake.read(identifier)
        return data, reference, previous, {**properties, "class_locations": locations}


@dataclass(frozen=True)
class Stream:
    """Where patches come from and how they are drawn: nnU-Net's loader with its transforms."""

    loader: nnUNetDataLoader
    batches_per_epoch: int


class _CaseLoader(nnUNetDataLoader):  # type: ignore[misc]
    """nnU-Net's loader that draws the cases of a batch from groups of cases, one group after the other.

    Which group comes first is drawn for each batch, so that no group always has the last, oversampled patch.
    """

    groups: Sequence[Sequence[str]]

    def get_indices(self) -> list[str]:
        """The case of each patch of the next batch."""
        first = np.random.randint(len(self.groups))  # noqa: NPY002 - as nnU-Net draws
        turns = [self.groups[(first + patch) % len(self.groups)] for patch in range(self.batch_size)]
        return [self.draw_case(group, patch) for patch, group in enumerate(turns)]

    def draw_case(self, group: Sequence[str], patch: int) -> str:
        """A case of the group whose turn it is, for the patch at that place in the batch."""
        return str(np.random.choice(group))  # noqa: NPY002

    def get_bbox(
        self, data_shape: Any, force_fg: bool, class_locations: dict[Any, Any], *arguments: Any
    ) -> tuple[list[int], list[int]]:
        """Where a patch begins and ends along each axis, be it around a lesion, uptake or anything."""
        locations = dict(class_locations)
        uptake = locations.pop(_UPTAKE, ())
        on_lesion = force_fg and any(len(voxels) for voxels in locations.values())
        if len(uptake) and not on_lesion and np.random.uniform() < _UPTAKE_SHARE:  # noqa: NPY002
            force_fg, locations = True, {_UPTAKE: uptake}
        begin, end = super().get_bbox(data_shape, force_fg, locations, *arguments)
        return begin, end


class _ShareCaseLoader(_CaseLoader):
    """Draws the case of each oversampled patch in proportion to its share, the others' as ever.

    Of the group whose turn it is only those with a share are drawn; where none has one, any that has.
    """

    shares: Mapping[str, float]
    get_do_oversample: Callable[[int], bool]

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._decide = self.get_do_oversample
        self._decided: list[bool] = []
        self.get_do_oversample = self._as_decided

    def get_indices(self) -> list[str]:
        """The case of each patch of the next batch, after deciding which patches are oversampled."""
        self._decided = [self._decide(patch) for patch in range(self.batch_size)]
        return super().get_indices()

    def draw_case(self, group: Sequence[str], patch: int) -> str:
        """A case of the group, by its share if the patch is oversampled."""
        if not self._decided[patch]:
            return super().draw_case(group, patch)
        drawn = [case for case in group if case in self.shares] or list(self.shares)
        shares = np.array([self.shares[case] for case in drawn])
        return str(np.random.choice(drawn, p=shares / shares.sum()))  # noqa: NPY002

    def _as_decided(self, patch: int) -> bool:
        return self._decided[patch]


def group_cases(case_ids: Sequence[str], sources: Mapping[str, str], sampling: str) -> list[list[str]]:
    """The groups that batches draw from in turn: with `sources` one for each source of cases, else one."""
    groups: dict[str, list[str]] = {}
    for case_id in case_ids:
        groups.setdefault(sources[case_id] if sampling == "sources" else "", []).append(case_id)
    return [groups[name] for name in sorted(groups)]


def patch_loader(
    cases: nnUNetDatasetBlosc2,
    experiment: Experiment,
    patches: tuple[Sequence[int], Sequence[int]],
    label_manager: Any,
    transforms: Any,
    groups: Sequence[Sequence[str]],
    shares: Mapping[str, float] | None = None,
) -> nnUNetDataLoader:
    """nnU-Net's loader with the experiment's oversampling, whose batches draw from those groups in turn.

    `patches` are the sizes in voxels (z, y, x) that are cut from a case and that augmentation leaves. With
    oversampling `last` the last patches of a batch are centred on a lesion voxel, as many as the share rounds
    to; with `probabilistic` each patch is, with that probability. With `shares` (by case) the cases of such
    patches are drawn in proportion to them, within the group whose turn it is.
    """
    cut, final = patches
    loader = (_CaseLoader if shares is None else _ShareCaseLoader)(
        cases,
        experiment.batch_size,
        list(cut),
        list(final),
        label_manager,
        oversample_foreground_percent=experiment.oversampling,
        probabilistic_oversampling=experiment.oversampling_kind == "probabilistic",
        transforms=transforms,
    )
    loader.groups = groups
    if shares is not None:
        loader.shares = shares
    return loader


class Batches(Dataset[Batch]):
    """All batches of a run by number: in each epoch first those to train on, then those to validate with."""

    def __init__(self, training: Stream, validation: Stream, seeds: tuple[int, int]) -> None:
        self.training = training
        self.validation = validation
        self.seeds = seeds

    @property
    def per_epoch(self) -> int:
        """Batches in one epoch, of both kinds."""
        return self.training.batches_per_epoch + self.validation.batches_per_epoch

    def __getitem__(self, number: int) -> Batch:
        """Draw batch `number`; it does not depend on those drawn before it."""
        seed_everything(*self.seeds, number)
        trains = number % self.per_epoch < self.training.batches_per_epoch
        stream = self.training if trains else self.validation
        batch: Batch = stream.loader.generate_train_batch()
        return batch


def seed_everything(*entropy: int) -> None:
    """Seed Python's, NumPy's and torch's global random states from a few numbers."""
    python, numpy, torch_ = np.random.SeedSequence(entropy).generate_state(3)
    random.seed(int(python))
    np.random.seed(int(numpy))  # noqa: NPY002 - nnU-Net draws from the global state
    torch.manual_seed(int(torch_))


def iterate_batches(batches: Batches, numbers: range, *, workers: int, pin_memory: bool) -> Iterator[Batch]:
    """Draw the batches of those numbers, in order, ahead of time in `workers` processes.

    The processes end with the one that started them, however that ends.
    """
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        pin_memory=pin_memory,
        prefetch_factor=max(2, 6 // workers) if workers else None,
        worker_init_fn=begin_worker,
        multiprocessing_context="forkserver" if workers else None,
    )
    return iter(loader)
