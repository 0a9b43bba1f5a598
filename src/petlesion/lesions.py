"""Lesions: the 18-connected components of a mask; finding, removing and measuring them."""

from __future__ import annotations

import math

import cc3d
import numpy as np
import numpy.typing as npt

from petlesion.errors import UsageError
from petlesion.volume import Mask

Labels = npt.NDArray[np.uint32]

_CONNECTIVITY = 18
_ROUNDING = 1e-6


def label_components(mask: Mask) -> tuple[Labels, int]:
    """Number the 18-connected components of a mask [z, y, x]: labels 1 … n (0 is background), and n."""
    labels = np.zeros(mask.shape, dtype=np.uint32)
    box = bounding_box(mask)
    if box is None:
        return labels, 0
    inside, count = cc3d.connected_components(
        np.ascontiguousarray(mask[box]), connectivity=_CONNECTIVITY, return_N=True, binary_image=True
    )
    labels[box] = inside
    return labels, int(count)


def component_sizes(labels: Labels, count: int) -> npt.NDArray[np.int64]:
    """Voxels of each component: entry i is the size of label i + 1."""
    return np.bincount(labels[labels > 0], minlength=count + 1)[1:]


def remove_small_components(mask: Mask, min_voxels: int) -> Mask:
    """Keep the 18-connected components of `min_voxels` voxels or more."""
    labels, count = label_components(mask)
    voxels = labels > 0
    kept = component_sizes(labels, count) >= min_voxels
    result = np.zeros_like(voxels)
    result[voxels] = kept[labels[voxels] - 1]
    return result


def min_voxels_for_volume(min_volume_ml: float, voxel_volume_ml: float) -> int:
    """Return the fewest voxels that make up at least `min_volume_ml`, to one part in a million.

    0.124 mL on autoPET's grid (2.0364 × 2.0364 × 3 mm) are 10 voxels. Raises UsageError for a volume
    below zero.
    """
    if not (math.isfinite(min_volume_ml) and min_volume_ml >= 0):
        raise UsageError(f"a smallest volume of {min_volume_ml} mL cannot be; give 0 or more")
    return math.ceil(min_volume_ml / voxel_volume_ml * (1 - _ROUNDING))


def bounding_box(mask: Mask) -> tuple[slice, slice, slice] | None:
    """Return the smallest box (z, y, x) around a mask's voxels, None for an empty mask."""
    slices = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        used = np.flatnonzero(mask.any(axis=others))
        if not used.size:
            return None
        slices.append(slice(int(used[0]), int(used[-1]) + 1))
    z, y, x = slices
    return z, y, x
