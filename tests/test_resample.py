"""Resampling, held against scipy.ndimage and nilearn."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from petlesion.errors import ValueRangeError
from petlesion.resample import cell_means, resample_mask_to_grid, resample_to_grid
from petlesion.volume import Grid, Volume

AIR = -1024.0


def affine_of(spacing_xyz: tuple[float, float, float], origin: tuple[float, float, float]) -> np.ndarray:
    affine = np.diag([*spacing_xyz, 1.0])
    affine[:3, 3] = origin
    return affine


def rotated(grid: Grid, degrees: float) -> Grid:
    angle = np.deg2rad(degrees)
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = grid.affine.copy()
    affine[:3, :3] = rotation @ affine[:3, :3]
    return Grid(grid.shape, affine)


def scipy_says(image: Volume, grid: Grid, order: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """scipy's values, and which voxels lie well inside and well outside of the image."""
    affine = np.linalg.inv(image.affine) @ grid.affine
    index = np.stack([*np.indices(grid.shape)[::-1].reshape(3, -1), np.ones(np.prod(grid.shape))])
    coordinates = (affine @ index)[2::-1]
    values = ndimage.map_coordinates(image.array.astype(np.float64), coordinates, order=order, cval=AIR)
    beyond = np.max([-coordinates, coordinates - (np.array(image.shape)[:, None] - 1)], axis=(0, 1))
    return tuple(part.reshape(grid.shape) for part in (values, beyond < -1e-6, beyond > 2e-3))


def assert_like_scipy(image: Volume, grid: Grid, order: int, tolerance: float = 0.01) -> None:
    result = resample_to_grid(image, grid, fill=AIR, order=order)
    values, inside, outside = scipy_says(image, grid, order)
    assert inside.any()
    assert np.abs(result.array - values)[inside].max() <= tolerance
    assert (result.array[outside] == AIR).all()
    assert result.array.dtype == np.float32
    assert result.grid.matches(grid)


@pytest.fixture
def ct(rng: np.random.Generator) -> Volume:
    array = rng.integers(-1024, 3000, (30, 40, 50)).astype(np.int16)
    return Volume(array, affine_of((0.977, 0.977, 2.0), (-30.0, -25.0, -40.0)))


@pytest.fixture
def pet_grid() -> Grid:
    return Grid((25, 22, 30), affine_of((2.04, 2.04, 3.0), (-35.0, -28.0, -41.3)))


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("orientation", ["LPS", "RAS", "SPL", "IAR", "PLS"])
def test_parallel_grids_give_what_scipy_gives(
    ct: Volume, pet_grid: Grid, orientation: str, order: int
) -> None:
    assert_like_scipy(ct, pet_grid.reoriented(orientation), order)
    assert_like_scipy(ct.reoriented(orientation), pet_grid, order)


@pytest.mark.parametrize("order", [1, 3])
def test_oblique_grids_give_what_scipy_gives(ct: Volume, pet_grid: Grid, order: int) -> None:
    assert_like_scipy(ct, rotated(pet_grid, 7), order)


def test_grids_that_are_oblique_alike_are_parallel(ct: Volume, pet_grid: Grid) -> None:
    turned = Volume(ct.array, rotated(ct.grid, 25).affine)
    assert_like_scipy(turned, rotated(Grid(pet_grid.shape, pet_grid.affine), 25), 3)


def test_nilearn_gives_the_same_as_the_public_ctres_files(ct: Volume, pet_grid: Grid) -> None:
    nibabel = pytest.importorskip("nibabel")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = pytest.importorskip("nilearn.image")
        source = nibabel.Nifti1Image(ct.array.T.astype(np.float32), ct.affine)
        target = nibabel.Nifti1Image(np.zeros(pet_grid.shape[::-1], np.uint8), pet_grid.affine)
        theirs = image.resample_to_img(source, target, fill_value=AIR, clip=False).get_fdata().T
    ours = resample_to_grid(ct, pet_grid, fill=AIR).array
    assert np.abs(ours - theirs).max() <= 0.01


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(*[st.integers(1, 12)] * 3),
    target=st.tuples(*[st.integers(1, 12)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 5)] * 3),
    origin=st.tuples(*[st.floats(-8, 8)] * 3),
    order=st.sampled_from([1, 3]),
    seed=st.integers(0, 2**16),
)
def test_any_two_parallel_grids_give_what_scipy_gives(size, target, spacing, origin, order, seed) -> None:
    array = np.random.default_rng(seed).uniform(-1000, 3000, size).astype(np.float32)
    image = Volume(array, np.diag([1.1, 0.9, 2.0, 1.0]))
    grid = Grid(target, affine_of(spacing, origin))
    values, inside, outside = scipy_says(image, grid, order)
    result = resample_to_grid(image, grid, fill=AIR, order=order).array
    np.testing.assert_allclose(result[inside], values[inside], atol=0.01)
    assert (result[outside] == AIR).all()


def test_the_same_grid_gives_the_same_image(ct: Volume) -> None:
    result = resample_to_grid(ct, ct.grid, fill=AIR)
    np.testing.assert_allclose(result.array, ct.array, atol=0.01)


def test_outermost_voxels_keep_their_values_whatever_the_rounding(ct: Volume) -> None:
    affine = ct.affine.copy()
    affine[:3, 3] += (1e-9, -1e-9, 1e-9)
    result = resample_to_grid(ct, Grid(ct.shape, affine), fill=AIR)
    np.testing.assert_allclose(result.array, ct.array, atol=0.01)


def test_an_image_that_does_not_meet_the_grid_gives_only_the_fill(ct: Volume) -> None:
    grid = Grid((5, 5, 5), affine_of((1.0, 1.0, 1.0), (500.0, 0.0, 0.0)))
    assert (resample_to_grid(ct, grid, fill=AIR).array == AIR).all()
    assert not resample_mask_to_grid(ct, grid).array.any()


def test_an_image_that_is_not_finite_is_refused(ct: Volume, pet_grid: Grid) -> None:
    array = ct.array.astype(np.float32)
    array[3, 4, 5] = np.nan
    with pytest.raises(ValueRangeError, match="finite"):
        resample_to_grid(ct.with_array(array), pet_grid, fill=AIR)


@pytest.mark.parametrize("degrees", [0, 11])
@pytest.mark.parametrize("orientation", ["LPS", "RAS", "SPL"])
def test_a_mask_takes_the_nearest_voxel(ct: Volume, pet_grid: Grid, degrees: float, orientation: str) -> None:
    mask = ct.with_array(ct.array > 500)
    grid = rotated(pet_grid, degrees).reoriented(orientation)
    result = resample_mask_to_grid(mask, grid).array
    affine = np.linalg.inv(mask.affine) @ grid.affine
    for z, y, x in np.ndindex(grid.shape):
        exact = (affine @ [x, y, z, 1])[2::-1]
        if np.abs(exact - np.floor(exact) - 0.5).min() < 1e-3:
            continue
        index = np.rint(exact).astype(int)
        inside = ((index >= 0) & (index < mask.shape)).all()
        assert result[z, y, x] == (inside and mask.array[tuple(index * inside)])


def test_cells_are_means_of_whole_blocks_alone() -> None:
    array = np.arange(4 * 3 * 5, dtype=np.float32).reshape(4, 3, 5)
    expected = [[[array[z : z + 2, :, x : x + 2].mean() for x in (0, 2)]] for z in (0, 2)]
    np.testing.assert_allclose(cell_means(array, (2, 7, 2)), expected)  # a cell is no longer than its axis
