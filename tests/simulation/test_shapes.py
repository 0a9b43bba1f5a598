from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petlesion.simulation.shapes import Ellipsoid, Shape, Tube, mirrored, tube

coordinate = st.floats(-40, 40)
point = st.tuples(coordinate, coordinate, coordinate)


def at(shape: Shape, points: np.ndarray) -> np.ndarray:
    x, y, z = points.astype(np.float32).T
    return shape.distance(x, y, z)


def test_a_ball_s_distance_is_exact(rng: np.random.Generator) -> None:
    points = rng.normal(0, 30, (500, 3))
    expected = np.linalg.norm(points - (3, -4, 5), axis=1) - 12
    np.testing.assert_allclose(at(Ellipsoid((3, -4, 5), (12, 12, 12)), points), expected, atol=1e-3)


def test_a_turned_ellipsoid_holds_the_turned_points(rng: np.random.Generator) -> None:
    directions = rng.normal(size=(300, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    # A quarter turn about z takes x to y.
    surface = directions * (30, 10, 5)
    turned = np.stack([-surface[:, 1], surface[:, 0], surface[:, 2]], axis=1)
    shape = Ellipsoid((0, 0, 0), (30, 10, 5), (0, 0, 90))
    np.testing.assert_allclose(at(shape, turned), 0, atol=1e-3)
    assert np.all(at(shape, turned * 0.9) < 0) and np.all(at(shape, turned * 1.1) > 0)


def test_a_tube_s_distance_is_that_to_its_axis(rng: np.random.Generator) -> None:
    shape = tube((0, 0, 0, 5), (40, 0, 0, 5), (40, 30, 10, 5))
    knots = np.array(shape.points)
    share = np.linspace(0, 1, 2000)[:, None]
    axis = np.concatenate([a + share * (b - a) for a, b in pairwise(knots)])
    points = rng.uniform(-20, 60, (200, 3))
    expected = np.linalg.norm(points[:, None] - axis, axis=2).min(axis=1) - 5
    np.testing.assert_allclose(at(shape, points), expected, atol=0.02)


@settings(max_examples=50, deadline=None)
@given(
    centre=point,
    radii=st.tuples(*[st.floats(3, 30)] * 3),
    turn=point,
    knots=st.lists(point, min_size=2, max_size=4),
)
def test_boxes_hold_their_shapes(
    centre: tuple[float, float, float],
    radii: tuple[float, float, float],
    turn: tuple[float, float, float],
    knots: list[tuple[float, float, float]],
) -> None:
    points = np.random.default_rng(0).uniform(-80, 80, (4000, 3))
    for shape in (Ellipsoid(centre, radii, turn), Tube(tuple(knots), (6.0,) * len(knots))):
        inside = points[at(shape, points) < 0]
        assert np.all(inside >= np.array(shape.box.low) - 1e-3)
        assert np.all(inside <= np.array(shape.box.high) + 1e-3)


def test_the_other_side_is_a_mirror_image(rng: np.random.Generator) -> None:
    points = rng.normal(0, 40, (400, 3))
    for shape in (Ellipsoid((20, 5, 1), (20, 8, 30), (10, 20, 30)), tube((10, 0, 0, 4), (40, 9, 20, 9))):
        np.testing.assert_allclose(at(mirrored(shape), points * (-1, 1, 1)), at(shape, points), atol=1e-3)


def test_a_box_grows_on_all_sides() -> None:
    box = Ellipsoid((0, 0, 0), (1, 2, 3)).box.grown(2)
    assert (box.low, box.high) == (pytest.approx((-3, -4, -5)), pytest.approx((3, 4, 5)))
