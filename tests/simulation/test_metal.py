import numpy as np

from petlesion.simulation.anatomy import build_anatomy
from petlesion.simulation.body import Patient, Tissue, make_canvas
from petlesion.simulation.metal import add_metal
from petlesion.simulation.uptake import draw_phantom
from tests.simulation.test_tumours import reference_body


def test_metal_is_rare_dense_and_streaks_in_the_body_alone() -> None:
    patient = Patient("male", 1750.0, 25.0, 15.0, arms_up=False)
    rng = np.random.default_rng(0)
    axes = [np.arange(-320, 320, 6.0), np.arange(-180, 190, 6.0), np.arange(-150, 860, 6.0)]
    canvas = build_anatomy(make_canvas(reference_body(), axes, rng), patient, rng)
    found = 0
    for seed in range(40):
        phantom = draw_phantom(canvas, np.random.default_rng(1), contrast=False)
        before, activity = phantom.hu.copy(), phantom.suv.copy()
        add_metal(phantom, patient, np.random.default_rng(seed))
        changed = phantom.hu != before
        np.testing.assert_array_equal(phantom.suv, activity)
        if not changed.any():
            continue
        found += 1
        assert phantom.hu.max() >= 3000
        streaks = changed & (phantom.hu < 3000)
        assert not streaks[canvas.tissue == Tissue.AIR].any()
        assert changed.mean() < 0.1
    assert 5 <= found <= 35
