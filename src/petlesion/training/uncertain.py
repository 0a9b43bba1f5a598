"""Where an earlier run was unsure or wrong, so that patches are drawn there.

The weight of a voxel is H(p) + |p − y|: the entropy in bits of the lesion probability p that the earlier run
gave it held out, and how far p is from the reference y (0 or 1). So it is 0 where the run was surely right, 1
where it was surely wrong, 1.5 at one half, and at most log2 3. A case weighs the sum over its voxels times
their volume (mL).

    RUN/unsure/
      earlier_run.json    which weights it was that were unsure
      <case>.npz          what the case weighs, and voxels drawn from it in proportion to their weights

A case's voxels are drawn once for all folds of a run, by its seed and the case's id alone, so that a training
that goes on draws the same patches, whatever has become of the earlier run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from petlesion.cohort.layout import Cohort, Fold
from petlesion.errors import CohortError
from petlesion.experiments import Experiment
from petlesion.inference.backends.torch import weights_sha256
from petlesion.inference.resampling import Float
from petlesion.inference.uncertainty import binary_entropy
from petlesion.io.jsonfile import load_json
from petlesion.io.nifti import read_grid, read_mask, read_volume
from petlesion.model.held_out import RECORD, how_to_predict, predictions_folder, probability_path
from petlesion.model.training_cases import read_split
from petlesion.training.centres import VOXELS_PER_CASE, Centres, Voxels, case_generator, draw_voxels
from petlesion.training.jsonfile import Json, read_json, write_json
from petlesion.training.processes import Progress, in_processes
from petlesion.volume import Volume

_FOLDER = "unsure"
_EARLIER_RUN = "earlier_run.json"


@dataclass(frozen=True)
class UnsurePlaces:
    """What a run takes from an earlier one: voxels of its training cases, and where they are kept."""

    centres: Centres
    cohort: Cohort
    case_ids: tuple[str, ...]
    earlier_run: Path
    seed: int

    def check(self) -> None:
        """Raise CohortError unless the earlier run has held-out probabilities of all cases still undrawn."""
        missing = self._missing()
        if missing:
            check_held_out(self.earlier_run, self.cohort, missing)

    def draw(self, plan: Json, data_folder: Path, processes: int, progress: Progress) -> None:
        """Draw the voxels of the cases that have none yet; `data_folder` holds the preprocessed arrays.

        Raises CohortError as `check`, and if other cases were drawn by other weights of the earlier run.
        """
        missing = self._missing()
        if not missing:
            return
        self._keep_fingerprint(check_held_out(self.earlier_run, self.cohort, missing))
        work = partial(_draw_case, self, tuple(plan["transpose_forward"]), data_folder)
        with progress("weighing", len(missing)) as advance:
            for _ in in_processes(work, missing, processes, self.cohort.folder):
                advance()

    def shares(self) -> dict[str, float]:
        """The share of each case in the weight of all; raises CohortError if nothing weighs anything."""
        weights = {case_id: self.centres.weight_ml(case_id) for case_id in self.case_ids}
        total = sum(weights.values())
        if total == 0:
            raise CohortError(
                f"{self.earlier_run} is nowhere unsure or wrong in the cases of this fold; "
                "train with sampling=cases"
            )
        return {case_id: weight / total for case_id, weight in weights.items()}

    def _missing(self) -> list[str]:
        return self.centres.missing(self.case_ids)

    def _keep_fingerprint(self, fingerprint: str) -> None:
        path = self.centres.folder / _EARLIER_RUN
        content = {"weights_sha256": fingerprint}
        if not path.is_file():
            write_json(path, content)
        elif read_json(path) != content:
            raise CohortError(
                f"{self.earlier_run} has changed since this run's first patches were drawn by it; "
                "restore it, or train into another results folder"
            )


def find_unsure(run_folder: Path, cohort: Cohort, experiment: Experiment, fold: Fold) -> UnsurePlaces:
    """The places in a fold's training cases of an experiment whose sampling is uncertain."""
    assert experiment.earlier_run is not None
    centres = Centres(run_folder / _FOLDER)
    return UnsurePlaces(centres, cohort, fold.train, Path(experiment.earlier_run), experiment.seed)


def check_held_out(run: Path, cohort: Cohort, case_ids: Sequence[str]) -> str:
    """Check that a run has predicted these cases by folds that did not see them; return the weights' sha256.

    Raises CohortError where probabilities are missing, were made by other weights or on other grids, or where
    a fold was trained on another split, and ModelError where a network is missing.
    """
    record = _read_record(run, cohort)
    again = how_to_predict(run, cohort.folder)
    fold_of = {case_id: str(k) for k, fold in enumerate(cohort.folds) for case_id in fold.validation}
    for case_id in case_ids:
        if fold_of[case_id] not in record["folds"]:
            raise CohortError(
                f"{predictions_folder(run)} holds nothing of fold {fold_of[case_id]}, whose cases are to be "
                f"trained on; train that fold too, and {again} in place of what is there"
            )
    for number in sorted({fold_of[case_id] for case_id in case_ids}):
        split = read_split(run / f"fold_{number}")
        if split is None or set(split.train) != set(cohort.folds[int(number)].train):
            raise CohortError(
                f"{run}: fold {number} was not trained on the split of {cohort.folder}, so that it cannot be "
                "told which cases it has not seen; give a run that was"
            )
    for case_id in case_ids:
        path = probability_path(run, case_id)
        if not path.is_file():
            raise CohortError(f"{path} is missing; {again}")
        if not read_grid(path).matches(read_grid(cohort.label_path(case_id))):
            raise CohortError(f"{path} is not on the grid of the case as it is now; remove it and {again}")
    return str(record["weights_sha256"])


def weigh(probability: Volume, reference: Volume) -> Float:
    """The weight of each voxel: its probability's entropy in bits and its distance from the reference."""
    values = probability.array.astype(np.float32, copy=False)
    return binary_entropy(values) + np.abs(values - reference.array.astype(np.float32))


def resampled(voxels: Voxels, old: Sequence[int], new: Sequence[int], rng: np.random.Generator) -> Voxels:
    """The voxels of an array of another shape over the same space, at a random point inside each voxel.

    So a voxel's weight is spread evenly over those that it is split into.
    """
    points = (voxels + rng.random(voxels.shape)) * (np.array(new) / np.array(old))
    last = np.array(new) - 1
    return np.asarray(np.minimum(points, last), dtype=np.int32)


def _read_record(run: Path, cohort: Cohort) -> Mapping[str, Any]:
    """The record of a run's held-out predictions, of the run's own networks as they are now."""
    folder, again = predictions_folder(run), how_to_predict(run, cohort.folder)
    try:
        record = load_json(folder / RECORD)
        (folds,) = record["folds"]
        held_out, made_by = bool(record["held_out"]), str(record["weights_sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        raise CohortError(f"{folder} holds no held-out predictions; {again}") from None
    if not held_out or made_by != weights_sha256(run, folds):
        raise CohortError(
            f"{folder} is not what the run, as it is now, makes of held-out studies; remove it and {again}"
        )
    return {"folds": folds, "weights_sha256": made_by}


def _draw_case(places: UnsurePlaces, transpose: tuple[int, ...], data_folder: Path, case_id: str) -> None:
    """Weigh a case, draw its voxels where nnU-Net has cropped it to, and keep them."""
    probability = read_volume(probability_path(places.earlier_run, case_id))
    weights = weigh(probability, read_mask(places.cohort.label_path(case_id))).transpose(transpose)
    data, _, _, properties = nnUNetDatasetBlosc2(str(data_folder), [case_id]).load_case(case_id)
    inside = weights[tuple(slice(*bounds) for bounds in properties["bbox_used_for_cropping"])]
    rng = case_generator(case_id, places.seed)
    voxels = draw_voxels(inside, VOXELS_PER_CASE, rng)
    weight_ml = float(inside.sum(dtype=np.float64)) * probability.voxel_volume_ml
    centres = resampled(voxels, inside.shape, data.shape[1:], rng)
    places.centres.write(case_id, centres, weight_ml=weight_ml)
