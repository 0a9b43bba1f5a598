import numpy as np
import pytest

from petlesion.dicom.rtstruct import Structure, rasterise, structures, tumour_structures
from petlesion.errors import FormatError, GeometryError
from petlesion.volume import Grid
from tests.dicom.builders import SeriesSpec, structure_set

SPACING = np.array([2.0, 3.0, 4.0])
ORIGIN = np.array([-20.0, -30.0, 100.0])


@pytest.fixture
def grid() -> Grid:
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = ORIGIN
    return Grid((9, 30, 40), affine)


def polygon(points_xy: list[tuple[float, float]], z: float) -> np.ndarray:
    """Index coordinates to LPS mm."""
    return np.array([(x, y, z) for x, y in points_xy]) * SPACING + ORIGIN


def circle(radius: float, z: float, centre: tuple[float, float] = (20.3, 14.6)) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    return polygon(
        list(zip(centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle), strict=True)), z
    )


def inside_circle(grid: Grid, radius: float) -> np.ndarray:
    y, x = np.indices(grid.shape[1:])
    return (x - 20.3) ** 2 + (y - 14.6) ** 2 < radius**2


def mask_of(contours: dict[str, list[np.ndarray]], grid: Grid) -> np.ndarray:
    dataset = structure_set(contours, SeriesSpec())
    return rasterise(dataset, structures(dataset), grid).array


def test_voxels_whose_centre_is_inside(grid: Grid) -> None:
    mask = mask_of({"GTV": [circle(8.0, 3)]}, grid)
    np.testing.assert_array_equal(mask[3], inside_circle(grid, 8.0))
    assert mask[[0, 1, 2, 4, 5, 6, 7, 8]].sum() == 0


def test_a_contour_within_another_is_a_hole(grid: Grid) -> None:
    mask = mask_of({"GTV": [circle(9.0, 3), circle(4.0, 3)]}, grid)
    np.testing.assert_array_equal(mask[3], inside_circle(grid, 9.0) & ~inside_circle(grid, 4.0))


def test_a_hole_by_a_keyhole(grid: Grid) -> None:
    outer, inner = circle(9.0, 3), circle(4.0, 3)[::-1]
    keyhole = np.concatenate([outer, outer[:1], inner, inner[:1]])
    expected = inside_circle(grid, 9.0) & ~inside_circle(grid, 4.0)
    np.testing.assert_array_equal(mask_of({"GTV": [keyhole]}, grid)[3], expected)


def test_holes_that_are_stated(grid: Grid) -> None:
    dataset = structure_set({"GTV": [circle(9.0, 3), circle(4.0, 3)]}, SeriesSpec())
    for contour in dataset.ROIContourSequence[0].ContourSequence:
        contour.ContourGeometricType = "CLOSEDPLANAR_XOR"
    expected = inside_circle(grid, 9.0) & ~inside_circle(grid, 4.0)
    mask = rasterise(dataset, structures(dataset), grid).array
    np.testing.assert_array_equal(mask[3], expected)


def test_numbers_of_structures_may_be_any_whole_ones(grid: Grid) -> None:
    dataset = structure_set({"GTV": [circle(9.0, 3)]}, SeriesSpec())
    dataset.StructureSetROISequence[0].ROINumber = dataset.ROIContourSequence[0].ReferencedROINumber = "-1"
    assert rasterise(dataset, structures(dataset), grid).array.any()


def test_direction_of_the_points_does_not_matter(grid: Grid) -> None:
    np.testing.assert_array_equal(
        mask_of({"GTV": [circle(8.0, 3)]}, grid), mask_of({"GTV": [circle(8.0, 3)[::-1]]}, grid)
    )


def test_corners_on_rows_are_counted_once(grid: Grid) -> None:
    diamond = polygon([(10.0, 5.0), (15.0, 10.0), (10.0, 15.0), (5.0, 10.0)], 2)
    y, x = np.indices(grid.shape[1:])
    strictly_inside = np.abs(x - 10) + np.abs(y - 10) < 5
    allowed = np.abs(x - 10) + np.abs(y - 10) <= 5
    mask = mask_of({"GTV": [diamond]}, grid)[2]
    assert not (strictly_inside & ~mask).any() and not (mask & ~allowed).any()


def test_contours_partly_outside_the_image(grid: Grid) -> None:
    mask = mask_of({"GTV": [circle(60.0, 3)]}, grid)
    assert mask[3].all() and mask.sum() == mask[3].sum()


def test_contours_on_other_planes_fill_the_nearest_slices(grid: Grid) -> None:
    coarse = mask_of({"GTV": [circle(8.0, z) for z in (2.0, 4.0, 6.0)]}, grid)
    assert np.flatnonzero(coarse.any(axis=(1, 2))).tolist() == [1, 2, 3, 4, 5, 6, 7]
    fine = mask_of({"GTV": [circle(8.0, z) for z in np.arange(2.0, 6.01, 0.25)]}, grid)
    assert np.flatnonzero(fine.any(axis=(1, 2))).tolist() == [2, 3, 4, 5, 6]
    shifted = mask_of({"GTV": [circle(8.0, z) for z in (2.3, 3.3, 4.3)]}, grid)
    assert np.flatnonzero(shifted.any(axis=(1, 2))).tolist() == [2, 3, 4]


def test_contours_across_the_slices_are_refused(grid: Grid) -> None:
    sagittal = np.array([(5.0, 3.0, 2.0), (5.0, 9.0, 2.0), (5.0, 9.0, 6.0)]) * SPACING + ORIGIN
    with pytest.raises(GeometryError, match="planes"):
        mask_of({"GTV": [sagittal]}, grid)


def test_flipped_grids(grid: Grid) -> None:
    flipped = Grid(
        grid.shape, grid.affine @ np.array([[-1, 0, 0, 39], [0, -1, 0, 29], [0, 0, -1, 8], [0, 0, 0, 1]])
    )
    contours = {"GTV": [circle(7.0, 3), circle(6.0, 4)]}
    np.testing.assert_array_equal(mask_of(contours, flipped), mask_of(contours, grid)[::-1, ::-1, ::-1])


def test_points_that_are_none(grid: Grid) -> None:
    dataset = structure_set({"GTV": [circle(8.0, 3)]}, SeriesSpec())
    dataset.ROIContourSequence[0].ContourSequence[0].ContourData = ["1", "2", "3", "4"] * 3 + ["1"]
    with pytest.raises(FormatError, match="ContourData"):
        rasterise(dataset, structures(dataset), grid)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["GTV_Mass", "GTV_Edema"], ["GTV_Mass"]),
        (["GTVp", "GTVn", "PTV GTV", "Heart"], ["GTVp", "GTVn"]),
        (["Lesion 1", "lesion 2"], ["Lesion 1", "lesion 2"]),
        (["Bone"], ["Bone"]),
        (["Heart", "Lung"], []),
    ],
)
def test_which_structures_are_the_tumour(names: list[str], chosen: list[str]) -> None:
    found = [Structure(number, name) for number, name in enumerate(names)]
    assert [structure.name for structure in tumour_structures(found)] == chosen
    assert [structure.name for structure in tumour_structures(found, names[-1].upper())] == [names[-1]]


def test_a_segment_may_be_a_tumour_by_its_code() -> None:
    found = [Structure(1, "Segment_1", "Neoplasm"), Structure(2, "Segment_2", "Liver")]
    assert tumour_structures(found) == found[:1]
