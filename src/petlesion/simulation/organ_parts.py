"""What organ masks do not show: the parts of masked organs, and what of the body must join them.

Parts are placed in the patient's own mm, since a body that is fitted around masks is stretched in the
reference adult's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from petlesion.simulation.body import Canvas, Tissue, Window, one_of
from petlesion.simulation.organs import BELLY
from petlesion.simulation.shapes import Ellipsoid, Floats, Point, Shape, Tube, tube

_Bools = npt.NDArray[np.bool_]
_SIDES = (-1, 1)

BRAIN_TISSUES = (Tissue.GREY_MATTER, Tissue.WHITE_MATTER, Tissue.CEREBELLUM, Tissue.BRAIN_FLUID)
_BRAIN_LENGTH_MM, _BRAIN_SIZES = 166.0, (0.85, 1.12)
_CORTEX_MM, _GYRUS_MM = 13.7, 27.0
_FLUID_MM = 4.5

_PARAMETRIC_HEART = Ellipsoid((26, -27, 425), (63, 55, 59), (25, 25, 0))  # larger than 99 of 100
_CHEST = (Tissue.MEDIASTINUM, Tissue.VISCERAL_FAT, Tissue.LUNG)

_KIDNEY_ML, _LEAST_KIDNEY_ML = 150.0, 30.0
_PELVIS_ML = 7.0
_HILUM_MM = 8.0

_GALLBLADDER_ML = 28.0
_COLON = (Tissue.COLON, Tissue.COLON_CONTENT, Tissue.BOWEL_GAS)

_BONES = (Tissue.BONE, Tissue.RED_MARROW, Tissue.YELLOW_MARROW)
_BONE_BEDS = (Tissue.FAT, Tissue.MUSCLE, Tissue.VISCERAL_FAT, Tissue.MEDIASTINUM)
_BONE_MM = 8.0


@dataclass(frozen=True, eq=False)
class MaskedOrgan:
    """An organ's mask on a canvas: the block of voxels around it, and which of them it fills [z, y, x]."""

    canvas: Canvas
    window: Window
    where: _Bools

    @classmethod
    def within(cls, canvas: Canvas, where: _Bools, margin_mm: float) -> MaskedOrgan:
        """The organ that fills `where`, in a block that leaves a margin around it."""
        slices = []
        block = ndimage.find_objects(where.astype(np.uint8))[0]
        for side, step in zip(block, canvas.spacing_mm, strict=True):
            margin = int(np.ceil(margin_mm / step))
            slices.append(slice(max(side.start - margin, 0), side.stop + margin))
        window = (slices[0], slices[1], slices[2])
        return cls(canvas, window, where[window])

    @cached_property
    def grid_mm(self) -> tuple[Floats, Floats, Floats]:
        """The patient's mm along x, y and z from the block's first voxel, ready to be broadcast."""
        steps = [
            np.arange(count, dtype=np.float32) * np.float32(step)
            for count, step in zip(self.where.shape, self.canvas.spacing_mm, strict=True)
        ]
        return steps[2][None, None, :], steps[1][None, :, None], steps[0][:, None, None]

    @cached_property
    def points_mm(self) -> npt.NDArray[np.float64]:
        """The organ's voxels in the patient's mm (x, y, z) from the block's first voxel, [3, n]."""
        step = np.array(self.canvas.spacing_mm[::-1])[:, None]
        points: npt.NDArray[np.float64] = np.stack(np.nonzero(self.where)[::-1]) * step
        return points

    @cached_property
    def depth_mm(self) -> Floats:
        """How deep each voxel lies below the organ's surface. Where the scan ends there is no surface."""
        depth = ndimage.distance_transform_edt(self.where, sampling=self.canvas.spacing_mm)
        return np.asarray(depth - min(self.canvas.spacing_mm) / 2, np.float32)

    @property
    def volume_ml(self) -> float:
        """The organ's volume."""
        return float(np.count_nonzero(self.where)) * self.canvas.voxel_volume_ml

    def distance(self, shape: Shape) -> Floats:
        """Distance in mm of the block's voxels to a shape that is given in the patient's mm."""
        return np.broadcast_to(shape.distance(*self.grid_mm), self.where.shape)

    def fill(self, where: _Bools, tissue: Tissue, over: tuple[Tissue, ...] | None = None) -> None:
        """Turn voxels of the block into `tissue`."""
        self.canvas.fill(self.window, where, tissue, over)

    def paint(self, shape: Shape, tissue: Tissue, over: tuple[Tissue, ...] | None = None) -> None:
        """Turn what lies inside both the organ and a shape in the patient's mm into `tissue`."""
        self.fill(self.where & (self.distance(shape) < 0), tissue, over)

    def grow(self, shape: Shape, volume_ml: float, tissue: Tissue, over: tuple[Tissue, ...]) -> None:
        """Turn `volume_ml` of what is one of `over` into `tissue`, from the shape's middle outwards."""
        free = one_of(self.canvas.tissue[self.window], over)
        count = min(round(volume_ml / self.canvas.voxel_volume_ml), int(np.count_nonzero(free)))
        if count:
            distance = np.where(free, self.distance(shape), np.float32(np.inf))
            self.fill(distance <= np.partition(distance, count - 1, axis=None)[count - 1], tissue, over)


def paint_brain(organ: MaskedOrgan) -> None:
    """Cortex and white matter, then what lies deep or below."""
    folds = _gyri(organ.grid_mm)
    depth = organ.depth_mm
    organ.fill(organ.where, Tissue.WHITE_MATTER)
    organ.fill(organ.where & (depth < _CORTEX_MM - 4 * folds), Tissue.GREY_MATTER)
    x, y, z = organ.points_mm
    left, front = np.quantile(x, 0.002), np.quantile(y, 0.002)
    right, back, bottom = np.quantile(x, 0.998), np.quantile(y, 0.998), np.quantile(z, 0.001)
    size = float(np.clip((back - front) / _BRAIN_LENGTH_MM, *_BRAIN_SIZES))
    middle = (float(left + right) / 2, float(front + back) / 2, float(bottom))
    _paint_deep_grey(organ, middle, size)
    # Fluid fills the furrows, and parts the halves.
    organ.fill(organ.where & (depth < 0.5 - 2 * folds), Tissue.BRAIN_FLUID)
    _paint_cerebellum(organ, middle[0], float(back), size)
    _paint_brainstem(organ, middle, size)
    _paint_ventricles(organ, middle, size)


def surround_brain(organ: MaskedOrgan, before: npt.NDArray[np.uint8]) -> None:
    """Fluid between a masked brain and the skull, where the body's own brain was `before`."""
    away = ndimage.distance_transform_edt(~organ.where, sampling=organ.canvas.spacing_mm)
    room = one_of(before[organ.window], BRAIN_TISSUES) & (away < _FLUID_MM)
    organ.fill(room, Tissue.BRAIN_FLUID, over=(Tissue.MUSCLE,))


def _gyri(grid_mm: tuple[Floats, Floats, Floats]) -> Floats:
    """Folds as a gyroid makes them, between -1.5 and 1.5: high in a gyrus, low in a furrow."""
    x, y, z = (axis * np.float32(2 * np.pi / _GYRUS_MM) for axis in grid_mm)
    folds: Floats = np.sin(x) * np.cos(y) + np.sin(y) * np.cos(z) + np.sin(z) * np.cos(x)
    return folds


def _paint_deep_grey(organ: MaskedOrgan, middle: Point, size: float) -> None:
    for side in _SIDES:
        nuclei = _scaled((side * 17, 0, 65), (12, 24, 15), middle, size)
        organ.paint(nuclei, Tissue.GREY_MATTER)


def _paint_ventricles(organ: MaskedOrgan, middle: Point, size: float) -> None:
    for side in _SIDES:
        ventricle = _scaled((side * 8, 2, 83), (6, 30, 9), middle, size)
        organ.paint(ventricle, Tissue.BRAIN_FLUID)


def _paint_cerebellum(organ: MaskedOrgan, middle_x: float, back: float, size: float) -> None:
    """Two halves below the tent, each where the brain's back reaches lowest beside the midline."""
    x, y, z = organ.points_mm
    for side in _SIDES:
        aside = side * (x - middle_x) / size
        behind = (aside > 10) & (aside < 40) & (y > back - 75 * size)
        if not behind.any():
            continue
        lowest = float(np.quantile(z[behind], 0.01))
        low = behind & (z < lowest + 20 * size)
        centre = (middle_x, float(y[low].mean()), lowest)
        half = _scaled((side * 24, 0, 19), (31, 32, 24), centre, size, (-20, 0, 0))
        organ.paint(half, Tissue.CEREBELLUM)


def _paint_brainstem(organ: MaskedOrgan, middle: Point, size: float) -> None:
    _, y, z = organ.points_mm
    x, bottom = middle[0], middle[2]
    lowest = float(y[z < bottom + 10 * size].mean())
    stem = tube((x, lowest, bottom, 9 * size), (x, lowest - 8 * size, bottom + 50 * size, 13 * size))
    organ.paint(stem, Tissue.WHITE_MATTER)


def _scaled(place: Point, radii: Point, origin: Point, size: float, turn_deg: Point = (0, 0, 0)) -> Ellipsoid:
    """An ellipsoid as many times as large as `size`, with its place counted from `origin`."""
    x, y, z = (o + size * p for o, p in zip(origin, place, strict=True))
    rx, ry, rz = (size * radius for radius in radii)
    return Ellipsoid((x, y, z), (rx, ry, rz), turn_deg)


def paint_heart(organ: MaskedOrgan) -> None:
    """Blood, and the left ventricle in the heart's left lower part."""
    organ.fill(organ.where, Tissue.BLOOD)
    x, y, z = _middle(organ, organ.where)
    size = (organ.volume_ml / 620.0) ** (1 / 3)
    centre = (x + 18 * size, y - 6 * size, z - 14 * size)
    axis_turn = (20.0, 42.0, -28.0)
    outer = Ellipsoid(centre, (32 * size, 32 * size, 46 * size), axis_turn)
    inner = Ellipsoid(centre, (21 * size, 21 * size, 36 * size), axis_turn)
    canvas = organ.canvas
    reference = (canvas.x[organ.window], canvas.y[organ.window], canvas.z[organ.window])
    organ.fill(organ.where & (outer.distance(*reference) < 0), Tissue.MYOCARDIUM)
    organ.fill(organ.where & (inner.distance(*reference) < 0), Tissue.BLOOD)


def clear_heart(canvas: Canvas) -> None:
    """Take the blood of the body's own heart out, and leave that of the vessels around it."""
    found = canvas.inside(_PARAMETRIC_HEART)
    if found is not None:
        window, distance = found
        # Behind the heart runs the descending aorta.
        front = canvas.y[window] < 10
        canvas.fill(window, front & (distance < 0), Tissue.MEDIASTINUM, over=(Tissue.BLOOD,))


def join_great_vessels(organ: MaskedOrgan) -> None:
    """Lead ascending aorta, pulmonary trunk and upper vena cava into a masked heart."""
    x, y, z = _middle(organ, organ.where)
    vessels = (
        tube((-6, -22, 486, 15), (x - 6, y, z + 10, 14)),
        tube((18, 2, 470, 13), (x + 8, y - 8, z + 10, 13)),
        tube((-26, -16, 515, 9), (x - 30, y + 8, z + 8, 9)),
        tube((-24, 6, 350, 12), (x - 30, y + 10, z - 12, 12)),
    )
    for vessel in vessels:
        organ.canvas.paint(vessel, Tissue.BLOOD, over=_CHEST)


def clear_ureters(canvas: Canvas) -> None:
    """Close the body's own ureters with what lies next to them."""
    where = canvas.tissue == Tissue.URETER
    if where.any():
        ureters = MaskedOrgan.within(canvas, where, 8)
        nearest = ndimage.distance_transform_edt(
            ureters.where, sampling=canvas.spacing_mm, return_distances=False, return_indices=True
        )
        block = canvas.tissue[ureters.window]
        block[ureters.where] = block[tuple(nearest)][ureters.where]


def paint_collecting_systems(kidneys: MaskedOrgan, bladder: MaskedOrgan | None) -> None:
    """For the kidney on each side its pelvis at the hilum, and the ureter from there to the bladder."""
    for kidney, side in _sides(kidneys):
        pelvis = _paint_pelvis(kidney, side)
        ureter = _ureter(pelvis, _ureter_end(bladder, side), side)
        kidney.canvas.paint(ureter, Tissue.URETER, over=(*BELLY, Tissue.MUSCLE))


def _sides(kidneys: MaskedOrgan) -> Iterator[tuple[MaskedOrgan, int]]:
    """The kidney right (-1) and left (1) of the midline, if it is more than a remnant."""
    left = kidneys.canvas.x[kidneys.window] > 0
    for side in _SIDES:
        kidney = MaskedOrgan(kidneys.canvas, kidneys.window, kidneys.where & (left == (side > 0)))
        if kidney.volume_ml > _LEAST_KIDNEY_ML:
            yield kidney, side


def _paint_pelvis(kidney: MaskedOrgan, side: int) -> Point:
    """Paint a kidney's pelvis at the medial border of its middle; return where, in reference mm."""
    x, y, z = kidney.points_mm
    height = float(np.quantile(z, 0.5, method="nearest"))
    at_hilum = np.abs(z - height) < 10
    border = float(np.quantile(side * x[at_hilum], 0.05)) * side
    share = float(np.clip(kidney.volume_ml / _KIDNEY_ML, 0.5, 1.5))
    size = share ** (1 / 3)
    centre = (border + side * _HILUM_MM * size, float(y[at_hilum].mean()), height)
    shape = Ellipsoid(centre, (9 * size, 8 * size, 18 * size))
    kidney.grow(shape, _PELVIS_ML * share, Tissue.RENAL_PELVIS, over=(Tissue.KIDNEY, Tissue.VISCERAL_FAT))
    distance = kidney.distance(shape)
    return _middle(kidney, distance <= max(0.0, float(distance.min())))


def _ureter(start: Point, end: Point, side: int) -> Tube:
    """The way over the psoas, in reference mm: so far to the side, at so great a share of the way down."""
    (x, y, z), fall = start, end[2] - start[2]
    return tube(
        (x - side * 6, y - 2, z - 10, 3),
        (side * 42, 22, z + 0.32 * fall, 3),
        (side * 48, 20, z + 0.7 * fall, 3),
        (*end, 3),
    )


def _ureter_end(bladder: MaskedOrgan | None, side: int) -> Point:
    """Where a ureter enters the bladder, at its upper back corner, in reference mm."""
    if bladder is None:
        return (side * 22, 26, 38)
    canvas = bladder.canvas
    x, y, z = (axis[bladder.window][bladder.where] for axis in (canvas.x, canvas.y, canvas.z))
    return float(np.quantile(x, 0.5 + side * 0.3)), float(np.quantile(y, 0.9)), float(np.quantile(z, 0.75))


def paint_gallbladder(liver: MaskedOrgan) -> None:
    """A gallbladder that hangs from the front of a liver's lower edge, to the right of the midline."""
    x, y, z = liver.points_mm
    reference_x = liver.canvas.x[liver.window][liver.where]
    near = (reference_x > -62) & (reference_x < -34) & (y < np.median(y))
    if not near.any():
        return
    low = near & (z < np.quantile(z[near], 0.05) + 6)
    centre = (float(x[low].mean()), float(y[low].mean()) + 6, float(z[low].mean()) - 8)
    shape = Ellipsoid(centre, (14, 16, 29), (20, 0, 0))
    liver.grow(shape, _GALLBLADDER_ML, Tissue.GALLBLADDER, over=(*BELLY, *_COLON, Tissue.LIVER))


def move_bones_out(organ: MaskedOrgan, before: npt.NDArray[np.uint8], organs: _Bools) -> None:
    """Bone that an organ took the place of moves out to the surface: ribs run around a large liver.

    `before` holds the canvas's tissues without organs, `organs` where any is.
    """
    bones = organ.where & one_of(before[organ.window], _BONES)
    if not bones.any():
        return
    step = np.array(organ.canvas.spacing_mm)[:, None]
    inside = organs[organ.window]
    distance, nearest = ndimage.distance_transform_edt(
        inside, sampling=organ.canvas.spacing_mm, return_indices=True
    )
    out = nearest[:, bones]
    outward = (out - np.stack(np.nonzero(bones))) * step / distance[bones]
    last = np.array(inside.shape)[:, None] - 1
    marrow = before[organ.window][bones] != Tissue.BONE
    for away in np.arange(0, _BONE_MM - 1, 2.0):
        place = np.clip(np.rint(out + outward * away / step).astype(np.intp), 0, last)
        _lay_bone(organ, place, Tissue.BONE, _BONE_BEDS)
        if 2 <= away <= _BONE_MM - 4:
            _lay_bone(organ, place[:, marrow], Tissue.RED_MARROW, (Tissue.BONE,))


def _lay_bone(
    organ: MaskedOrgan, place: npt.NDArray[np.intp], tissue: Tissue, over: tuple[Tissue, ...]
) -> None:
    where = np.zeros(organ.where.shape, bool)
    where[tuple(place)] = True
    organ.fill(where, tissue, over)


def _middle(organ: MaskedOrgan, where: _Bools) -> Point:
    """The middle of some voxels of the block in reference mm."""
    canvas = organ.canvas
    x, y, z = (float(axis[organ.window][where].mean()) for axis in (canvas.x, canvas.y, canvas.z))
    return x, y, z
