import numpy as np

from petlesion.simulation.body import draw_body_map, draw_patient
from petlesion.simulation.field_of_view import FieldOfView, place_field


def test_the_block_is_put_where_it_was_taken_from() -> None:
    field = FieldOfView((3, 6, 8), (5.0, 3.0, 2.0), (-8.0, -9.0, 40.0), (slice(1, 4), slice(2, 7)))
    x, y, z = field.axes()
    np.testing.assert_allclose((x[0], x[-1], y[-1], z[-1]), (-8, 6, 6, 50))
    block_x, block_y, block_z = field.block_axes()
    np.testing.assert_array_equal(block_x, x[2:7])
    np.testing.assert_array_equal(block_y, y[1:4])
    volume = field.whole(np.ones((3, 3, 5)), np.zeros((3, 6, 8)))
    assert volume.array.sum() == 45 and volume.array[0, 1, 2] == 1
    assert volume.orientation == "LPS"
    np.testing.assert_allclose(volume.affine @ (2, 1, 0, 1), (block_x[0], block_y[0], block_z[0], 1))


def test_most_scans_reach_from_the_head_to_the_thighs() -> None:
    lowest, highest = [], []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        patient = draw_patient(rng)
        body = draw_body_map(patient, rng)
        field = place_field(patient, body, (4.0, 4.0, 4.0), 814.56, None, rng)
        assert field.shape[1:] == (204, 204)
        heights = body.reference_z(field.axes()[2])
        lowest.append(heights[0])
        highest.append(heights[-1])
    # The hip joints stand at 0, the brain begins at 724.
    assert np.mean(np.array(lowest) < 0) > 0.8
    assert np.mean(np.array(highest) > 724) > 0.9
    # The others end within the pelvis and the neck.
    assert max(lowest) < 200 and min(highest) > 650
