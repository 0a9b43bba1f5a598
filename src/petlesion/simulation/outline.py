"""The outline of trunk and neck, and of the cavities of chest and belly, as profiles along the height."""

from __future__ import annotations

import numpy as np

from petlesion.simulation.body import Canvas, Profile, Window
from petlesion.simulation.shapes import Floats

# The muscle's outline of the trunk and neck: half width, half depth and its middle, by height in mm.
_HEIGHTS = (-110.0, -60, 0, 60, 120, 180, 250, 320, 400, 460, 500, 535, 560, 585, 620, 700)
_HALF_WIDTH = Profile(
    _HEIGHTS, (160.0, 170, 170, 158, 140, 138, 142, 150, 160, 168, 165, 135, 95, 66, 58, 58)
)
_HALF_DEPTH = Profile(_HEIGHTS, (88.0, 98, 102, 98, 92, 92, 98, 104, 110, 106, 98, 84, 72, 62, 58, 58))
_MIDDLE = Profile(_HEIGHTS, (5.0, 8, 8, 4, 0, 0, 2, 4, 4, 6, 8, 8, 4, -4, -10, -14))
# How thick the fat under the skin is at each height, as a share of the belly's.
_FAT_SHARE = Profile((-110.0, -30, 60, 150, 260, 420, 520, 580), (1.0, 1.1, 1.1, 1.0, 0.75, 0.55, 0.45, 0.3))
# Chest and belly: what ribs, muscles and pelvis leave free.
_CAVITY_HEIGHTS = (-32.0, -20, 0, 40, 80, 120, 160, 220, 300, 400, 450, 500, 530, 552, 566, 574)
_CAVITY_WIDTH = Profile(
    _CAVITY_HEIGHTS, (0.0, 36, 50, 62, 80, 104, 116, 120, 128, 136, 134, 122, 106, 86, 66, 0)
)
_CAVITY_DEPTH = Profile(_CAVITY_HEIGHTS, (0.0, 40, 56, 70, 76, 76, 76, 80, 87, 91, 88, 78, 66, 52, 38, 0))
TRUNK_TOP, TRUNK_BOTTOM = 640.0, -95.0
CAVITY_TOP, CAVITY_BOTTOM = 573.0, -31.0


def trunk_distance(canvas: Canvas, window: Window, fat_mm: float) -> Floats:
    """Distance in mm to the trunk's muscles under fat of that thickness at the belly, negative inside."""
    return _outline_distance(canvas, window, _HALF_WIDTH, _HALF_DEPTH, extra_mm=fat_mm, squareness=0.35)


def cavity_distance(canvas: Canvas, window: Window) -> Floats:
    """Distance in mm to the wall of chest and belly, negative inside."""
    return _outline_distance(canvas, window, _CAVITY_WIDTH, _CAVITY_DEPTH, extra_mm=0.0, squareness=0.0)


def slices_between(canvas: Canvas, bottom: float, top: float) -> Window | None:
    """The block of slices between two heights in reference mm, with some to spare; None if there is none."""
    middle = canvas.z[:, canvas.z.shape[1] // 2, canvas.z.shape[2] // 2]
    inside = np.flatnonzero((middle > bottom - 15) & (middle < top + 15))
    if inside.size == 0:
        return None
    return slice(int(inside[0]), int(inside[-1]) + 1), slice(None), slice(None)


def _outline_distance(
    canvas: Canvas,
    window: Window,
    half_width: Profile,
    half_depth: Profile,
    extra_mm: float,
    squareness: float,
) -> Floats:
    """Distance in mm to a stack of rounded rectangles (squircles after Fernandez Guasti), negative inside."""
    height = canvas.z[window].mean(axis=(1, 2))
    extra = extra_mm * _FAT_SHARE.at(height)
    a = (half_width.at(height) + extra + 1e-3).astype(np.float32)[:, None, None]
    b = (half_depth.at(height) + extra + 1e-3).astype(np.float32)[:, None, None]
    middle = _MIDDLE.at(height).astype(np.float32)[:, None, None]
    u = np.square(canvas.x[window] / a)
    v = np.square((canvas.y[window] - middle) / b)
    norm = np.sqrt(u + v - np.float32(squareness) * np.minimum(u, 1) * np.minimum(v, 1))
    away: Floats = (norm - 1) * np.minimum(a, b)
    return away
