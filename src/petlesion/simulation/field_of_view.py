"""The field of view: which part of a patient is scanned, on which voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from petlesion.simulation.body import BodyMap, Patient
from petlesion.simulation.masks import OrganMasks
from petlesion.volume import Array, Volume

# Lengths of autoPET's scans in mm and how often each occurs (shapes in the released fingerprint of 919).
_SCAN_LENGTHS_MM = (726.0, 852.0, 903.0, 978.0, 1104.0, 1731.0)
_SCAN_SHARES = (0.06, 0.26, 0.06, 0.44, 0.06, 0.12)
_LONGEST_TRUNK_MM = 1500.0
_MARGIN_MM = 16.0
_HALF_WIDTH_MM = {True: 215.0, False: 275.0}  # with arms up, and down
_FRONT_MM, _BACK_MM = 140.0, 130.0


@dataclass(frozen=True)
class FieldOfView:
    """The voxels of a study, and the block of them (slices of y and x) that holds the body.

    `shape` and `spacing_mm` are (z, y, x); `origin_mm` is the first voxel's centre in LPS (x, y, z).
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    block: tuple[slice, slice]

    def axes(self) -> list[npt.NDArray[np.floating]]:
        """LPS mm of all voxels along x, y and z."""
        steps = zip(self.origin_mm, self.spacing_mm[::-1], self.shape[::-1], strict=True)
        return [origin + step * np.arange(count) for origin, step, count in steps]

    def block_axes(self) -> list[npt.NDArray[np.floating]]:
        """LPS mm along x, y and z of the voxels of the block."""
        x, y, z = self.axes()
        return [x[self.block[1]], y[self.block[0]], z]

    def whole(self, block: Array, surroundings: Array) -> Volume:
        """The block's image put into its surroundings, which are used up."""
        surroundings[:, self.block[0], self.block[1]] = block
        affine = np.diag([*self.spacing_mm[::-1], 1.0])
        affine[:3, 3] = self.origin_mm
        return Volume(surroundings, affine)


def place_field(
    patient: Patient,
    body: BodyMap,
    spacing_mm: tuple[float, float, float],
    width_mm: float,
    slices: int | None,
    rng: np.random.Generator,
) -> FieldOfView:
    """Draw which part of the patient is scanned: most often from the head down to the thighs."""
    step = spacing_mm[0]
    length = float(rng.choice(_SCAN_LENGTHS_MM, p=_SCAN_SHARES))
    top = rng.uniform(880, 930) if length > _LONGEST_TRUNK_MM else rng.normal(785, 35)
    shift_x, shift_y = rng.normal(0, 8), rng.normal(15, 20)
    count = slices if slices is not None else round(length / step)
    lowest = float(body.patient_z(np.array([top]))[0]) - count * step
    return _centred((float(shift_x), float(shift_y), lowest), count, patient, body, spacing_mm, width_mm)


def field_of_masks(
    masks: OrganMasks,
    patient: Patient,
    body: BodyMap,
    spacing_mm: tuple[float, float, float],
    width_mm: float,
    slices: int | None,
) -> FieldOfView:
    """The field in which organ masks were made; fewer slices are taken from its middle."""
    first, last = masks.bounds_mm
    step = spacing_mm[0]
    # Two slices at least: the step between them tells the body's parts how thick a slice is.
    whole = max(2, round(float(last[2] - first[2]) / step) + 1)
    count = min(slices, whole) if slices is not None else whole
    middle = (first + last) / 2
    centre = (float(middle[0]), float(middle[1]), float(middle[2]) - (count - 1) / 2 * step)
    return _centred(centre, count, patient, body, spacing_mm, width_mm)


def _centred(
    centre: Sequence[float],
    slices: int,
    patient: Patient,
    body: BodyMap,
    spacing_mm: tuple[float, float, float],
    width_mm: float,
) -> FieldOfView:
    """A field about `centre` in x and y that begins at its z, and the block that holds the body."""
    _, step_y, step_x = spacing_mm
    rows, columns = round(width_mm / step_y), round(width_mm / step_x)
    origin = (centre[0] - (columns - 1) / 2 * step_x, centre[1] - (rows - 1) / 2 * step_y, centre[2])
    grown = patient.fat_mm + _MARGIN_MM
    wide, deep = 1.1 * max(body.width.values), 1.1 * max(body.depth.values)
    half_width = (_HALF_WIDTH_MM[patient.arms_up] + grown) * wide
    middle_x, middle_y = body.middle_x_mm.values, body.middle_y_mm.values
    x = _between(origin[0], step_x, columns, min(middle_x) - half_width, max(middle_x) + half_width)
    front, back = (_FRONT_MM + grown) * deep, (_BACK_MM + grown) * deep
    y = _between(origin[1], step_y, rows, min(middle_y) - front, max(middle_y) + back)
    return FieldOfView((slices, rows, columns), spacing_mm, origin, (y, x))


def _between(origin: float, step: float, count: int, low: float, high: float) -> slice:
    first = int(np.clip(np.ceil((low - origin) / step), 0, count - 2))
    last = int(np.clip(np.floor((high - origin) / step), first + 1, count - 1))
    return slice(first, last + 1)
