from pathlib import Path

import numpy as np
import pytest

from petlesion.errors import StudyError, UsageError, ValueRangeError
from petlesion.io.nifti import write_volume
from petlesion.simulation import SimulationSettings
from petlesion.simulation.body import Tissue
from petlesion.simulation.masks import (
    BLADDER,
    HEART,
    KIDNEYS,
    LIVER,
    LUNGS,
    PROSTATE,
    SPLEEN,
    masks_digest,
    read_masks,
)
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


def test_each_study_takes_the_next_file(tmp_path: Path, masks: tuple[Path, Volume]) -> None:
    _, volume = masks
    of_a_man = volume.array.copy()
    of_a_man[10:20, 45:55, 45:55] = PROSTATE
    write_volume(tmp_path / "b.nii.gz", volume.with_array(of_a_man))
    write_volume(tmp_path / "a.nii.gz", volume)
    settings = SimulationSettings((12.0,) * 3, slices=8, organs=tmp_path)
    assert [simulate_in_full(seed, settings).patient.sex for seed in (4, 5, 6)] == [
        "female",
        "male",
        "female",
    ]


def test_a_digest_tells_which_masks_studies_take(tmp_path: Path) -> None:
    for name, content in (("a.nii", b"one"), ("b.nii", b"other")):
        (tmp_path / name).write_bytes(content)
    before = masks_digest(tmp_path)
    (tmp_path / "notes.txt").write_text("no mask")
    assert masks_digest(tmp_path) == before
    (tmp_path / "a.nii").rename(tmp_path / "c.nii")
    assert masks_digest(tmp_path) != before


@pytest.mark.parametrize("bad", [5.4, np.nan, np.inf, -1.0, 11.0])
def test_values_that_are_no_labels_are_refused(
    tmp_path: Path, masks: tuple[Path, Volume], bad: float
) -> None:
    _, volume = masks
    array = volume.array.astype(np.float32)
    array[0, 0, 0] = bad
    write_volume(tmp_path / "a.nii.gz", volume.with_array(array))
    with pytest.raises(ValueRangeError, match=r"a\.nii\.gz: holds values other than the labels 0 to 10"):
        read_masks(tmp_path / "a.nii.gz")


def test_labels_may_be_stored_as_floating_point(tmp_path: Path, masks: tuple[Path, Volume]) -> None:
    _, volume = masks
    write_volume(tmp_path / "a.nii.gz", volume.with_array(volume.array.astype(np.float32)))
    np.testing.assert_array_equal(read_masks(tmp_path / "a.nii.gz").volume.array, volume.array)


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
