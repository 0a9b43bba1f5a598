"""Real CTs on their PETs' grids, held against scipy.ndimage."""

from pathlib import Path

import numpy as np
import pytest

from petlesion.io.nifti import read_grid, read_volume
from petlesion.resample import resample_to_grid
from tests.test_resample import AIR, scipy_says


@pytest.mark.parametrize("name", ["STS_001", "STS_004"])
def test_a_real_ct_on_its_pets_grid_is_what_scipy_gives(real_data: Path, name: str) -> None:
    folder = real_data / "sts" / name
    ct, grid = read_volume(folder / "CT.nii.gz"), read_grid(folder / "PET.nii.gz")
    result = resample_to_grid(ct, grid, fill=AIR).array
    values, inside, outside = scipy_says(ct, grid, 3)
    assert np.abs(result - values)[inside].max() <= 0.01
    assert (result[outside] == AIR).all()
    assert inside.mean() > 0.9
