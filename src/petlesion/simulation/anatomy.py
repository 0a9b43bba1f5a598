"""A body of tissues: outline, cavities, skeleton and organs painted one after another.

What is painted later takes the place of what was there, so that every voxel is of one tissue.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from petlesion.simulation import organs, skeleton
from petlesion.simulation.body import Canvas, Patient, Tissue
from petlesion.simulation.outline import (
    CAVITY_BOTTOM,
    CAVITY_TOP,
    TRUNK_BOTTOM,
    TRUNK_TOP,
    cavity_distance,
    slices_between,
    trunk_distance,
)
from petlesion.simulation.shapes import Ellipsoid, Floats, Point, Shape, both_sides, tube

_DOMES = ((-72.0, 408.0), (74.0, 398.0))  # middle and height of the diaphragm, right and left


def build_anatomy(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> Canvas:
    """Paint a whole body into the canvas."""
    fat = patient.fat_mm
    _paint_limbs(canvas, patient, fat)
    _paint_head(canvas, fat)
    _paint_trunk(canvas, patient, fat)
    _paint_cavities(canvas, rng)
    organs.paint_organs(canvas, patient, rng)
    skeleton.paint_skeleton(canvas, patient)
    organs.paint_airways(canvas)
    return canvas


def _paint_trunk(canvas: Canvas, patient: Patient, fat_mm: float) -> None:
    window = slices_between(canvas, TRUNK_BOTTOM, TRUNK_TOP)
    if window is None:
        return
    height = canvas.z[window]
    level = (height > TRUNK_BOTTOM) & (height < TRUNK_TOP)
    skin = trunk_distance(canvas, window, fat_mm + 2)
    canvas.fill(window, level & (skin < 0), Tissue.FAT, over=(Tissue.AIR,))
    for shape in _padding(patient, fat_mm):
        canvas.paint(shape, Tissue.FAT, over=(Tissue.AIR,))
    muscle = trunk_distance(canvas, window, 0.0)
    canvas.fill(window, level & (muscle < 0), Tissue.MUSCLE)
    for shape in both_sides(Ellipsoid((78, 78, -30), (66, 42, 78))):
        canvas.paint(shape, Tissue.MUSCLE, over=(Tissue.FAT,))
    if patient.female:
        size = 1 + 0.01 * fat_mm
        for shape in both_sides(Ellipsoid((82, -112, 442), (30 * size, 22 * size, 28 * size))):
            canvas.paint(shape, Tissue.BREAST, over=(Tissue.FAT,))


def _padding(patient: Patient, fat_mm: float) -> list[Shape]:
    """Fat that stands out from the trunk: buttocks and breasts."""
    grown = 0.9 * fat_mm
    shapes = both_sides(Ellipsoid((74, 78, -30), (72 + grown, 46 + grown, 84 + grown)))
    if patient.female:
        size = 1 + 0.012 * fat_mm
        shapes += both_sides(Ellipsoid((82, -105, 438), (58 * size, 46 * size, 56 * size)))
    else:
        shapes += both_sides(Ellipsoid((75, -95, 450), (45, 22 + 0.3 * grown, 40)))
    return shapes


def _paint_limbs(canvas: Canvas, patient: Patient, fat_mm: float) -> None:
    for limb, fat_share in ((_LEG, 0.7), (skeleton.arm(patient.arms_up), 0.35)):
        wrapped = replace(limb, radii=tuple(r + fat_share * fat_mm + 2 for r in limb.radii))
        for side in both_sides(wrapped):
            canvas.paint(side, Tissue.FAT, over=(Tissue.AIR,))
        for side in both_sides(limb):
            canvas.paint(side, Tissue.MUSCLE, over=(Tissue.FAT,))
    for side in both_sides(_SHOULDER):
        canvas.paint(side, Tissue.MUSCLE, over=(Tissue.AIR, Tissue.FAT))


_LEG = tube((86, 4, -20, 74), (92, 4, -90, 80), (88, 4, -220, 66), (80, 8, -430, 48), (78, 15, -900, 30))
_SHOULDER = tube((60, 28, 535, 42), (125, 18, 515, 46), (160, 14, 500, 44))


def _paint_head(canvas: Canvas, fat_mm: float) -> None:
    scalp = 5 + 0.05 * fat_mm
    cranium: Point = (0, -24, 786)
    neck = tube((0, 0, 590, 52 + scalp), (0, -10, 720, 50 + scalp))
    canvas.paint(neck, Tissue.FAT, over=(Tissue.AIR,))
    canvas.paint(Ellipsoid(cranium, (70 + scalp, 90 + scalp, 86 + scalp)), Tissue.FAT, over=(Tissue.AIR,))
    face = Ellipsoid((0, -60, 705), (60 + scalp, 62 + scalp, 82 + scalp), (12, 0, 0))
    canvas.paint(face, Tissue.FAT, over=(Tissue.AIR,))
    nose = Ellipsoid((0, -122, 712), (12, 14, 20))
    canvas.paint(nose, Tissue.FAT, over=(Tissue.AIR,))
    canvas.paint(tube((0, 0, 590, 50), (0, -10, 718, 46)), Tissue.MUSCLE, over=(Tissue.FAT,))
    canvas.paint(Ellipsoid((0, -56, 702), (56, 54, 74), (12, 0, 0)), Tissue.MUSCLE, over=(Tissue.FAT,))


def _paint_cavities(canvas: Canvas, rng: np.random.Generator) -> None:
    window = slices_between(canvas, CAVITY_BOTTOM, CAVITY_TOP)
    if window is None:
        return
    x, y, z = canvas.x[window], canvas.y[window], canvas.z[window]
    cavity = (cavity_distance(canvas, window) < 0) & (z > CAVITY_BOTTOM) & (z < CAVITY_TOP)
    dome = _diaphragm(x, y, breath_mm=float(rng.normal(0, 8)))
    chest = cavity & (z > dome)
    canvas.fill(window, cavity, Tissue.VISCERAL_FAT)
    canvas.fill(window, chest, Tissue.LUNG)
    canvas.fill(window, cavity & ~chest & (z > dome - 3), Tissue.MUSCLE)
    half_width = np.interp(z.mean(axis=(1, 2)), (330, 420, 480, 560), (30, 34, 32, 24))
    wide = half_width.astype(np.float32)[:, None, None]
    middle = np.square((x - 4) / wide) + np.square((y - 6) / np.float32(105)) < 1
    # Lung meets in front of the heart and the great vessels.
    front = (y < -40) & (np.abs(x) > 12)
    canvas.fill(window, chest & middle & ~front, Tissue.MEDIASTINUM)
    organs.paint_back_muscles(canvas)


def _diaphragm(x: Floats, y: Floats, breath_mm: float) -> Floats:
    """Height of the diaphragm above each point: two domes that fall to the back, less so to the front."""
    fall = np.where(y < 0, np.float32(52), np.float32(80))
    heights = []
    for middle, top in _DOMES:
        away = np.square((x - np.float32(middle)) / np.float32(80)) + np.square(y / np.float32(92))
        heights.append(np.float32(top + breath_mm) - fall * away)
    height: Floats = np.maximum(heights[0], heights[1])
    return height
