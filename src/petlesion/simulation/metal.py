"""Metal in a patient, and the streaks that it leaves in CT."""

from __future__ import annotations

import numpy as np

from petlesion.simulation.body import Patient, Tissue
from petlesion.simulation.shapes import Box, Ellipsoid, Shape, mirrored, tube
from petlesion.simulation.uptake import Phantom

_METAL_HU = 6000.0
_REACH_MM = 110.0
_KINDS = ("fillings", "hip", "screws", "port")
_CHANCES = (0.35, 0.05, 0.03, 0.06)


def add_metal(phantom: Phantom, patient: Patient, rng: np.random.Generator) -> None:
    """Draw what metal the patient has, and put it and its streaks into the phantom's CT in place."""
    for kind, chance, own_rng in zip(_KINDS, _CHANCES, rng.spawn(len(_KINDS)), strict=True):
        if own_rng.random() < chance:
            for shape, strength_hu in _pieces(kind, patient, own_rng):
                _insert(phantom, shape, strength_hu, own_rng)


def _pieces(kind: str, patient: Patient, rng: np.random.Generator) -> list[tuple[Shape, float]]:
    """Each piece of metal, and how strong its streaks are."""
    if kind == "hip":
        hip = (tube((92, 4, 0, 24), (108, 10, -8, 10), (118, 12, -40, 9), (100, 8, -150, 7)), 500.0)
        return [hip] if rng.random() < 0.6 else [(mirrored(hip[0]), 500.0)]
    if kind == "screws":
        heights = (101.0, 138.0, 175.0)
        return [
            (tube((side * 24, 76, z, 3), (side * 12, 34, z, 3)), 150.0) for z in heights for side in (-1, 1)
        ]
    if kind == "port":
        under_skin = -74 - 0.45 * patient.fat_mm
        return [(Ellipsoid((-88, under_skin, 500), (13, 6, 10)), 60.0)]
    places = ((28, -88, 668), (34, -76, 666), (-30, -86, 668), (-34, -74, 660))
    chosen = rng.permutation(np.array(places))[: rng.integers(1, 4)].tolist()
    return [(Ellipsoid((x, y, z), (4, 4, 4)), 350.0) for x, y, z in chosen]


def _insert(phantom: Phantom, shape: Shape, strength_hu: float, rng: np.random.Generator) -> None:
    canvas = phantom.canvas
    low, high = shape.box.low, shape.box.high
    around = Box(
        (low[0] - _REACH_MM, low[1] - _REACH_MM, low[2]), (high[0] + _REACH_MM, high[1] + _REACH_MM, high[2])
    )
    window = canvas.window(around)
    if window is None:
        return
    x, y, z = canvas.x[window], canvas.y[window], canvas.z[window]
    body = canvas.tissue[window] != Tissue.AIR
    metal = body & (shape.distance(x, y, z) < 0)
    if not metal.any():
        return
    hu = phantom.hu[window]
    for index in np.flatnonzero(metal.any(axis=(1, 2))):
        middle_x, middle_y = x[index][metal[index]].mean(), y[index][metal[index]].mean()
        dx, dy = x[index] - middle_x, y[index] - middle_y
        angle, away = np.arctan2(dy, dx), np.hypot(dx, dy)
        rays = np.cos(6 * angle + rng.uniform(0, 2 * np.pi)) + 0.6 * np.cos(
            15 * angle + rng.uniform(0, 2 * np.pi)
        )
        hu[index] += body[index] * strength_hu * rays * np.exp(-away / 35)
    hu[metal] = _METAL_HU
