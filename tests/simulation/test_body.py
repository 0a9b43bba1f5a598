import numpy as np
import pytest

from petlesion.simulation.body import (
    BodyMap,
    Canvas,
    Profile,
    Tissue,
    draw_body_map,
    draw_patient,
    make_canvas,
    one_of,
)
from petlesion.simulation.shapes import Box, Ellipsoid, tube


@pytest.fixture
def body() -> BodyMap:
    return BodyMap(
        patient_z_mm=(0.0, 100.0, 300.0),
        reference_z_mm=(0.0, 80.0, 300.0),
        width=Profile((0.0, 300.0), (1.0, 2.0)),
        depth=Profile((0.0, 1.0), (0.5, 0.5)),
        middle_x_mm=Profile((0.0, 1.0), (10.0, 10.0)),
        middle_y_mm=Profile((0.0, 1.0), (-5.0, -5.0)),
    )


def plain_canvas(body: BodyMap) -> Canvas:
    axes = [np.arange(-60.0, 61, 4), np.arange(-50.0, 51, 5), np.arange(-30.0, 330, 6)]
    return make_canvas(body, axes, np.random.default_rng(0), warp_mm=0.0)


def test_heights_go_piece_by_piece_and_back(body: BodyMap) -> None:
    z = np.array([-50.0, 0.0, 50.0, 100.0, 200.0, 400.0])
    np.testing.assert_allclose(body.reference_z(z), [-40, 0, 40, 80, 190, 410])
    np.testing.assert_allclose(body.patient_z(body.reference_z(z)), z)


def test_reference_coordinates_by_hand(body: BodyMap) -> None:
    canvas = plain_canvas(body)
    # Voxel (z, y, x) = (20, 3, 7) stands at patient mm z = 90, y = −35, x = −32.
    assert canvas.z[20, 3, 7] == pytest.approx(72)
    assert canvas.y[20, 3, 7] == pytest.approx((-35 + 5) / 0.5)
    assert canvas.x[20, 3, 7] == pytest.approx((-32 - 10) / (1 + 72 / 300))
    assert canvas.spacing_mm == pytest.approx((6, 5, 4))
    assert canvas.voxel_volume_ml == pytest.approx(0.12)


def test_painting_in_a_window_is_painting_everywhere() -> None:
    patient = draw_patient(np.random.default_rng(1))
    body = draw_body_map(patient, np.random.default_rng(1))
    axes = [np.arange(-120.0, 121, 6), np.arange(-90.0, 91, 6), np.arange(100.0, 400, 6)]
    canvas = make_canvas(body, axes, np.random.default_rng(2))
    for shape in (
        Ellipsoid((20, -10, 250), (40, 25, 60), (20, 0, 30)),
        tube((0, 0, 120, 20), (50, 30, 380, 9)),
    ):
        canvas.tissue[:] = 0
        canvas.paint(shape, Tissue.LIVER)
        expected = shape.distance(canvas.x, canvas.y, canvas.z) < 0
        np.testing.assert_array_equal(canvas.tissue == Tissue.LIVER, expected)
        assert expected.any()


def test_painting_over_some_tissues_only(body: BodyMap) -> None:
    canvas = plain_canvas(body)
    canvas.tissue[:30] = Tissue.FAT
    canvas.paint(Ellipsoid((0, 0, 150), (50, 50, 80)), Tissue.LIVER, over=(Tissue.FAT,))
    assert one_of(canvas.tissue[:30], (Tissue.LIVER,)).any()
    assert not one_of(canvas.tissue[30:], (Tissue.LIVER,)).any()


def test_a_box_outside_has_no_window(body: BodyMap) -> None:
    assert plain_canvas(body).window(Box((0, 0, 900), (1, 1, 950))) is None
