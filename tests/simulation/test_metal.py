import numpy as np

from petlesion.simulation.body import Patient, Tissue
from petlesion.simulation.metal import _pieces, add_metal
from petlesion.simulation.uptake import Phantom, draw_phantom
from tests.simulation.conftest import Body, build


def test_a_port_lies_under_the_skin(man: Body) -> None:
    for body in (man, build(Patient("male", 1780.0, 22.0, 6.5, arms_up=True))):
        (port, _), *_ = _pieces("port", body.patient, np.random.default_rng(0))
        x, y, z = (port.box.low[axis] / 2 + port.box.high[axis] / 2 for axis in range(3))
        assert body.at(x, y, z) in (Tissue.FAT, Tissue.MUSCLE)
        assert body.at(x, y - 25, z) == Tissue.AIR


def test_metal_is_rare_dense_and_streaks_in_the_body_alone(man: Body) -> None:
    patient, canvas = man.patient, man.canvas
    healthy = draw_phantom(canvas, np.random.default_rng(1), contrast=False)
    found = 0
    for seed in range(40):
        phantom = Phantom(canvas, healthy.suv.copy(), healthy.hu.copy())
        add_metal(phantom, patient, np.random.default_rng(seed))
        changed = phantom.hu != healthy.hu
        np.testing.assert_array_equal(phantom.suv, healthy.suv)
        if not changed.any():
            continue
        found += 1
        assert phantom.hu.max() >= 3000
        streaks = changed & (phantom.hu < 3000)
        assert not streaks[canvas.tissue == Tissue.AIR].any()
        assert changed.mean() < 0.1
    assert 5 <= found <= 35
