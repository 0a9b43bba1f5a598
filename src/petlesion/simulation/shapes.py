"""Implicit shapes in millimetres: each tells how far a point lies outside of it (negative: inside).

Distances are exact for balls and tubes and good to a few millimetres near the surface of ellipsoids, which is
what organs need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Point = tuple[float, float, float]


@dataclass(frozen=True)
class Box:
    """A box that holds a shape: lowest and highest (x, y, z) in mm."""

    low: Point
    high: Point

    def grown(self, margin_mm: float) -> Box:
        """The box with `margin_mm` added on every side."""
        low = (self.low[0] - margin_mm, self.low[1] - margin_mm, self.low[2] - margin_mm)
        high = (self.high[0] + margin_mm, self.high[1] + margin_mm, self.high[2] + margin_mm)
        return Box(low, high)


class Shape(Protocol):
    """What can be painted into a body."""

    @property
    def box(self) -> Box:
        """A box that holds the shape."""

    def distance(self, x: Floats, y: Floats, z: Floats) -> Floats:
        """Distance in mm of each point to the surface, negative inside."""


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid, turned about the x, y and z axis in this order by `turn_deg`; points are in mm."""

    centre: Point
    radii: Point
    turn_deg: Point = (0.0, 0.0, 0.0)

    @property
    def box(self) -> Box:
        """A box that holds the ellipsoid however it is turned."""
        if not any(self.turn_deg):
            reach: Sequence[float] = self.radii
        else:
            reach = np.linalg.norm(_rotation(self.turn_deg) * np.array(self.radii), axis=1).tolist()
        return _box_around(self.centre, reach)

    def distance(self, x: Floats, y: Floats, z: Floats) -> Floats:
        """Distance in mm, exact on the surface and along the axes of a ball."""
        dx, dy, dz = x - _f(self.centre[0]), y - _f(self.centre[1]), z - _f(self.centre[2])
        if any(self.turn_deg):
            back = _rotation(self.turn_deg).T.astype(np.float32)
            dx, dy, dz = (row[0] * dx + row[1] * dy + row[2] * dz for row in back)
        rx, ry, rz = self.radii
        norm = np.sqrt((dx / _f(rx)) ** 2 + (dy / _f(ry)) ** 2 + (dz / _f(rz)) ** 2)
        away: Floats = (norm - _f(1)) * _f(min(self.radii))
        return away


@dataclass(frozen=True)
class Tube:
    """A bent tube through `points` in mm with a radius in mm at each of them, round at the ends."""

    points: tuple[Point, ...]
    radii: tuple[float, ...]

    @property
    def box(self) -> Box:
        """A box that holds the tube."""
        points, radii = np.array(self.points), np.array(self.radii)[:, None]
        low, high = (points - radii).min(axis=0), (points + radii).max(axis=0)
        return Box(tuple(low.tolist()), tuple(high.tolist()))

    def distance(self, x: Floats, y: Floats, z: Floats) -> Floats:
        """Distance in mm to the nearest of the tube's cones."""
        nearest: Floats | None = None
        for start, end, r0, r1 in zip(self.points, self.points[1:], self.radii, self.radii[1:], strict=False):
            away = _cone_distance((x, y, z), start, end, r0, r1)
            nearest = away if nearest is None else np.minimum(nearest, away)
        assert nearest is not None
        return nearest


def tube(*knots: tuple[float, float, float, float]) -> Tube:
    """A tube through knots (x, y, z, radius) in mm."""
    return Tube(tuple((x, y, z) for x, y, z, _ in knots), tuple(radius for *_, radius in knots))


def mirrored(shape: Ellipsoid | Tube) -> Ellipsoid | Tube:
    """The same shape on the other side of the body."""
    if isinstance(shape, Tube):
        return Tube(tuple((-x, y, z) for x, y, z in shape.points), shape.radii)
    x, y, z = shape.centre
    turn_x, turn_y, turn_z = shape.turn_deg
    return Ellipsoid((-x, y, z), shape.radii, (turn_x, -turn_y, -turn_z))


def both_sides(*shapes: Ellipsoid | Tube) -> list[Shape]:
    """Each shape, followed by the same on the other side of the body."""
    return [side for shape in shapes for side in (shape, mirrored(shape))]


def _cone_distance(
    at: tuple[Floats, Floats, Floats], start: Point, end: Point, r0: float, r1: float
) -> Floats:
    along = [e - s for s, e in zip(start, end, strict=True)]
    length_squared = max(sum(a * a for a in along), 1e-6)
    offsets = [axis - _f(s) for axis, s in zip(at, start, strict=True)]
    share = sum((o * _f(a / length_squared) for o, a in zip(offsets, along, strict=True)), start=_f(0))
    share = np.clip(share, 0, 1)
    squared = sum(((o - share * _f(a)) ** 2 for o, a in zip(offsets, along, strict=True)), start=_f(0))
    away: Floats = np.sqrt(squared) - (_f(r0) + share * _f(r1 - r0))
    return away


def _box_around(centre: Point, reach: Sequence[float]) -> Box:
    low = (centre[0] - reach[0], centre[1] - reach[1], centre[2] - reach[2])
    high = (centre[0] + reach[0], centre[1] + reach[1], centre[2] + reach[2])
    return Box(low, high)


def _rotation(turn_deg: Point) -> npt.NDArray[np.float64]:
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.deg2rad(turn_deg)), np.sin(np.deg2rad(turn_deg))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    turn: npt.NDArray[np.float64] = about_z @ about_y @ about_x
    return turn


def _f(number: float) -> np.float32:
    return np.float32(number)
