import numpy as np
import pytest
from scipy import ndimage

from petlesion.simulation.anatomy import build_anatomy
from petlesion.simulation.body import BodyMap, Canvas, Patient, Profile, Tissue, make_canvas
from petlesion.simulation.burden import Burden
from petlesion.simulation.deceivers import add_deceivers
from petlesion.simulation.diseases import DISEASES, SITES
from petlesion.simulation.scanner import draw_scanner
from petlesion.simulation.tumours import add_lesions
from petlesion.simulation.uptake import Phantom, draw_phantom

PATIENT = Patient("female", 1700.0, 24.0, 15.0, arms_up=True)


def reference_body() -> BodyMap:
    one, zero = Profile((0.0, 1.0), (1.0, 1.0)), Profile((0.0, 1.0), (0.0, 0.0))
    return BodyMap((-900.0, 900.0), (-900.0, 900.0), one, one, zero, zero)


@pytest.fixture(scope="module")
def canvas() -> Canvas:
    rng = np.random.default_rng(2)
    axes = [np.arange(-250, 250, 5.0), np.arange(-180, 190, 5.0), np.arange(-100, 900, 5.0)]
    return build_anatomy(make_canvas(reference_body(), axes, rng), PATIENT, rng)


def phantom_in(canvas: Canvas, seed: int = 0) -> Phantom:
    return draw_phantom(canvas, np.random.default_rng(seed), contrast=False)


def test_every_site_has_room(canvas: Canvas) -> None:
    used = {site for disease in DISEASES.values() for site in (*disease.largest, *disease.others)}
    assert used == set(SITES)
    phantom = phantom_in(canvas)
    scanner = draw_scanner(np.random.default_rng(0))
    burden = Burden((60.0, 9.0, 3.0, 1.0, 0.2), (5.0,) * 5)
    for seed in range(8):
        before = phantom.suv.copy()
        truth = add_lesions(phantom, burden, scanner, np.random.default_rng(seed))
        labels, count = ndimage.label(truth, ndimage.generate_binary_structure(3, 2))
        assert count == 5
        volumes = np.sort(np.bincount(labels.ravel())[1:])[::-1] * canvas.voxel_volume_ml
        np.testing.assert_allclose(volumes[:3], (60, 9, 3), rtol=0.25)
        np.testing.assert_array_equal(phantom.suv[~truth], before[~truth])


def test_lesions_are_hotter_than_what_they_grow_in(canvas: Canvas) -> None:
    phantom = phantom_in(canvas)
    before = phantom.suv.copy()
    scanner = draw_scanner(np.random.default_rng(0))
    truth = add_lesions(phantom, Burden((8.0,), (1.0,)), scanner, np.random.default_rng(1))
    assert np.median(phantom.suv[truth]) > 1.5 * np.median(before[truth])


def test_a_body_full_of_lesions_leaves_some_out(canvas: Canvas) -> None:
    scanner = draw_scanner(np.random.default_rng(0))
    truth = add_lesions(
        phantom_in(canvas), Burden((2000.0, *[30.0] * 60), (5.0,) * 61), scanner, np.random.default_rng(0)
    )
    assert truth.any()
    assert not truth[canvas.tissue == Tissue.AIR].any()


def test_deceivers_add_activity_and_no_truth(canvas: Canvas) -> None:
    hotter = 0
    for seed in range(12):
        phantom = phantom_in(canvas)
        before = phantom.suv.copy()
        add_deceivers(phantom, PATIENT, np.random.default_rng(seed))
        hotter += int(np.any(phantom.suv > 1.3 * before))
        assert np.isfinite(phantom.suv).all() and np.isfinite(phantom.hu).all()
        np.testing.assert_array_equal(
            phantom.suv[canvas.tissue == Tissue.AIR], before[canvas.tissue == Tissue.AIR]
        )
        truth = add_lesions(
            phantom, Burden((), ()), draw_scanner(np.random.default_rng(0)), np.random.default_rng(0)
        )
        assert not truth.any()
    assert hotter >= 10
