import numpy as np
import pytest

from petlesion.simulation.body import Tissue
from petlesion.simulation.deceivers import _DECEIVERS, _Deceiver, _Scene, add_deceivers
from petlesion.simulation.uptake import Phantom, draw_phantom
from tests.simulation.conftest import Body


@pytest.fixture(scope="module")
def healthy(woman: Body) -> Phantom:
    return draw_phantom(woman.canvas, np.random.default_rng(0), contrast=False)


def changed(phantom: Phantom) -> Phantom:
    """A copy that may be changed."""
    return Phantom(phantom.canvas, phantom.suv.copy(), phantom.hu.copy())


@pytest.mark.parametrize("deceiver", _DECEIVERS, ids=lambda deceiver: deceiver.apply.__name__[1:])
def test_each_takes_up_more_inside_the_body_alone(
    woman: Body, man: Body, healthy: Phantom, deceiver: _Deceiver
) -> None:
    body, before = woman, healthy
    if deceiver.apply.__name__ == "_hot_prostate":
        body, before = man, draw_phantom(man.canvas, np.random.default_rng(0), contrast=False)
    phantom = changed(before)
    tissue = body.canvas.tissue.copy()
    for seed in range(4):
        deceiver.apply(_Scene(phantom, body.patient, np.random.default_rng(seed)))
    assert (phantom.suv > 1.2 * before.suv).any()
    assert np.isfinite(phantom.suv).all() and np.isfinite(phantom.hu).all()
    outside = body.canvas.tissue == Tissue.AIR
    np.testing.assert_array_equal(phantom.suv[outside], before.suv[outside])
    np.testing.assert_array_equal(body.canvas.tissue, tissue)


def test_a_patient_has_some_of_them(woman: Body, healthy: Phantom) -> None:
    assert len(_DECEIVERS) == 23  # as docs/simulation.md counts them
    hotter = 0
    for seed in range(12):
        phantom = changed(healthy)
        add_deceivers(phantom, woman.patient, np.random.default_rng(seed))
        hotter += int(np.any(phantom.suv > 1.3 * healthy.suv))
    assert hotter >= 10
