"""Crops of crops, and CTs out of place."""

import numpy as np
import pytest

from petlesion.cohort.recut import recut, shift_ct
from petlesion.volume import Study
from tests.conftest import make_phantom


@pytest.fixture(scope="module")
def study() -> Study:
    return make_phantom((40, 36, 32), seed=4)


def test_every_voxel_that_is_left_stays_in_its_place(study: Study) -> None:
    for seed in range(20):
        small = recut(study, np.random.default_rng(seed))
        assert small.ct is not None and small.reference is not None
        assert small.ct.grid.matches(small.pet.grid) and small.reference.grid.matches(small.pet.grid)
        offset = np.linalg.solve(study.pet.affine, small.pet.affine[:, 3])[:3]
        x, y, z = np.rint(offset).astype(int)
        np.testing.assert_allclose(offset, (x, y, z), atol=1e-9)
        size_z, size_y, size_x = small.pet.shape
        place = (slice(z, z + size_z), slice(y, y + size_y), slice(x, x + size_x))
        np.testing.assert_array_equal(small.pet.array, study.pet.array[place])
        np.testing.assert_array_equal(small.reference.array, study.reference.array[place])  # type: ignore[union-attr]


def test_cuts_are_uniform_up_to_the_most_that_is_asked_for(study: Study) -> None:
    most_mm = 8 * study.pet.spacing_mm[0]
    taken = [
        study.pet.shape[0] - recut(study, np.random.default_rng(seed), most_mm).pet.shape[0]
        for seed in range(400)
    ]
    assert max(taken) <= 16 and min(taken) >= 0
    assert abs(np.mean(taken) - 8) < 4 * np.sqrt(2 * 8**2 / 12 / 400)


def test_one_voxel_is_left_of_a_study_that_is_smaller_than_the_cut(study: Study) -> None:
    sizes = [min(recut(study, np.random.default_rng(seed), 1e4).pet.shape) for seed in range(10)]
    assert min(sizes) == 1


def test_a_shifted_ct_leaves_pet_and_reference_alone(study: Study) -> None:
    moved = shift_ct(study, np.random.default_rng(1), 8.0)
    assert moved.pet is study.pet and moved.reference is study.reference
    assert moved.ct is not None and study.ct is not None
    assert not np.array_equal(moved.ct.array, study.ct.array)
    still = shift_ct(study, np.random.default_rng(1), 0.0)
    assert still.ct is not None
    np.testing.assert_allclose(still.ct.array, study.ct.array, atol=1e-3)
