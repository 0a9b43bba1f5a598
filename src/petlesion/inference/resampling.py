"""nnU-Net's resampling to and from a plan's spacing, one axis after the other.

nnU-Net calls skimage's `resize` (edge mode, no anti-aliasing), which is scipy's `zoom` with `grid_mode`: a
tensor product of one-axis spline interpolations. Each is a linear map, so a volume is resampled by three
products with small matrices in place of one evaluation of 64 spline weights per voxel; where a voxel hangs on
one or two neighbours alone, they are picked.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from petlesion.model.plan import Interpolation

Float = npt.NDArray[np.float32]
Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]

_THICK_SLICES = 3.0  # nnU-Net's ANISO_THRESHOLD


def shape_at_spacing(shape: Shape, spacing: Spacing, new_spacing: Spacing) -> Shape:
    """Shape of an image after resampling, as nnU-Net rounds it."""
    z, y, x = (round(old / new * n) for old, new, n in zip(spacing, new_spacing, shape, strict=True))
    return max(z, 1), max(y, 1), max(x, 1)


def resize(
    image: Float, shape: Shape, spacing: Spacing, new_spacing: Spacing, interpolation: Interpolation
) -> Float:
    """Resample [z, y, x] to `shape`; the spacings decide whether thick slices are treated one by one.

    Equals nnunetv2's resample_data_or_seg_to_shape, which never leaves the range of the input: for
    slices that are treated one by one, the range of each slice.
    """
    if image.shape == shape:
        return image
    across = slice_axis(interpolation.separate_slices, spacing, new_spacing)
    within = tuple(axis for axis in range(3) if axis != across)
    original = image
    for axis in sorted(within, key=lambda axis: shape[axis] / original.shape[axis]):
        image = _resize_axis(image, axis, shape[axis], interpolation.order)
    if interpolation.order > 1:
        lowest, highest = (limit(original, axis=within, keepdims=True) for limit in (np.min, np.max))
        image = np.clip(image, lowest, highest)
    if across is not None:
        image = _resize_axis(image, across, shape[across], interpolation.order_across)
    return image


def slice_axis(separate: bool | None, spacing: Spacing, new_spacing: Spacing) -> int | None:
    """The axis across slices that nnU-Net resamples one by one, or None (determine_do_sep_z_and_axis)."""
    if separate is None:
        thick = [s for s in (spacing, new_spacing) if max(s) / min(s) > _THICK_SLICES]
        decisive = thick[0] if thick else None
    else:
        decisive = spacing if separate else None
    if decisive is None:
        return None
    coarse = [axis for axis in range(3) if decisive[axis] == max(decisive)]
    return coarse[0] if len(coarse) == 1 else None


def _resize_axis(image: Float, axis: int, size: int, order: int) -> Float:
    if image.shape[axis] == size:
        return image
    if order == 0:
        return image.take(_nearest(image.shape[axis], size), axis)
    if order == 1:
        return _between_neighbours(image, axis, size)
    matrix = _interpolation_matrix(image.shape[axis], size, order)
    # One large product each: many small ones cost far more wherever BLAS shares them out among threads.
    if axis == 0:
        resized = matrix @ image.reshape(len(image), -1)
        return resized.reshape(size, *image.shape[1:])
    moved = np.moveaxis(image, axis, -1)
    resized = moved.reshape(-1, moved.shape[-1]) @ matrix.T
    return np.moveaxis(resized.reshape(*moved.shape[:-1], size), -1, axis)


def _between_neighbours(image: Float, axis: int, size: int) -> Float:
    """Linear interpolation; beyond the middle of the first and last voxel, these alone."""
    last = image.shape[axis] - 1
    positions = np.clip((np.arange(size) + 0.5) * (image.shape[axis] / size) - 0.5, 0, last)
    before = positions.astype(np.intp)
    share = (positions - before).astype(np.float32).reshape([-1 if i == axis else 1 for i in range(3)])
    left = image.take(before, axis)
    mean: Float = image.take(np.minimum(before + 1, last), axis)
    mean -= left
    mean *= share
    mean += left
    return mean


def _nearest(size: int, new_size: int) -> npt.NDArray[np.intp]:
    """The voxel that scipy takes for each new one."""
    positions = size / new_size * (np.arange(new_size) + 0.5) - 0.5
    nearest = ndimage.map_coordinates(np.arange(size), positions[None], order=0, mode="nearest")
    return np.asarray(nearest, dtype=np.intp)


def _interpolation_matrix(size: int, new_size: int, order: int) -> Float:
    """The matrix [new_size, size] of scipy's one-axis zoom: its answer to each unit vector."""
    units = np.eye(size)
    matrix = ndimage.zoom(units, (new_size / size, 1.0), order=order, mode="nearest", grid_mode=True)
    return np.asarray(matrix, dtype=np.float32)
