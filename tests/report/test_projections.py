"""Projections against a rotation by scipy, against a rule on paper, and as pictures on disk."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from petlesion.errors import GeometryError, UsageError
from petlesion.lesions import label_components
from petlesion.report.projections import (
    FAINTEST,
    LESION_COLOUR,
    WINDOW_SUV,
    draw,
    draw_pair,
    maximum_projections,
    write_gif,
    write_png,
)
from petlesion.volume import Study, Volume

SIZE = 41


def blob_volume(spacing_mm: float = 4.0) -> Volume:
    """Smooth random uptake within a cylinder of radius SIZE // 2, zero outside."""
    rng = np.random.default_rng(5)
    array = ndimage.gaussian_filter(rng.uniform(0, 1, (12, SIZE, SIZE)), 2.0)
    array = 1 + 8 * (array - array.min()) / np.ptp(array)
    y, x = np.indices((SIZE, SIZE)) - SIZE // 2
    array[:, y**2 + x**2 > (SIZE // 2) ** 2] = 0
    return Volume(array.astype(np.float32), np.diag([spacing_mm, spacing_mm, spacing_mm, 1]))


def no_lesions(pet: Volume) -> Volume:
    return pet.with_array(np.zeros(pet.shape, dtype=np.uint16))


def test_the_front_and_the_side_are_the_maxima_along_the_axes() -> None:
    pet = blob_volume()
    projections = maximum_projections(pet, no_lesions(pet), angles=4, pixel_mm=4.0)
    front, side, back, other_side = projections.suv
    assert np.allclose(front, pet.array.max(axis=1)[::-1], atol=1e-4)
    assert np.allclose(side, pet.array.max(axis=2)[::-1], atol=1e-4)
    assert np.allclose(back, front[:, ::-1]) and np.allclose(other_side, side[:, ::-1])


@pytest.mark.parametrize("index", [1, 2, 5, 13])
def test_between_the_axes_they_agree_with_a_rotation_by_scipy(index: int) -> None:
    pet = blob_volume()
    projections = maximum_projections(pet, no_lesions(pet), angles=36, pixel_mm=4.0)
    rotated = ndimage.rotate(pet.array, 10 * index, axes=(1, 2), reshape=False, order=1).max(axis=1)
    frame = projections.suv[index][::-1]
    # The edge of the body falls between rays; inside of it both are the same linear interpolation.
    inner = (slice(None), slice(4, -4))
    assert np.abs(frame - rotated)[inner].max() < 0.05


def test_at_ninety_degrees_the_reader_looks_at_the_left_side() -> None:
    """A spot at the left is in front of the axis, one at the front is at the left edge of the picture."""
    array = np.full((6, 21, 21), 0.5, dtype=np.float32)
    numbers = np.zeros(array.shape, dtype=np.uint16)
    numbers[3, 2, 10] = 1  # anterior
    numbers[3, 10, 18] = 2  # left
    numbers[3, 10, 2] = 3  # right, hidden behind the left one
    pet = Volume(array, np.diag([4.0, 4.0, 4.0, 1]))
    projections = maximum_projections(pet, pet.with_array(numbers), angles=4, pixel_mm=4.0)
    front, left, _, right = projections.lesions
    columns = {number: np.nonzero(front == number)[1].mean() - front.shape[1] // 2 for number in (1, 2, 3)}
    assert columns == {1: 0, 2: 8, 3: -8}
    assert set(np.unique(left)) == {0, 1, 2} and set(np.unique(right)) == {0, 1, 3}
    assert np.nonzero(left == 1)[1].mean() < left.shape[1] // 2 < np.nonzero(right == 1)[1].mean()
    depth = projections.depth[1]
    assert depth[left == 2].max() < 128 < projections.depth[3][right == 1].max() + 10


def test_pixels_are_square_and_in_mm_whatever_the_voxels() -> None:
    """A ball of 24 mm radius in voxels of 2 × 6 × 3 mm is as wide as high."""
    z, y, x = np.indices((60, 20, 40))
    ball = ((z - 30) * 2.0) ** 2 + ((y - 10) * 6.0) ** 2 + ((x - 20) * 3.0) ** 2 <= 24**2
    pet = Volume(np.where(ball, 8.0, 0.0).astype(np.float32), np.diag([3.0, 6.0, 2.0, 1]))
    projections = maximum_projections(pet, no_lesions(pet), angles=4, pixel_mm=3.0)
    for frame in projections.suv:
        rows, columns = np.nonzero(frame > 4)
        assert np.ptp(rows) * 3 + 3 == pytest.approx(48, abs=6)
        assert np.ptp(columns) * 3 + 3 == pytest.approx(48, abs=6)


def test_no_lesion_is_lost_on_the_coarser_grid() -> None:
    rng = np.random.default_rng(3)
    numbers = np.zeros((32, 32, 32), dtype=np.uint16)
    places = rng.choice(8**3, 40, replace=False)
    for number, place in enumerate(places, start=1):
        z, y, x = np.unravel_index(place, (8, 8, 8))
        numbers[4 * z, 4 * y, 4 * x] = number
    pet = Volume(np.ones(numbers.shape, dtype=np.float32), np.diag([2.0, 2.0, 2.0, 1]))
    projections = maximum_projections(pet, pet.with_array(numbers), angles=36, pixel_mm=5.0)
    assert set(np.unique(projections.lesions)) == set(np.unique(numbers))


def test_storage_order_makes_no_difference(phantom: Study) -> None:
    reference = phantom.reference
    expected = maximum_projections(phantom.pet, reference, angles=8)
    turned = maximum_projections(phantom.pet.reoriented("PIR"), reference.reoriented("PIR"), angles=8)
    assert np.allclose(expected.suv, turned.suv, atol=1e-4)
    assert np.array_equal(expected.lesions, turned.lesions)


def test_lesions_are_drawn_in_colour_and_the_rest_in_inverted_grey(phantom: Study) -> None:
    projections = maximum_projections(phantom.pet, phantom.reference)
    picture = draw(projections, 0).astype(int)
    lesion = projections.lesions[0] > 0
    assert (picture[~lesion].max(axis=1) == picture[~lesion].min(axis=1)).all()
    assert (picture[lesion][:, 0] > picture[lesion][:, 1] + 60).all()
    assert np.allclose(picture[~lesion][:, 0], 255 - 25.5 * projections.suv[0][~lesion], atol=0.51)
    assert np.abs(picture[lesion] - LESION_COLOUR).max() < 150


def test_a_doubtful_lesion_is_paler(phantom: Study) -> None:
    assert phantom.reference is not None
    numbers = phantom.reference.with_array(label_components(phantom.reference.array > 0)[0])
    plain = maximum_projections(phantom.pet, numbers)
    judged = maximum_projections(phantom.pet, numbers, [1.0, 0.0])
    first, second, third = (plain.lesions[0] == number for number in (1, 2, 3))
    pictures = [draw(projections, 0).astype(float) for projections in (plain, judged)]
    np.testing.assert_array_equal(pictures[0][first | third], pictures[1][first | third])
    grey = 255 * (1 - np.clip(plain.suv[0] / WINDOW_SUV, 0, 1))[..., None]
    full, faint = ((picture - grey)[second] for picture in pictures)
    np.testing.assert_allclose(faint, FAINTEST * full, atol=1)
    assert second.any() and np.abs(full).max() > 50


def test_png_and_gif_hold_the_frames(tmp_path: Path, phantom: Study) -> None:
    projections = maximum_projections(phantom.pet, phantom.reference, angles=12)
    write_png(tmp_path / "mip.png", projections)
    write_gif(tmp_path / "mip.gif", projections)
    height, width = draw_pair(projections).shape[:2]
    with Image.open(tmp_path / "mip.png") as png:
        assert png.size == (3 * width, 3 * height)
    with Image.open(tmp_path / "mip.gif") as gif:
        assert gif.n_frames == 12 and gif.info["loop"] == 0
        gif.seek(3)
        film = np.asarray(gif.convert("RGB").resize((width // 2, height)), dtype=int)
    assert np.abs(film - draw(projections, 3)).mean() < 12
    before = (tmp_path / "mip.png").read_bytes(), (tmp_path / "mip.gif").read_bytes()
    write_png(tmp_path / "mip.png", projections)
    write_gif(tmp_path / "mip.gif", projections)
    assert before == ((tmp_path / "mip.png").read_bytes(), (tmp_path / "mip.gif").read_bytes())


def test_an_empty_pet_can_be_projected() -> None:
    pet = Volume(np.zeros((4, 5, 6), dtype=np.float32), np.diag([4.0, 4.0, 4.0, 1]))
    projections = maximum_projections(pet, no_lesions(pet))
    assert projections.suv.max() == 0 and projections.lesions.max() == 0


def test_what_cannot_be_projected_is_refused(phantom: Study) -> None:
    for angles in (0, 7, 18):
        with pytest.raises(UsageError, match=f"{angles} angles"):
            maximum_projections(phantom.pet, phantom.reference, angles=angles)
    other = phantom.reference.reoriented("RAS")
    with pytest.raises(GeometryError, match="lesions' grid"):
        maximum_projections(phantom.pet, other)
