"""Fixtures that several test modules share."""

import os
from pathlib import Path

import numpy as np
import pytest

from petlesion.volume import Study, Volume

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data that is not part of the project; the test skips where it is absent."""
    folder = Path(os.environ.get("PETLESION_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data is absent: {folder} is no folder; set PETLESION_DATA to it")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20231)


@pytest.fixture
def phantom() -> Study:
    """A soft-tissue cylinder with lungs and three hot balls, 4 mm voxels, LPS."""
    return make_phantom()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An nnU-Net v2 model folder whose network has learnt to find the phantom's lesions."""
    from tests.inference.nnunet import Recipe, write_model_folder

    return write_model_folder(tmp_path_factory.mktemp("model") / "run", Recipe(), make_phantom())


def make_phantom(
    shape: tuple[int, int, int] = (40, 48, 56), *, seed: int = 0, spacing_mm: float = 4.0
) -> Study:
    """Build a study whose reference lesions are balls of radius 3 voxels and SUV 10."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices(shape, dtype=np.float32)
    centre_y, centre_x = (shape[1] - 1) / 2, (shape[2] - 1) / 2
    radius_y, radius_x = 0.4 * shape[1], 0.4 * shape[2]
    body = ((y - centre_y) / radius_y) ** 2 + ((x - centre_x) / radius_x) ** 2 <= 1
    ct = np.where(body, 40.0, -1000.0) + rng.normal(0, 10, shape)
    pet = np.where(body, 1.5, 0.02) * rng.uniform(0.8, 1.2, shape)
    lesions = np.zeros(shape, dtype=bool)
    for fraction in (0.25, 0.5, 0.75):
        centre = (fraction * shape[0], centre_y, centre_x + (fraction - 0.5) * radius_x)
        lesions |= (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 <= 9
    pet[lesions] = 10.0
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = (-100.0, -90.0, -500.0)
    return Study(
        name=f"phantom-{seed}",
        pet=Volume(pet.astype(np.float32), affine),
        ct=Volume(ct.astype(np.float32), affine),
        reference=Volume(lesions, affine),
    )
