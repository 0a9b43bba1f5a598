"""Other crops of cropped studies, so that a crop around the tumour does not give its place away."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import ndimage

from petlesion.volume import Study, Volume

MOST_CUT_MM = 50.0
_CT_OUTSIDE_HU = -1000.0


def recut_id(case_id: str, copy: int) -> str:
    """The case id of a study's copy that was cut anew; copies count from 0."""
    return f"{case_id}_recut{copy + 1}"


def recut(study: Study, rng: np.random.Generator, most_cut_mm: float = MOST_CUT_MM) -> Study:
    """The study with 0 to `most_cut_mm` mm taken off each of its six sides, independently and uniformly.

    At least one voxel is left along every axis.
    """
    window = []
    for size, spacing in zip(study.pet.shape, study.pet.spacing_mm, strict=True):
        low, high = np.rint(rng.uniform(0, most_cut_mm, 2) / spacing).astype(int)
        low = min(low, size - 1)
        window.append(slice(low, max(size - high, low + 1)))
    return replace(
        study,
        pet=_crop(study.pet, window),
        ct=_crop(study.ct, window) if study.ct is not None else None,
        reference=_crop(study.reference, window) if study.reference is not None else None,
    )


def shift_ct(study: Study, rng: np.random.Generator, most_shift_mm: float) -> Study:
    """The study with its CT (HU, on the PET's grid) moved by up to `most_shift_mm` mm along each axis.

    PET and CT of real studies lie apart by as much, as the patient breathes and moves between them.
    """
    if study.ct is None:
        return study
    shift = rng.uniform(-most_shift_mm, most_shift_mm, 3) / study.ct.spacing_mm
    moved = ndimage.shift(study.ct.array.astype(np.float32), shift, order=1, cval=_CT_OUTSIDE_HU)
    return replace(study, ct=study.ct.with_array(moved))


def _crop(volume: Volume, window: list[slice]) -> Volume:
    z, y, x = (part.start for part in window)
    affine = volume.affine.copy()
    affine[:3, 3] = (volume.affine @ (x, y, z, 1.0))[:3]
    return Volume(volume.array[tuple(window)], affine)
