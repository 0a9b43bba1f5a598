"""Real files in both orders of memory, held against nibabel."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from petlesion.io.nifti import read_grid, read_mask, read_volume

FILES = [
    ("sts/STS_001/PET.nii.gz", "LPS"),
    ("sts/STS_001/CT.nii.gz", "LPS"),
    ("organs/fdg_0168f65af8_20030404.nii.gz", "LAS"),
]


@pytest.mark.parametrize(("name", "orientation"), FILES)
def test_voxels_and_place_are_those_of_nibabel(real_data: Path, name: str, orientation: str) -> None:
    volume, image = read_volume(real_data / name), nibabel.load(real_data / name)
    assert volume.orientation == orientation
    np.testing.assert_array_equal(volume.array.T, np.asarray(image.dataobj))
    np.testing.assert_allclose(volume.affine, np.diag([-1, -1, 1, 1]) @ image.affine)


def test_every_reference_is_a_mask_on_its_pets_grid(real_data: Path) -> None:
    folders = sorted((real_data / "sts").glob("STS_*"))
    assert len(folders) == 34
    for folder in folders:
        mask = read_mask(folder / "SEG.nii.gz")
        assert mask.array.any()
        assert mask.grid.matches(read_grid(folder / "PET.nii.gz"))
