from pathlib import Path

import numpy as np
import pytest

from petlesion.errors import StudyError, UsageError, ValueRangeError
from petlesion.io.nifti import write_volume
from petlesion.simulation import SimulationSettings
from petlesion.simulation.body import Tissue
from petlesion.simulation.masks import BLADDER, HEART, KIDNEYS, LIVER, LUNGS, SPLEEN, find_masks
from petlesion.simulation.study import Simulation, simulate_in_full
from petlesion.volume import Volume

LABELS = {
    Tissue.SPLEEN: SPLEEN,
    Tissue.KIDNEY: KIDNEYS,
    Tissue.RENAL_PELVIS: KIDNEYS,
    Tissue.LIVER: LIVER,
    Tissue.BLADDER: BLADDER,
    Tissue.LUNG: LUNGS,
    Tissue.MYOCARDIUM: HEART,
}


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Volume]:
    """Organs of a simulated patient on a grid of their own, stored as the real ones are: LAS."""
    donor: Simulation = simulate_in_full(40, SimulationSettings((6.0, 4.0, 4.0), slices=160))
    labels = np.zeros(256, np.uint8)
    for tissue, label in LABELS.items():
        labels[tissue] = label
    volume = donor.tissue.with_array(labels[donor.tissue.array])
    folder = tmp_path_factory.mktemp("organs")
    write_volume(folder / "a.nii.gz", volume.reoriented("LAS"))
    return folder, volume


def test_masked_organs_take_the_place_of_the_body_s_own(masks: tuple[Path, Volume]) -> None:
    folder, volume = masks
    settings = SimulationSettings((6.0, 6.0, 6.0), organs=folder)
    simulation = simulate_in_full(5, settings)
    tissue = simulation.tissue
    z, y, x = np.nonzero(tissue.array == Tissue.LIVER)
    world = tissue.affine @ np.stack([x, y, z, np.ones_like(x)])
    index = np.rint(np.linalg.inv(volume.affine) @ world).astype(int)
    inside = volume.array[index[2], index[1], index[0]] == LIVER
    assert inside.mean() > 0.97
    for label, kinds in ((LIVER, [Tissue.LIVER]), (LUNGS, [Tissue.LUNG]), (SPLEEN, [Tissue.SPLEEN])):
        masked_ml = np.count_nonzero(volume.array == label) * volume.voxel_volume_ml
        placed_ml = np.count_nonzero(np.isin(tissue.array, kinds)) * tissue.voxel_volume_ml
        assert placed_ml == pytest.approx(masked_ml, rel=0.05)
    # No prostate in the masks.
    assert simulation.patient.female


def test_each_study_takes_the_next_file(masks: tuple[Path, Volume]) -> None:
    folder, _ = masks
    assert [path.name for path in find_masks(folder)] == ["a.nii.gz"]


def test_masks_that_cannot_be(tmp_path: Path, masks: tuple[Path, Volume]) -> None:
    _, volume = masks
    with pytest.raises(UsageError, match="no organ masks"):
        simulate_in_full(0, SimulationSettings((8.0,) * 3, organs=tmp_path))
    write_volume(tmp_path / "a.nii.gz", volume.with_array(volume.array + np.uint8(20)))
    with pytest.raises(ValueRangeError, match=r"a\.nii\.gz.*labels"):
        simulate_in_full(0, SimulationSettings((8.0,) * 3, organs=tmp_path))
    write_volume(tmp_path / "a.nii.gz", volume.with_array(volume.array * np.uint8(0)))
    with pytest.raises(StudyError, match="needs lungs"):
        simulate_in_full(0, SimulationSettings((8.0,) * 3, organs=tmp_path))


def test_kidneys_as_high_as_the_liver_are_placed(tmp_path: Path, masks: tuple[Path, Volume]) -> None:
    _, volume = masks
    liver, kidneys = volume.array == LIVER, volume.array == KIDNEYS
    up = round(float(np.median(liver.nonzero()[0]) - np.median(kidneys.nonzero()[0])))
    array = np.where(kidneys, np.uint8(0), volume.array)
    array[np.roll(kidneys, up, axis=0) & (array == 0)] = KIDNEYS
    write_volume(tmp_path / "a.nii.gz", volume.with_array(array))
    tissue = simulate_in_full(5, SimulationSettings((8.0,) * 3, organs=tmp_path)).tissue
    placed_ml = (
        np.count_nonzero(np.isin(tissue.array, (Tissue.KIDNEY, Tissue.RENAL_PELVIS))) * tissue.voxel_volume_ml
    )
    masked_ml = np.count_nonzero(array == KIDNEYS) * volume.voxel_volume_ml
    assert placed_ml == pytest.approx(masked_ml, rel=0.1)
