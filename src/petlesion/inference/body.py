"""Where the patient is, so that the network need not look at table and air."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from petlesion.volume import Array, Mask, Study

MARGIN_MM = 20.0

_CELL_MM = 6.0
_TISSUE_HU = -300.0
_UPTAKE_SUV = 0.2
_HOT_SUV = 1.5
_REACH_MM = 30.0  # how far from uptake tissue may lie, so that a table goes and a cold limb stays
_THICKNESS_MM = 18.0
_SMALLEST_PIECE_ML = 20.0


def body_mask(study: Study) -> Mask:
    """The patient's body and 20 mm around it, on the study's grid; all False where there is none.

    Body is what has uptake in the PET or is tissue in the CT near uptake, without what is thinner than 18 mm
    (table tops, blankets) and pieces under 20 mL. Cells of about 6 mm, on which all is found, belong to it in
    any case if their mean SUV is above 1.5, so that no lesion is lost where the CT's field of view or the
    body ends.
    """
    spacing = study.pet.spacing_mm
    factors = [max(1, round(_CELL_MM / length)) for length in spacing]
    cell_mm = [length * factor for length, factor in zip(spacing, factors, strict=True)]
    pet = _cell_means(study.pet.array, factors)
    solid = pet > _UPTAKE_SUV
    if study.ct is not None:
        tissue = _cell_means(study.ct.array, factors) > _TISSUE_HU
        solid |= tissue & _widened(solid, _REACH_MM, cell_mm)
    body = _large_pieces(_without_thin_parts(solid, cell_mm), cell_mm) | (pet > _HOT_SUV)
    cells = _widened(body, MARGIN_MM, cell_mm)
    for axis, factor in enumerate(factors):
        cells = cells.repeat(factor, axis=axis)
    z, y, x = study.pet.shape
    return cells[:z, :y, :x]


def _cell_means(array: Array, factors: Sequence[int]) -> npt.NDArray[np.float32]:
    """Mean of each cell of voxels; the last cell of an axis may be a part of one."""
    means: Array = array.astype(np.float32, copy=False)
    for axis, factor in enumerate(factors):
        if factor > 1:
            size = means.shape[axis]
            starts = np.arange(0, size, factor)
            counts = np.diff([*starts, size]).reshape([-1 if i == axis else 1 for i in range(3)])
            means = np.add.reduceat(means, starts, axis=axis) / counts.astype(np.float32)
    return np.asarray(means, dtype=np.float32)


def _widened(mask: Mask, distance_mm: float, cell_mm: Sequence[float]) -> Mask:
    sizes = [2 * math.ceil(distance_mm / length) + 1 for length in cell_mm]
    return np.asarray(ndimage.maximum_filter(mask, sizes, mode="constant"), dtype=bool)


def _without_thin_parts(mask: Mask, cell_mm: Sequence[float]) -> Mask:
    """Opening by a box; beyond the image's faces the body goes on."""
    sizes = [max(1, round(_THICKNESS_MM / length)) for length in cell_mm]
    core = ndimage.minimum_filter(mask, sizes, mode="nearest")
    origins = [0 if size % 2 else -1 for size in sizes]
    return np.asarray(ndimage.maximum_filter(core, sizes, mode="nearest", origin=origins), dtype=bool)


def _large_pieces(mask: Mask, cell_mm: Sequence[float]) -> Mask:
    labels, _ = ndimage.label(mask)
    volumes_ml = np.bincount(labels.ravel()) * math.prod(cell_mm) / 1000
    large = volumes_ml >= _SMALLEST_PIECE_ML
    large[0] = False
    return np.asarray(large[labels], dtype=bool)
