"""A 3-D array with its place in the patient, and the PET/CT study made of such arrays.

Arrays are indexed [z, y, x]. An affine maps the voxel index (x, y, z) to LPS millimetres: x grows to the
patient's left, y to the back, z to the head (DICOM PS3.3 C.7.6.2.1.1, and ITK).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from petlesion.errors import GeometryError

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

LPS = "LPS"
_DIRECTION_LETTERS = (("R", "L"), ("A", "P"), ("I", "S"))
_SHEAR_TOLERANCE = 1e-3
_GRID_TOLERANCE_VOXELS = 1e-2


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the voxels of an image lie.

    `shape` is (z, y, x); `affine` is 4 × 4 and maps the index (x, y, z, 1) to LPS mm.
    Raises GeometryError for an affine that is not finite, singular or sheared.
    """

    shape: tuple[int, int, int]
    affine: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        shape = tuple(int(n) for n in self.shape)
        if len(shape) != 3 or min(shape) < 1:
            raise GeometryError(f"an image has the shape {shape}, but needs three axes of one voxel or more")
        _check_affine(affine)
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape", shape)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxels in mm, in the array's order (z, y, x)."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(z), float(y), float(x)

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in mL."""
        return float(np.prod(self.spacing_mm)) / 1000.0

    @property
    def orientation(self) -> str:
        """Three letters: towards which side of the patient the x, y and z index grow, such as LPS or RAS."""
        letters = []
        for world_axis, sign in _axis_directions(self.affine):
            letters.append(_DIRECTION_LETTERS[world_axis][int(sign > 0)])
        return "".join(letters)

    def matches(self, other: Grid) -> bool:
        """Whether both grids have the same shape and no voxel lies more than 1 % of a voxel apart."""
        if self.shape != other.shape:
            return False
        corners = np.array([[x, y, z, 1.0] for x in (0, 1) for y in (0, 1) for z in (0, 1)])
        corners[:, :3] *= np.array(self.shape[::-1]) - 1
        distance_mm = np.linalg.norm(corners @ (self.affine - other.affine).T, axis=1)
        return bool(distance_mm.max() <= _GRID_TOLERANCE_VOXELS * min(self.spacing_mm))

    def reoriented(self, orientation: str) -> Grid:
        """The grid of the same voxels with axes permuted and flipped to `orientation`."""
        return self._stepped(_steps(self.orientation, orientation))

    def _stepped(self, steps: _Steps) -> Grid:
        columns = np.zeros((4, 4))
        columns[:, 3] = self.affine[:, 3]
        size = self.shape[::-1]
        for new_axis, (old_axis, flip) in enumerate(steps):
            columns[:, new_axis] = self.affine[:, old_axis] * (-1 if flip else 1)
            if flip:
                columns[:, 3] += self.affine[:, old_axis] * (size[old_axis] - 1)
        columns[3] = (0, 0, 0, 1)
        x, y, z = (size[old_axis] for old_axis, _ in steps)
        return Grid((z, y, x), columns)


@dataclass(frozen=True, eq=False)
class Volume:
    """An array [z, y, x] and the affine that maps its index (x, y, z) to LPS mm.

    Raises GeometryError for an array that is not 3-D or an affine that cannot be.
    """

    array: Array
    affine: npt.NDArray[np.float64]
    grid: Grid = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.array.ndim != 3:
            raise GeometryError(f"an image has {self.array.ndim} axes, but needs the three z, y, x")
        z, y, x = self.array.shape
        grid = Grid((z, y, x), self.affine)
        object.__setattr__(self, "grid", grid)
        object.__setattr__(self, "affine", grid.affine)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the array, (z, y, x)."""
        return self.grid.shape

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxels in mm, (z, y, x)."""
        return self.grid.spacing_mm

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in mL."""
        return self.grid.voxel_volume_ml

    @property
    def orientation(self) -> str:
        """Towards which side of the patient the x, y and z index grow, such as LPS."""
        return self.grid.orientation

    def with_array(self, array: Array) -> Volume:
        """Another array of the same shape at the same place."""
        if array.shape != self.shape:
            raise GeometryError(
                f"an array of shape {array.shape} does not fit the grid of shape {self.shape}"
            )
        return Volume(array, self.affine)

    def reoriented(self, orientation: str = LPS) -> Volume:
        """The same image with its axes permuted and flipped (never interpolated) to `orientation`."""
        steps = _steps(self.orientation, orientation)
        array = self.array.transpose([2 - old_axis for old_axis, _ in reversed(steps)])
        for new_axis, (_, flip) in enumerate(steps):
            if flip:
                array = np.flip(array, axis=2 - new_axis)
        return Volume(array, self.grid._stepped(steps).affine)


@dataclass(frozen=True, eq=False)
class Study:
    """One PET/CT study on the PET's grid.

    `pet` is in SUV (body weight), `ct` in HU or None, `reference` the reference lesions (bool) or None.
    `warnings` are sentences for the reader of a result; none of them names the patient.
    Raises GeometryError where the grids differ.
    """

    name: str
    pet: Volume
    ct: Volume | None = None
    reference: Volume | None = None
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for what, other in (("CT", self.ct), ("reference", self.reference)):
            if other is not None and not other.grid.matches(self.pet.grid):
                raise GeometryError(
                    f"study {self.name}: the {what}'s grid {other.shape} is not the PET's {self.pet.shape} "
                    f"or lies elsewhere; resample the {what} to the PET first"
                )

    def reoriented(self, orientation: str = LPS) -> Study:
        """The same study with the axes of all its images permuted and flipped to `orientation`."""
        return replace(
            self,
            pet=self.pet.reoriented(orientation),
            ct=self.ct.reoriented(orientation) if self.ct is not None else None,
            reference=self.reference.reoriented(orientation) if self.reference is not None else None,
        )


# For each new axis (x, y, z): which old axis it is, and whether that one is flipped.
_Steps = list[tuple[int, bool]]


def _axis_directions(affine: npt.NDArray[np.float64]) -> list[tuple[int, float]]:
    """For each index axis (x, y, z): the patient axis it runs along, each used once, and its sign."""
    cosines = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    directions: list[tuple[int, float]] = [(-1, 0.0)] * 3
    remaining = np.abs(cosines)
    for _ in range(3):
        world_axis, index_axis = (int(i) for i in np.unravel_index(np.argmax(remaining), (3, 3)))
        directions[index_axis] = (world_axis, float(cosines[world_axis, index_axis]))
        remaining[world_axis, :] = -1
        remaining[:, index_axis] = -1
    return directions


def _steps(current: str, wanted: str) -> _Steps:
    current_axes = _parse_orientation(current)
    order = [axis for axis, _ in current_axes]
    steps = []
    for world_axis, positive in _parse_orientation(wanted):
        old_axis = order.index(world_axis)
        steps.append((old_axis, current_axes[old_axis][1] != positive))
    return steps


def _parse_orientation(letters: str) -> list[tuple[int, bool]]:
    axes = []
    for letter in letters:
        for world_axis, pair in enumerate(_DIRECTION_LETTERS):
            if letter in pair:
                axes.append((world_axis, letter == pair[1]))
    if len(letters) != 3 or sorted(axis for axis, _ in axes) != [0, 1, 2]:
        raise GeometryError(
            f"{letters!r} is not an orientation; give one letter each of LR, PA, SI, such as LPS"
        )
    return axes


def _check_affine(affine: npt.NDArray[np.float64]) -> None:
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise GeometryError(
            "an image's affine is not a finite 4 × 4 matrix; write the image again from its source"
        )
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if lengths.min() < 1e-6:
        raise GeometryError("an image's affine is singular: an axis has no length; write the image again")
    cosines = affine[:3, :3] / lengths
    off_diagonal = cosines.T @ cosines - np.eye(3)
    if np.abs(off_diagonal).max() > _SHEAR_TOLERANCE:
        problem = "singular" if abs(np.linalg.det(cosines)) < _SHEAR_TOLERANCE else "sheared"
        raise GeometryError(
            f"an image's affine is {problem}: its axes do not stand at right angles; "
            "resample the image to a rectangular grid first"
        )
