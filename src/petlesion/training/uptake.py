"""Where a case takes up most, so that patches without a lesion are drawn there.

Brain, heart, bladder and bowel fill little of a field of view, and are what a network takes for lesions. The
weight of a voxel is the square of its preprocessed PET less the case's lowest value, so that the ratio of two
voxels' weights does not hang on the normalisation's mean and standard deviation.

    <preprocessed arrays>_uptake/<case>.npz    voxels drawn from the case in proportion to their weights

A case's voxels are drawn once for all runs, by its id alone.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from petlesion.cohort.layout import PET_CHANNEL
from petlesion.training.centres import VOXELS_PER_CASE, Centres, case_generator, draw_voxels
from petlesion.training.processes import Progress, in_processes

_SUFFIX = "_uptake"


def draw_uptake(data_folder: Path, case_ids: tuple[str, ...], processes: int, progress: Progress) -> Centres:
    """Draw the voxels of the cases that have none yet; `data_folder` holds the preprocessed arrays."""
    centres = Centres(data_folder.with_name(data_folder.name + _SUFFIX))
    missing = centres.missing(case_ids)
    if missing:
        with progress("finding uptake", len(missing)) as advance:
            work = partial(_draw_case, data_folder, centres)
            for _ in in_processes(work, missing, processes, data_folder):
                advance()
    return centres


def _draw_case(data_folder: Path, centres: Centres, case_id: str) -> None:
    data, *_ = nnUNetDatasetBlosc2(str(data_folder), [case_id]).load_case(case_id)
    pet = np.asarray(data[PET_CHANNEL], dtype=np.float32)
    weights = (pet - pet.min()) ** 2
    centres.write(case_id, draw_voxels(weights, VOXELS_PER_CASE, case_generator(case_id)))
