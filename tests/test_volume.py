import itertools

import numpy as np
import pytest

from petlesion.errors import GeometryError
from petlesion.volume import Grid, Study, Volume

ORIENTATIONS = [
    "".join(letters)
    for order in itertools.permutations(("RL", "AP", "IS"))
    for letters in itertools.product(*order)
]


def affine_of(spacing_xyz: tuple[float, float, float], origin=(10.0, -20.0, 30.0)) -> np.ndarray:
    affine = np.diag([*spacing_xyz, 1.0])
    affine[:3, 3] = origin
    return affine


@pytest.fixture
def volume(rng: np.random.Generator) -> Volume:
    return Volume(rng.random((3, 4, 5)), affine_of((2.0, 2.5, 3.0)))


def world(volume: Volume, z: int, y: int, x: int) -> np.ndarray:
    return (volume.affine @ [x, y, z, 1.0])[:3]


def test_spacing_is_in_the_order_of_the_array(volume: Volume) -> None:
    assert volume.spacing_mm == (3.0, 2.5, 2.0)
    assert volume.voxel_volume_ml == pytest.approx(0.015)
    assert volume.orientation == "LPS"


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_voxel_keeps_its_place_and_value_in_all_48_orientations(
    volume: Volume, orientation: str
) -> None:
    turned = volume.reoriented(orientation)
    assert turned.orientation == orientation
    assert turned.grid.matches(volume.grid.reoriented(orientation))
    inverse = np.linalg.inv(turned.affine)
    for z, y, x in np.ndindex(volume.shape):
        i, j, k = np.rint(inverse @ [*world(volume, z, y, x), 1.0])[:3].astype(int)
        assert turned.array[k, j, i] == volume.array[z, y, x]
    back = turned.reoriented("LPS")
    np.testing.assert_array_equal(back.array, volume.array)
    assert back.grid.matches(volume.grid)


def test_an_oblique_affine_is_named_by_its_nearest_axes() -> None:
    angle = np.deg2rad(30)
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = affine_of((2.0, 2.0, 3.0))
    affine[:3, :3] = rotation @ affine[:3, :3]
    oblique = Volume(np.zeros((2, 3, 4)), affine)
    assert oblique.orientation == "LPS"
    assert oblique.spacing_mm == pytest.approx((3.0, 2.0, 2.0))


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda a: a.__setitem__((0, 0), np.nan), "finite"),
        (lambda a: a.__setitem__((1, 3), np.inf), "finite"),
        (lambda a: a.__setitem__((2, 2), 0.0), "singular"),
        (lambda a: a.__setitem__((slice(None), 1), a[:, 0]), "singular"),
        (lambda a: a.__setitem__((0, 1), 0.5), "sheared"),
    ],
)
def test_an_affine_that_cannot_be_is_refused(spoil, word: str) -> None:
    affine = affine_of((2.0, 2.0, 3.0))
    spoil(affine)
    with pytest.raises(GeometryError, match=word):
        Volume(np.zeros((2, 2, 2)), affine)


def test_an_array_that_is_not_three_dimensional_is_refused() -> None:
    with pytest.raises(GeometryError, match="axes"):
        Volume(np.zeros((2, 2)), np.eye(4))


def test_grids_match_within_a_hundredth_of_a_voxel() -> None:
    grid = Grid((10, 10, 10), affine_of((2.0, 2.0, 2.0)))
    assert grid.matches(Grid((10, 10, 10), affine_of((2.0, 2.0, 2.0), (10.01, -20.0, 30.0))))
    assert not grid.matches(Grid((10, 10, 10), affine_of((2.0, 2.0, 2.0), (10.1, -20.0, 30.0))))
    assert not grid.matches(Grid((10, 10, 10), affine_of((2.01, 2.0, 2.0))))
    assert not grid.matches(Grid((10, 10, 11), affine_of((2.0, 2.0, 2.0))))


def test_a_study_refuses_a_ct_on_another_grid(volume: Volume) -> None:
    elsewhere = Volume(volume.array, affine_of((2.0, 2.5, 3.0), (0.0, 0.0, 0.0)))
    with pytest.raises(GeometryError, match="study case: the CT's grid"):
        Study("case", pet=volume, ct=elsewhere)
    with pytest.raises(GeometryError, match="reference"):
        Study("case", pet=volume, reference=elsewhere)


def test_a_study_turns_all_its_images(phantom: Study) -> None:
    turned = phantom.reoriented("RAS")
    assert turned.pet.orientation == turned.ct.orientation == turned.reference.orientation == "RAS"
    np.testing.assert_array_equal(turned.reoriented().pet.array, phantom.pet.array)


def test_with_array_refuses_another_shape(volume: Volume) -> None:
    with pytest.raises(GeometryError, match="does not fit"):
        volume.with_array(np.zeros((1, 2, 3)))
