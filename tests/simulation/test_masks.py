from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from petlesion.errors import StudyError, UsageError, ValueRangeError
from petlesion.io.nifti import write_volume
from petlesion.simulation import SimulationSettings
from petlesion.simulation.body import Canvas, Tissue, draw_body_map, draw_patient
from petlesion.simulation.field_of_view import field_of_masks
from petlesion.simulation.masks import (
    BLADDER,
    BRAIN,
    GLANDS,
    HEART,
    KIDNEYS,
    LIVER,
    LUNGS,
    PROSTATE,
    SPLEEN,
    STOMACH,
    fit_body,
    masks_digest,
    place_organs,
    read_masks,
)
from petlesion.simulation.organ_parts import BRAIN_TISSUES
from petlesion.simulation.study import Simulation, simulate_in_full
from petlesion.volume import Volume
from tests.simulation.conftest import Body

LABELS = {
    Tissue.SPLEEN: SPLEEN,
    Tissue.KIDNEY: KIDNEYS,
    Tissue.RENAL_PELVIS: KIDNEYS,
    Tissue.LIVER: LIVER,
    Tissue.BLADDER: BLADDER,
    Tissue.LUNG: LUNGS,
    Tissue.MYOCARDIUM: HEART,
    Tissue.STOMACH_WALL: STOMACH,
    Tissue.STOMACH_CONTENT: STOMACH,
    Tissue.SALIVARY_GLAND: GLANDS,
}
PLACED = {
    LIVER: (Tissue.LIVER,),
    LUNGS: (Tissue.LUNG,),
    SPLEEN: (Tissue.SPLEEN,),
    KIDNEYS: (Tissue.KIDNEY, Tissue.RENAL_PELVIS),
    BLADDER: (Tissue.BLADDER,),
    STOMACH: (Tissue.STOMACH_WALL, Tissue.STOMACH_CONTENT),
    GLANDS: (Tissue.SALIVARY_GLAND,),
    PROSTATE: (Tissue.PROSTATE,),
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
    # No prostate in the masks.
    assert simulation.patient.female


def test_every_masked_organ_is_placed_whole(masks: tuple[Path, Volume], tmp_path: Path) -> None:
    _, volume = masks
    labels = volume.array.copy()
    z, y, x = (int(np.median(at)) for at in np.nonzero(labels == BLADDER))
    lowest = int(np.nonzero(labels == BLADDER)[0].min())
    below = (slice(max(lowest - 7, 0), lowest), slice(y - 5, y + 5), slice(x - 5, x + 5))
    assert z > lowest and not labels[below].any()
    labels[below] = PROSTATE
    write_volume(tmp_path / "a.nii.gz", volume.with_array(labels))
    simulation = simulate_in_full(5, SimulationSettings((6.0, 4.0, 4.0), organs=tmp_path))
    tissue = simulation.tissue
    assert not simulation.patient.female
    for label, kinds in PLACED.items():
        masked_ml = np.count_nonzero(labels == label) * volume.voxel_volume_ml
        placed_ml = np.count_nonzero(np.isin(tissue.array, kinds)) * tissue.voxel_volume_ml
        assert placed_ml == pytest.approx(masked_ml, rel=0.05), kinds


def test_truth_lies_in_a_body_around_masks(masks: tuple[Path, Volume]) -> None:
    simulation = simulate_in_full(1, SimulationSettings((6.0, 6.0, 6.0), organs=masks[0]))
    assert simulation.study.reference is not None
    truth = simulation.study.reference.array
    assert truth.any()
    assert not np.isin(simulation.tissue.array[truth], (Tissue.AIR, Tissue.AIRWAY, Tissue.BOWEL_GAS)).any()


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


def test_every_slice_of_the_masks_is_placed_once(masks: tuple[Path, Volume]) -> None:
    folder, volume = masks
    organs = read_masks(next(folder.glob("*.nii.gz")))
    patient = draw_patient(np.random.default_rng(0))
    body = fit_body(organs, draw_body_map(patient, np.random.default_rng(0)), "masks")
    field = field_of_masks(organs, patient, body, (6.0, 4.0, 4.0), 500.0, None)
    z = volume.affine[2, 3] + 6 * np.arange(volume.shape[0])
    np.testing.assert_allclose(field.axes()[2], z, atol=0.01)


def test_a_mask_thinner_than_a_slice_is_placed(masks: tuple[Path, Volume], tmp_path: Path) -> None:
    _, volume = masks
    chest = (volume.array == LUNGS) | (volume.array == HEART)
    middle = int(np.median(np.flatnonzero((volume.array == HEART).any(axis=(1, 2)))))
    thin = Volume(np.where(chest, volume.array, 0)[middle : middle + 3], volume.affine)
    write_volume(tmp_path / "a.nii.gz", thin)
    study = simulate_in_full(5, SimulationSettings((12.0,) * 3, organs=tmp_path)).study
    assert study.pet.shape[0] == 2


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


@dataclass(frozen=True)
class Masked:
    """A reference adult before and after masks took the place of its organs; no test changes them."""

    before: Canvas
    masks: npt.NDArray[np.uint8]
    after: Canvas

    def where(self, *tissues: Tissue) -> npt.NDArray[np.bool_]:
        return np.isin(self.after.tissue, tissues)

    def ml(self, where: npt.NDArray[np.bool_]) -> float:
        return float(np.count_nonzero(where) * self.after.voxel_volume_ml)

    def middle(self, where: npt.NDArray[np.bool_]) -> tuple[float, ...]:
        """The middle of some voxels in reference mm (x, y, z)."""
        return tuple(float(axis[where].mean()) for axis in (self.after.x, self.after.y, self.after.z))


_HEART = (26.0, -27.0, 425.0)
_STEPS_UP, _STEPS_LEFT = 3, 2


def masks_of(canvas: Canvas) -> npt.NDArray[np.uint8]:
    """The body's own organs as masks, moved up and to the left."""
    labels = np.zeros(256, np.uint8)
    for tissue, label in (*LABELS.items(), *((tissue, BRAIN) for tissue in BRAIN_TISSUES)):
        labels[tissue] = label
    own = labels[canvas.tissue]
    away = sum((axis - at) ** 2 for axis, at in zip((canvas.x, canvas.y, canvas.z), _HEART, strict=True))
    own[(canvas.tissue == Tissue.BLOOD) & (away < 50**2)] = HEART
    moved: npt.NDArray[np.uint8] = np.roll(own, (_STEPS_UP, _STEPS_LEFT), axis=(0, 2))
    return moved


def masked(body: Body, masks: npt.NDArray[np.uint8]) -> Masked:
    before = body.canvas
    after = replace(before, tissue=before.tissue.copy())
    place_organs(after, masks, body.patient.fat_mm)
    return Masked(before, masks, after)


@pytest.fixture(scope="module")
def moved(man: Body) -> Masked:
    return masked(man, masks_of(man.canvas))


@pytest.mark.parametrize("side", [-1, 1])
def test_each_kidney_drains_into_the_bladder(moved: Masked, side: int) -> None:
    of_side = np.sign(moved.after.x) == side
    kidney = of_side & (moved.masks == KIDNEYS)
    pelvis, ureter = (of_side & moved.where(tissue) for tissue in (Tissue.RENAL_PELVIS, Tissue.URETER))
    assert 5 < moved.ml(pelvis) < 12
    (kidney_x, _, kidney_z), (pelvis_x, _, pelvis_z) = moved.middle(kidney), moved.middle(pelvis)
    assert 5 < side * (kidney_x - pelvis_x) < 35
    assert pelvis_z == pytest.approx(kidney_z, abs=12)
    assert (ndimage.binary_dilation(pelvis, iterations=2) & ureter).any()
    bladder = moved.masks == BLADDER
    # The last piece may lie behind bowel.
    to_bladder = ndimage.distance_transform_edt(~bladder, sampling=moved.after.spacing_mm)
    assert to_bladder[ureter].min() < 30
    z = moved.after.z
    assert z[bladder].mean() < z[ureter].min() + 10
    assert z[ureter].max() < z[kidney].max()


def test_a_single_kidney_has_the_only_pelvis_and_ureter(woman: Body) -> None:
    masks = masks_of(woman.canvas)
    masks[(masks == KIDNEYS) & (woman.canvas.x > 0)] = 0
    body = masked(woman, masks)
    draining = body.where(Tissue.RENAL_PELVIS, Tissue.URETER)
    assert draining.any()
    assert not draining[body.after.x > 10].any()


def test_a_masked_brain_has_its_parts(moved: Masked) -> None:
    brain = moved.masks == BRAIN
    cerebellum = moved.where(Tissue.CEREBELLUM)
    grey_ml, white_ml = (moved.ml(moved.where(t)) for t in (Tissue.GREY_MATTER, Tissue.WHITE_MATTER))
    assert 1.1 < grey_ml / white_ml < 1.6
    assert 0.06 < moved.ml(cerebellum) / moved.ml(brain) < 0.13
    assert brain[cerebellum].all()
    (x, y, z), (brain_x, brain_y, brain_z) = moved.middle(cerebellum), moved.middle(brain)
    assert x == pytest.approx(brain_x, abs=6)
    assert y > brain_y + 20
    assert z < brain_z - 20
    fluid = moved.where(Tissue.BRAIN_FLUID)
    # Ventricles lie deep, and some fluid around the brain.
    deep = ndimage.binary_erosion(brain, iterations=6)
    assert moved.ml(fluid & deep) > 5
    assert moved.ml(fluid & ~deep) > 30


def test_a_scan_may_end_inside_a_masked_brain(woman: Body) -> None:
    whole = woman.canvas
    masks = masks_of(whole)
    heights = np.flatnonzero((masks == BRAIN).any(axis=(1, 2)))
    below = slice(0, int(heights[0]) + 10)
    cut = Canvas(whole.tissue[below], whole.x[below], whole.y[below], whole.z[below], whole.spacing_mm)
    body = masked(Body(woman.patient, cut), masks[below])
    assert body.ml(body.where(Tissue.CEREBELLUM)) > 40
    # The last slice is no surface: it has as much white matter as any.
    assert (body.after.tissue[-1] == Tissue.WHITE_MATTER).any()


def test_a_gallbladder_hangs_from_a_masked_liver(moved: Masked) -> None:
    gallbladder, liver = moved.where(Tissue.GALLBLADDER), moved.masks == LIVER
    assert 20 < moved.ml(gallbladder) < 40
    assert (ndimage.binary_dilation(gallbladder) & liver).any()
    (x, y, z), (liver_x, liver_y, liver_z) = moved.middle(gallbladder), moved.middle(liver)
    assert x > liver_x
    assert y < liver_y
    assert z < liver_z - 30


def test_great_vessels_join_a_masked_heart(moved: Masked) -> None:
    labels, _ = ndimage.label(moved.where(Tissue.BLOOD), np.ones((3, 3, 3)))
    of_heart = np.bincount(labels[(moved.masks == HEART) & (labels > 0)]).argmax()
    for place in ((-6, -22, 488), (6, 4, 508), (22, 28, 450), (-26, -14, 510), (-22, 8, 300)):
        axes = (moved.after.x, moved.after.y, moved.after.z)
        away = sum((axis - at) ** 2 for axis, at in zip(axes, place, strict=True))
        assert labels.flat[int(away.argmin())] == of_heart, place


def test_bones_go_around_masked_organs(moved: Masked) -> None:
    bones = (Tissue.BONE, Tissue.RED_MARROW, Tissue.YELLOW_MARROW)
    assert not moved.where(*bones)[moved.masks > 0].any()
    before = np.isin(moved.before.tissue, bones)
    covered_ml = moved.ml(before & (moved.masks > 0))
    assert covered_ml > 100
    assert moved.ml(moved.where(*bones)) == pytest.approx(moved.ml(before), abs=0.4 * covered_ml)


def test_placing_organs_gives_the_same_bytes_each_time(man: Body, moved: Masked) -> None:
    again = masked(man, moved.masks)
    np.testing.assert_array_equal(again.after.tissue, moved.after.tissue)
