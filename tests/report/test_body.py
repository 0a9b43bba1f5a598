"""The box around the body, cropping in place, and the numbers of lesions."""

from dataclasses import replace

import numpy as np
import pytest

from petlesion.errors import StudyError
from petlesion.lesions import measure_lesions
from petlesion.report.body import body_box, cropped, number_lesions
from petlesion.volume import Study, Volume
from tests.conftest import make_phantom


def test_the_box_holds_the_body_with_a_margin_and_leaves_the_air(phantom: Study) -> None:
    z, y, x = body_box(phantom, phantom.reference.array)
    rows, columns = (np.nonzero((phantom.ct.array > -300).any(axis=axes))[0] for axes in ((0, 2), (0, 1)))
    assert z == slice(0, 40)
    assert y == slice(rows.min() - 2, rows.max() + 3)
    assert x == slice(columns.min() - 2, columns.max() + 3)


def test_a_lesion_outside_the_body_is_in_the_box_and_noise_is_not(phantom: Study) -> None:
    mask = phantom.reference.array.copy()
    mask[0, 0, 55] = True
    _, y, x = body_box(phantom, mask)
    assert y.start == 0 and x.stop == 56
    noise = phantom.pet.array.copy()
    noise[20, 0, 0] = 50
    _, y, x = body_box(replace(phantom, pet=phantom.pet.with_array(noise)), phantom.reference.array)
    assert y.start > 0 and x.start > 0


def test_an_empty_image_is_shown_whole(phantom: Study) -> None:
    nothing = np.zeros(phantom.pet.shape)
    study = Study("empty", phantom.pet.with_array(nothing))
    assert body_box(study, nothing > 0) == tuple(slice(0, n) for n in phantom.pet.shape)


def test_what_is_cropped_stays_in_its_place() -> None:
    affine = np.array([[0, 2.0, 0, 5], [3.0, 0, 0, -7], [0, 0, -4.0, 11], [0, 0, 0, 1]])
    volume = Volume(np.arange(4 * 5 * 6).reshape(4, 5, 6), affine)
    part = cropped(volume, (slice(1, 3), slice(2, 5), slice(3, 6)))
    assert part.array[0, 0, 0] == volume.array[1, 2, 3]
    assert np.allclose(part.affine @ (0, 0, 0, 1), affine @ (3, 2, 1, 1))


def test_voxels_carry_the_number_of_their_lesion_in_the_table(phantom: Study) -> None:
    array = phantom.reference.array.copy()
    array[1:3, 1:8, 1:3] = True
    mask = phantom.reference.with_array(array)
    table = measure_lesions(mask, phantom.pet)
    numbers = number_lesions(mask, table, "study").array
    assert np.array_equal(numbers > 0, array)
    for lesion in table.lesions:
        places = np.argwhere(numbers == lesion.number)
        assert len(places) == lesion.voxels
        assert places.mean(axis=0) == pytest.approx(lesion.centroid_index)


def test_a_table_of_another_mask_is_refused(phantom: Study) -> None:
    table = measure_lesions(phantom.reference, phantom.pet)
    other = make_phantom().reference.array.copy()
    other[1, 1, 1] = True
    with pytest.raises(StudyError, match="study X: the lesion table was not measured on this mask"):
        number_lesions(phantom.reference.with_array(other), table, "X")
