import numpy as np
import pytest
from scipy import ndimage

from petlesion.simulation.body import Canvas, Tissue, one_of
from petlesion.simulation.burden import Burden
from petlesion.simulation.diseases import DISEASES, SITES
from petlesion.simulation.scanner import draw_scanner
from petlesion.simulation.tumours import _GAS, _Host, add_lesions
from petlesion.simulation.uptake import Phantom, draw_phantom
from tests.simulation.conftest import Body


@pytest.fixture(scope="module")
def canvas(woman: Body) -> Canvas:
    return woman.canvas


def phantom_in(canvas: Canvas, seed: int = 0) -> Phantom:
    return draw_phantom(canvas, np.random.default_rng(seed), contrast=False)


def host_in(phantom: Phantom, truth: np.ndarray, seed: int) -> _Host:
    free = ~one_of(phantom.canvas.tissue, _GAS)
    return _Host(phantom, truth, free, draw_scanner(np.random.default_rng(0)), np.random.default_rng(seed))


def test_every_site_is_one_of_a_disease() -> None:
    used = {site for disease in DISEASES.values() for site in (*disease.largest, *disease.others)}
    assert used == set(SITES)


@pytest.mark.parametrize("site", SITES)
def test_every_site_has_room(woman: Body, man: Body, site: str) -> None:
    for body in (woman, man):
        phantom = phantom_in(body.canvas)
        place = host_in(phantom, np.zeros(phantom.suv.shape, bool), 0)._find_room(site)
        assert place is not None
        assert Tissue(int(body.canvas.tissue[place])) in SITES[site].tissues


def test_lesions_have_the_volumes_that_were_wanted(canvas: Canvas) -> None:
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


def planted(phantom: Phantom, site: str, volume_ml: float, seed: int, *, necrotic: bool) -> np.ndarray:
    """Where one lesion grew at a site."""
    truth = np.zeros(phantom.suv.shape, bool)
    host_in(phantom, truth, seed).plant({site: 1.0}, volume_ml, 8.0, necrotic=necrotic)
    return truth


def test_a_large_lesion_may_be_dead_inside(canvas: Canvas) -> None:
    for seed in range(3):
        phantom = phantom_in(canvas)
        truth = planted(phantom, "liver", 150.0, seed, necrotic=True)
        dead = truth & (phantom.suv < 2.3) & (phantom.hu < 40)
        assert 0.1 < dead.sum() / truth.sum() < 0.5
        depth = ndimage.distance_transform_edt(truth)
        assert depth[dead].mean() > depth[truth & ~dead].mean()


def test_a_nodule_in_the_lung_is_denser_than_lung(canvas: Canvas) -> None:
    densities = []
    for seed in range(8):
        phantom = phantom_in(canvas)
        before = phantom.hu.copy()
        truth = planted(phantom, "lung", 4.0, seed, necrotic=False)
        assert np.mean(canvas.tissue[truth] == Tissue.LUNG) > 0.7
        assert np.median(phantom.hu[truth]) > np.median(before[truth]) + 150
        densities.append(np.median(phantom.hu[truth]))
    assert min(densities) < -100 < 0 < max(densities)  # ground glass, and solid


def test_lesions_of_bone_are_lytic_sclerotic_or_leave_it_as_it_is(canvas: Canvas) -> None:
    kinds = set()
    for seed in range(16):
        phantom = phantom_in(canvas)
        before = phantom.hu.copy()
        truth = planted(phantom, "bone", 4.0, seed, necrotic=False)
        bone = truth & one_of(canvas.tissue, (Tissue.RED_MARROW, Tissue.BONE))
        change = float(np.median(phantom.hu[bone]) - np.median(before[bone]))
        kinds.add("kept" if np.array_equal(phantom.hu, before) else "lytic" if change < 0 else "sclerotic")
    assert kinds == {"kept", "lytic", "sclerotic"}


def test_no_lesion_is_a_ball(canvas: Canvas) -> None:
    for seed in range(3):
        truth = planted(phantom_in(canvas), "liver", 100.0, seed, necrotic=False)
        index = np.argwhere(truth) * 5.0
        # In a ball of the same volume the mean squared distance from the middle is 3/5 of the radius squared.
        radius_mm = (3 * truth.sum() * 125 / (4 * np.pi)) ** (1 / 3)
        spread = ((index - index.mean(axis=0)) ** 2).sum(axis=1).mean()
        assert spread > 1.02 * 0.6 * radius_mm**2
