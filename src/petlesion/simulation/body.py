"""A patient, and the map between a patient's millimetres and those of a reference adult.

All organs are described once, in the reference adult: x to the left, y to the back, z to the head, in mm from
a point between the hip joints. A patient is that adult stretched piece by piece along the body, scaled in
width and depth, wrapped in fat and gently bent by a smooth random field. Heights of organs in the reference
follow those of segmented whole-body studies (bladder 30, kidneys 255, liver 315, heart 430, lung apex 568).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from petlesion.simulation.random_fields import smooth_field
from petlesion.simulation.shapes import Box, Floats, Shape

Window = tuple[slice, slice, slice]
"""A block of voxels [z, y, x]."""

REFERENCE_HEIGHT_MM = 1740.0
_WARP_SCALE_MM = 90.0
_WARP_MM = 4.0


class Tissue(IntEnum):
    """What a voxel of a body is made of."""

    AIR = 0
    FAT = 1
    MUSCLE = 2
    VISCERAL_FAT = 3
    MEDIASTINUM = 4
    LUNG = 5
    AIRWAY = 6
    BONE = 7
    RED_MARROW = 8
    YELLOW_MARROW = 9
    DISC = 10
    BLOOD = 11
    MYOCARDIUM = 12
    LIVER = 13
    GALLBLADDER = 14
    SPLEEN = 15
    PANCREAS = 16
    ADRENAL = 17
    KIDNEY = 18
    RENAL_PELVIS = 19
    URETER = 20
    BLADDER = 21
    OESOPHAGUS = 22
    STOMACH_WALL = 23
    STOMACH_CONTENT = 24
    SMALL_BOWEL = 25
    COLON = 26
    COLON_CONTENT = 27
    BOWEL_GAS = 28
    GREY_MATTER = 29
    WHITE_MATTER = 30
    CEREBELLUM = 31
    BRAIN_FLUID = 32
    EYE = 33
    TONGUE = 34
    TONSIL = 35
    SALIVARY_GLAND = 36
    THYROID = 37
    BREAST = 38
    PROSTATE = 39
    UTERUS = 40
    OVARY = 41
    TESTIS = 42


Sex = Literal["female", "male"]


@dataclass(frozen=True)
class Patient:
    """Whom a study is of. `fat_mm` is the thickness of the fat under the skin at the belly."""

    sex: Sex
    height_mm: float
    body_mass_index: float
    fat_mm: float
    arms_up: bool

    @property
    def weight_kg(self) -> float:
        """Body weight in kg."""
        return self.body_mass_index * (self.height_mm / 1000) ** 2

    @property
    def female(self) -> bool:
        """Whether the patient is a woman."""
        return self.sex == "female"


def draw_patient(rng: np.random.Generator) -> Patient:
    """Draw an adult: tall as Germans of 60 (means 1.64 and 1.77 m), with a body mass index of median 25.5."""
    female = bool(rng.random() < 0.44)
    height_mm = rng.normal(1640 if female else 1765, 65)
    index = float(np.clip(rng.lognormal(np.log(25.5), 0.17), 16.5, 42))
    fat_mm = max(3.0, (index - 17) * (1.75 if female else 1.3) * rng.lognormal(0, 0.2))
    return Patient(
        sex="female" if female else "male",
        height_mm=float(np.clip(height_mm, 1450, 2000)),
        body_mass_index=index,
        fat_mm=float(min(fat_mm, 55.0)),
        arms_up=bool(rng.random() < 0.65),
    )


@dataclass(frozen=True)
class Profile:
    """A number for each height of the reference adult, linear between knots."""

    z_mm: tuple[float, ...]
    values: tuple[float, ...]

    def at(self, z: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """The values at heights in reference mm."""
        result: npt.NDArray[np.float64] = np.interp(z, self.z_mm, self.values)
        return result


@dataclass(frozen=True)
class BodyMap:
    """From patient mm to reference mm: heights knot by knot, then width and depth about a midline."""

    patient_z_mm: tuple[float, ...]
    reference_z_mm: tuple[float, ...]
    width: Profile
    depth: Profile
    middle_x_mm: Profile
    middle_y_mm: Profile

    def reference_z(self, z: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Heights in the reference adult; beyond the outer knots the last piece goes on."""
        return _linear(z, self.patient_z_mm, self.reference_z_mm)

    def patient_z(self, z: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Heights in the patient."""
        return _linear(z, self.reference_z_mm, self.patient_z_mm)


_PIECES = (-900.0, 0.0, 150.0, 340.0, 480.0, 575.0, 700.0, 880.0)


def draw_body_map(patient: Patient, rng: np.random.Generator) -> BodyMap:
    """Draw how the patient differs from the reference adult."""
    scale = patient.height_mm / REFERENCE_HEIGHT_MM
    pieces = np.diff(_PIECES) * scale * rng.normal(1, 0.035, len(_PIECES) - 1)
    heights = np.concatenate([[0.0], np.cumsum(pieces)])
    heights -= heights[1]
    frame = scale * float(np.clip(1 + 0.006 * (patient.body_mass_index - 25), 0.93, 1.1))
    hips = 1.05 if patient.female else 0.99
    chest = 0.95 if patient.female else 1.03
    belly = 1 + 0.012 * max(patient.body_mass_index - 22, -4)
    z = (-100.0, 20.0, 130.0, 260.0, 400.0, 560.0, 640.0, 900.0)
    wide = np.array([hips, hips, 1.0, 1.0, chest, chest, 1.0, 1.0]) * frame
    deep = np.array([1.0, 1.0, belly, belly, chest, chest, 1.0, 1.0]) * frame
    head = 1 + 0.4 * (scale - 1)
    wide[-2:] = deep[-2:] = head
    wide, deep = wide * rng.normal(1, 0.03, len(z)), deep * rng.normal(1, 0.035, len(z))
    lean = rng.normal(0, 6, 3)
    return BodyMap(
        patient_z_mm=tuple(heights.tolist()),
        reference_z_mm=_PIECES,
        width=Profile(z, tuple(wide.tolist())),
        depth=Profile(z, tuple(deep.tolist())),
        middle_x_mm=Profile((0.0, 350.0, 800.0), tuple(lean.tolist())),
        middle_y_mm=Profile((0.0, 560.0, 760.0), (0.0, 0.0, float(rng.normal(0, 10)))),
    )


@dataclass(frozen=True, eq=False)
class Canvas:
    """A block of voxels [z, y, x]: the `tissue` (a Tissue's number) painted in each, and where each lies.

    `x`, `y` and `z` are in the reference adult's mm, `spacing_mm` (z, y, x) in the patient's.
    """

    tissue: npt.NDArray[np.uint8]
    x: Floats
    y: Floats
    z: Floats
    spacing_mm: tuple[float, float, float]

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of a voxel in the patient's mL."""
        return float(np.prod(self.spacing_mm)) / 1000

    @cached_property
    def _ranges(self) -> list[tuple[Floats, Floats]]:
        """For each array axis: the lowest and highest reference coordinate along it at each index."""
        return [
            (axis.min(axis=others), axis.max(axis=others))
            for axis, others in ((self.z, (1, 2)), (self.y, (0, 2)), (self.x, (0, 1)))
        ]

    def window(self, box: Box) -> Window | None:
        """The smallest block of voxels that holds a box of reference mm; None if it lies outside."""
        slices = []
        for (lowest, highest), low, high in zip(self._ranges, box.low[::-1], box.high[::-1], strict=True):
            hit = np.flatnonzero((highest >= low) & (lowest <= high))
            if hit.size == 0:
                return None
            slices.append(slice(int(hit[0]), int(hit[-1]) + 1))
        return slices[0], slices[1], slices[2]

    def inside(self, shape: Shape, margin_mm: float = 0.0) -> tuple[Window, Floats] | None:
        """The window of a shape and the distance to it in that window; None if it lies outside."""
        window = self.window(shape.box.grown(margin_mm))
        if window is None:
            return None
        return window, shape.distance(self.x[window], self.y[window], self.z[window])

    def paint(self, shape: Shape, tissue: Tissue, over: tuple[Tissue, ...] | None = None) -> None:
        """Turn what lies inside a shape into `tissue`, all of it or only what is one of `over`."""
        found = self.inside(shape)
        if found is not None:
            window, distance = found
            self.fill(window, distance < 0, tissue, over)

    def fill(
        self,
        window: Window,
        where: npt.NDArray[np.bool_],
        tissue: Tissue,
        over: tuple[Tissue, ...] | None = None,
    ) -> None:
        """Turn the voxels of a window where `where` holds into `tissue`."""
        block = self.tissue[window]
        if over is not None:
            where = where & one_of(block, over)
        block[where] = tissue


def one_of(tissue: npt.NDArray[np.uint8], kinds: tuple[Tissue, ...]) -> npt.NDArray[np.bool_]:
    """Where a map of tissues is one of `kinds`."""
    table = np.zeros(256, dtype=bool)
    table[list(kinds)] = True
    return table[tissue]


def make_canvas(
    body: BodyMap,
    axes: Sequence[npt.NDArray[np.floating]],
    rng: np.random.Generator,
    warp_mm: float = _WARP_MM,
) -> Canvas:
    """Lay out voxels whose centres stand at patient mm along the `axes` x, y and z, each evenly spaced."""
    x, y, z = axes
    height = body.reference_z(z)
    shape = (len(z), len(y), len(x))
    spacing = (float(z[1] - z[0]), float(y[1] - y[0]), float(x[1] - x[0]))
    across = (x[None, :] - body.middle_x_mm.at(height)[:, None]) / body.width.at(height)[:, None]
    back = (y[None, :] - body.middle_y_mm.at(height)[:, None]) / body.depth.at(height)[:, None]
    bends = [smooth_field(rng, shape, spacing, _WARP_SCALE_MM) for _ in range(3)]
    for bend in bends:
        bend *= np.float32(warp_mm)
    bends[0] += across.astype(np.float32)[:, None, :]
    bends[1] += back.astype(np.float32)[:, :, None]
    bends[2] += height.astype(np.float32)[:, None, None]
    return Canvas(np.zeros(shape, np.uint8), bends[0], bends[1], bends[2], spacing)


def _linear(
    at: npt.NDArray[np.floating], knots: tuple[float, ...], values: tuple[float, ...]
) -> npt.NDArray[np.float64]:
    piece = np.clip(np.searchsorted(knots, at) - 1, 0, len(knots) - 2)
    k, v = np.array(knots), np.array(values)
    slope = (v[1:] - v[:-1]) / (k[1:] - k[:-1])
    result: npt.NDArray[np.float64] = v[piece] + slope[piece] * (at - k[piece])
    return result
