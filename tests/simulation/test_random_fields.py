import numpy as np

from petlesion.simulation.random_fields import smooth_field


def test_mean_variance_and_scale() -> None:
    field = smooth_field(np.random.default_rng(1), (120, 120, 120), (2.0, 2.0, 2.0), 10.0)
    assert abs(field.mean()) < 0.05
    assert abs(field.std() - 1) < 0.05
    near = np.corrcoef(field[:, :, 1:].ravel(), field[:, :, :-1].ravel())[0, 1]
    far = np.corrcoef(field[:, :, 12:].ravel(), field[:, :, :-12].ravel())[0, 1]
    assert near > 0.9 and abs(far) < 0.1


def test_the_same_field_on_any_grid() -> None:
    coarse = smooth_field(np.random.default_rng(1), (20, 20, 20), (4.0, 4.0, 4.0), 16.0)
    fine = smooth_field(np.random.default_rng(1), (40, 40, 40), (2.0, 2.0, 2.0), 16.0)
    np.testing.assert_allclose(fine[::2, ::2, ::2], coarse, atol=1e-5)
