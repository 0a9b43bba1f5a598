"""From one grid to another.

A spline's value is linear in the samples, so that between two grids with parallel axes it is one small matrix
per axis, prefilter included, and an image goes through three matrix products. The conventions are those of
`scipy.ndimage.affine_transform(order=3, mode="constant")`, with which (through nilearn) the public autoPET
`CTres` files were made: the spline is mirrored at the centres of the outermost voxels, and what lies beyond
them is filled. Grids that are oblique to one another go through SimpleITK's B-spline.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_banded
from threadpoolctl import threadpool_limits

from petlesion.errors import ValueRangeError
from petlesion.volume import Array, Grid, Volume

Floats = npt.NDArray[np.float64]

_PARALLEL_TOLERANCE_VOXELS = 1e-4
_EDGE_TOLERANCE_VOXELS = 1e-3
_NEGLIGIBLE_WEIGHT = 1e-8
_BLOCK_ROWS = 32
_SLAB_VOXELS = 2**21


def resample_to_grid(volume: Volume, grid: Grid, *, fill: float, order: int = 3) -> Volume:
    """Interpolate an image on another grid by a spline of order 1 or 3; float32.

    Voxels that lie beyond the centres of the outermost voxels of `volume` become `fill` (−1024 HU for a CT).
    Raises ValueRangeError for an image with voxels that are not finite.
    """
    if volume.array.dtype.kind == "f" and not np.isfinite(volume.array).all():
        raise ValueRangeError(
            "an image with voxels that are not finite cannot be resampled; replace them first"
        )
    axes = _parallel_axes(volume.grid, grid)
    if axes is None:
        return Volume(_resample_oblique(volume, grid, fill, order), grid.affine)
    result = np.full(grid.shape, fill, dtype=np.float32)
    sides = [_inside(axis) for axis in axes]
    if all(side.stop > side.start for side in sides):
        weights = [_weights(axis, side, order) for axis, side in zip(axes, sides, strict=True)]
        box = _interpolate(volume.array, weights)
        place = tuple(sides[source] for source in _source_order(axes))
        result[place] = box.transpose(_source_order(axes))
    return Volume(result, grid.affine)


def resample_mask_to_grid(mask: Volume, grid: Grid) -> Volume:
    """Take the nearest voxel of a mask for each voxel of another grid; False outside the mask's voxels."""
    axes = _parallel_axes(mask.grid, grid)
    if axes is None:
        return Volume(_nearest_oblique(mask, grid), grid.affine)
    result = np.zeros(grid.shape, dtype=bool)
    nearest = [np.floor(axis.coordinates + 0.5).astype(np.int64) for axis in axes]
    valid = [
        np.flatnonzero((index >= 0) & (index < axis.size)) for index, axis in zip(nearest, axes, strict=True)
    ]
    taken = mask.array[np.ix_(*(index[keep] for index, keep in zip(nearest, valid, strict=True)))]
    order = _source_order(axes)
    result[np.ix_(*(valid[source] for source in order))] = taken.transpose(order) != 0
    return Volume(result, grid.affine)


@dataclass(frozen=True, eq=False)
class _Axis:
    """One axis of the source: its size, the target's axis along it, and where that one's voxels lie on it."""

    size: int
    target: int
    coordinates: Floats


def cell_means(array: Array, factors: Sequence[int]) -> npt.NDArray[np.float32]:
    """Means of whole cells of voxels [z, y, x]; what is left over at the far sides is left out."""
    counts = [max(1, size // factor) for size, factor in zip(array.shape, factors, strict=True)]
    sizes = [min(factor, size) for size, factor in zip(array.shape, factors, strict=True)]
    whole = array[tuple(slice(count * size) for count, size in zip(counts, sizes, strict=True))]
    blocks = whole.astype(np.float32, copy=False).reshape(
        [length for count, size in zip(counts, sizes, strict=True) for length in (count, size)]
    )
    return np.asarray(blocks.mean(axis=(1, 3, 5)), dtype=np.float32)


def _parallel_axes(source: Grid, target: Grid) -> list[_Axis] | None:
    """For each source axis (z, y, x) the target's axis along it, or None if the grids are oblique."""
    matrix, offset = _index_map(source, target)
    axes = []
    for row, start, size in zip(matrix, offset, source.shape, strict=True):
        along = int(np.argmax(np.abs(row)))
        astray = np.abs(np.delete(row, along)) @ (np.delete(target.shape, along) - 1)
        if astray > _PARALLEL_TOLERANCE_VOXELS:
            return None
        axes.append(_Axis(size, along, start + row[along] * np.arange(target.shape[along])))
    return axes if {axis.target for axis in axes} == {0, 1, 2} else None


def _index_map(source: Grid, target: Grid) -> tuple[Floats, Floats]:
    """Return matrix and offset that take a target index (z, y, x) to the source's."""
    affine: Floats = np.linalg.solve(source.affine, target.affine).astype(np.float64)
    return affine[2::-1, 2::-1], affine[2::-1, 3]


def _source_order(axes: list[_Axis]) -> list[int]:
    return [int(i) for i in np.argsort([axis.target for axis in axes])]


def _inside(axis: _Axis) -> slice:
    """The target's voxels that lie between the outermost source centres."""
    outside = np.maximum(-axis.coordinates, axis.coordinates - (axis.size - 1))
    inside = np.flatnonzero(outside <= _EDGE_TOLERANCE_VOXELS)
    return slice(int(inside[0]), int(inside[-1]) + 1) if inside.size else slice(0, 0)


def _weights(axis: _Axis, side: slice, order: int) -> Array:
    """What each source sample (column) contributes to each target voxel (row), float32."""
    coordinates = np.clip(axis.coordinates[side], 0, axis.size - 1)
    basis = _cubic_basis(coordinates, axis.size) if order == 3 else _linear_basis(coordinates, axis.size)
    basis[np.abs(basis) < _NEGLIGIBLE_WEIGHT] = 0
    return basis.astype(np.float32)


def _linear_basis(coordinates: Floats, size: int) -> Floats:
    distance = np.abs(coordinates[:, None] - np.arange(size))
    return np.asarray(np.clip(1 - distance, 0, None))


def _cubic_basis(coordinates: Floats, size: int) -> Floats:
    """Weights of the cubic B-spline that interpolates `size` samples, mirrored at the first and the last."""
    if size == 1:
        return np.ones((len(coordinates), 1))
    first = np.floor(coordinates).astype(np.int64)
    basis = np.zeros((len(coordinates), size))
    rows = np.arange(len(coordinates))
    for step in (-1, 0, 1, 2):
        knot = first + step
        distance = np.abs(coordinates - knot)
        near = 2 / 3 - distance**2 * (1 - distance / 2)
        far = np.clip(2 - distance, 0, None) ** 3 / 6
        mirrored = np.abs(knot)
        mirrored = np.where(mirrored >= size, 2 * (size - 1) - mirrored, mirrored)
        np.add.at(basis, (rows, np.abs(mirrored)), np.where(distance < 1, near, far))
    # Sample i is (c[i-1] + 4 c[i] + c[i+1]) / 6 of the spline's coefficients c; the weights must undo that.
    transposed = np.full((3, size), 1 / 6)
    transposed[1] = 4 / 6
    transposed[2, 0] = transposed[0, -1] = 2 / 6
    return np.asarray(solve_banded((1, 1), transposed, basis.T).T)


@dataclass(frozen=True, eq=False)
class _Block:
    """Some rows of a band matrix and the columns that they need."""

    rows: slice
    columns: slice
    weights: Array


def _blocks(weights: Array) -> list[_Block]:
    """Cut a band matrix into dense blocks, which spares the products with its zeros."""
    blocks = []
    for start in range(0, len(weights), _BLOCK_ROWS):
        rows = slice(start, min(start + _BLOCK_ROWS, len(weights)))
        used = np.flatnonzero(weights[rows].any(axis=0))
        columns = slice(int(used[0]), int(used[-1]) + 1)
        blocks.append(_Block(rows, columns, np.ascontiguousarray(weights[rows, columns])))
    return blocks


def _interpolate(array: Array, weights: list[Array]) -> Array:
    """Apply one matrix to each axis of an array; within the slices first, since those shrink most."""
    along_z, along_y, along_x = (_blocks(matrix) for matrix in weights)
    depth, height, width = (len(matrix) for matrix in weights)
    slices = np.empty((array.shape[0], height, width), dtype=np.float32)
    flat = slices.reshape(len(slices), -1)
    result = np.empty((depth, height * width), dtype=np.float32)

    def within_slices(part: slice) -> None:
        slab = np.ascontiguousarray(array[part], dtype=np.float32)
        narrow = np.empty((*slab.shape[:2], width), dtype=np.float32)
        for block in along_x:
            np.matmul(slab[..., block.columns], block.weights.T, out=narrow[..., block.rows])
        for block in along_y:
            np.matmul(block.weights, narrow[:, block.columns], out=slices[part, block.rows])

    def across_slices(part: slice) -> None:
        for block in along_z:
            np.matmul(block.weights, flat[block.columns, part], out=result[block.rows, part])

    first = min(block.columns.start for block in along_z)
    last = max(block.columns.stop for block in along_z)
    # Small products on threads of our own: those of the BLAS wait for one another on a busy machine.
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor() as pool:
        list(pool.map(within_slices, _parts(first, last, _SLAB_VOXELS // (array.shape[1] * array.shape[2]))))
        list(pool.map(across_slices, _parts(0, flat.shape[1], _SLAB_VOXELS // len(slices))))
    return result.reshape(depth, height, width)


def _parts(start: int, stop: int, step: int) -> list[slice]:
    step = max(1, step)
    return [slice(begin, min(begin + step, stop)) for begin in range(start, stop, step)]


def _resample_oblique(volume: Volume, grid: Grid, fill: float, order: int) -> Array:
    import SimpleITK as sitk  # noqa: N813

    kind = sitk.sitkBSpline3 if order == 3 else sitk.sitkLinear
    values = _resample_with_itk(volume.array.astype(np.float32, copy=False), volume.grid, grid, kind, fill)
    values[_outside(volume.grid, grid, margin=_EDGE_TOLERANCE_VOXELS)] = fill
    return values


def _nearest_oblique(mask: Volume, grid: Grid) -> Array:
    import SimpleITK as sitk  # noqa: N813

    bits = (mask.array != 0).astype(np.uint8)
    return np.asarray(_resample_with_itk(bits, mask.grid, grid, sitk.sitkNearestNeighbor, 0) != 0)


def _resample_with_itk(array: Array, source: Grid, target: Grid, kind: int, fill: float) -> Array:
    import SimpleITK as sitk  # noqa: N813

    resampler = sitk.ResampleImageFilter()
    resampler.SetInterpolator(kind)
    resampler.SetDefaultPixelValue(fill)
    spacing, origin, direction = _itk_place(target)
    resampler.SetSize([int(n) for n in target.shape[::-1]])
    resampler.SetOutputSpacing(spacing)
    resampler.SetOutputOrigin(origin)
    resampler.SetOutputDirection(direction)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array))
    spacing, origin, direction = _itk_place(source)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction)
    return np.asarray(sitk.GetArrayFromImage(resampler.Execute(image)))


def _itk_place(grid: Grid) -> tuple[list[float], list[float], list[float]]:
    spacing = np.linalg.norm(grid.affine[:3, :3], axis=0)
    direction = grid.affine[:3, :3] / spacing
    return spacing.tolist(), grid.affine[:3, 3].tolist(), direction.ravel().tolist()


def _outside(source: Grid, target: Grid, margin: float) -> npt.NDArray[np.bool_]:
    """Which target voxels have their centre beyond the outermost centres of the source."""
    matrix, offset = _index_map(source, target)
    z, y, x = np.ogrid[tuple(slice(n) for n in target.shape)]
    outside = np.zeros(target.shape, dtype=bool)
    for row, start, size in zip(matrix, offset, source.shape, strict=True):
        coordinate = start + row[0] * z + row[1] * y + row[2] * x
        outside |= (coordinate < -margin) | (coordinate > size - 1 + margin)
    return outside
