"""Smooth random fields: the same from the same seed for the same extent in mm, whatever the voxels' size."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from petlesion.simulation.shapes import Floats


def smooth_field(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    scale_mm: float,
) -> Floats:
    """Draw a field [z, y, x] of mean 0 and variance about 1 that varies over `scale_mm`.

    Normal deviates on a lattice of that spacing are joined by smoothed linear interpolation.
    """
    sizes = [int(np.ceil(n * step / scale_mm)) + 2 for n, step in zip(shape, spacing_mm, strict=True)]
    field: Floats = rng.standard_normal(sizes, dtype=np.float32)
    for axis, (count, step) in enumerate(zip(shape, spacing_mm, strict=True)):
        field = _interpolate(field, np.arange(count) * (step / scale_mm), axis)
    return field


def _interpolate(field: Floats, at: npt.NDArray[np.floating], axis: int) -> Floats:
    lower = at.astype(np.intp)
    share = (at - lower).astype(np.float32)
    share = share * share * (3 - 2 * share)
    # Interpolation lowers the variance to a share that this undoes.
    share_of_deviation = np.sqrt(share**2 + (1 - share) ** 2)
    along = [1, 1, 1]
    along[axis] = -1
    upper_weight = (share / share_of_deviation).reshape(along)
    lower_weight = ((1 - share) / share_of_deviation).reshape(along)
    result: Floats = np.take(field, lower, axis) * lower_weight
    result += np.take(field, lower + 1, axis) * upper_weight
    return result
