import numpy as np
import pytest
from nnunetv2.preprocessing.resampling.default_resampling import (
    compute_new_shape,
    determine_do_sep_z_and_axis,
    resample_data_or_seg_to_shape,
)

from petlesion.inference.resampling import resize, shape_at_spacing, slice_axis
from petlesion.model.plan import Interpolation

CASES = [
    ((20, 31, 26), (3.0, 2.0, 2.0), (4.1, 1.7, 2.6)),
    ((20, 31, 26), (3.0, 2.0, 2.0), (3.0, 2.0, 1.2)),
    ((9, 30, 24), (8.0, 2.0, 2.0), (5.0, 2.5, 1.5)),
    ((24, 9, 30), (2.0, 8.0, 2.0), (2.5, 8.0, 1.5)),
    ((12, 30, 24), (5.0, 2.0, 2.0), (9.0, 2.0, 2.5)),
    ((1, 12, 12), (3.0, 4.0, 4.0), (3.0, 2.0, 3.0)),
    ((12, 12, 12), (8.0, 8.0, 2.0), (4.0, 4.0, 2.0)),
]


@pytest.mark.parametrize(("shape", "spacing", "new_spacing"), CASES)
@pytest.mark.parametrize(
    "interpolation",
    [
        Interpolation(3),
        Interpolation(1),
        Interpolation(3, 1),
        Interpolation(3, 0, False),
        Interpolation(1, 1, True),
    ],
)
def test_resize_is_nnunets(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    new_spacing: tuple[float, float, float],
    interpolation: Interpolation,
) -> None:
    image = rng.normal(size=shape).astype(np.float32)
    new_shape = shape_at_spacing(shape, spacing, new_spacing)
    expected = resample_data_or_seg_to_shape(
        image[None],
        new_shape,
        spacing,
        new_spacing,
        order=interpolation.order,
        order_z=interpolation.order_across,
        force_separate_z=interpolation.separate_slices,
    )[0]
    found = resize(image, new_shape, spacing, new_spacing, interpolation)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize(("shape", "spacing", "new_spacing"), CASES)
def test_shape_and_slices_are_nnunets(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    new_spacing: tuple[float, float, float],
) -> None:
    assert shape_at_spacing(shape, spacing, new_spacing) == tuple(
        compute_new_shape(shape, spacing, new_spacing)
    )
    for force in (None, False, True):
        _, axis = determine_do_sep_z_and_axis(force, spacing, new_spacing)
        assert slice_axis(force, spacing, new_spacing) == axis


def test_an_image_on_the_wanted_grid_is_left_alone() -> None:
    image = np.ones((4, 5, 6), dtype=np.float32)
    assert resize(image, (4, 5, 6), (1, 1, 1), (1, 1, 1), Interpolation(3)) is image
