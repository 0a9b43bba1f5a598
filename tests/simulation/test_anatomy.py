import numpy as np
import pytest

from petlesion.simulation.body import Tissue
from tests.simulation.conftest import Body

WOMEN_S = {Tissue.UTERUS, Tissue.OVARY, Tissue.BREAST}
MEN_S = {Tissue.PROSTATE, Tissue.TESTIS}


# Volumes in mL of the reference man's organs: ICRP Publication 89, masses by their densities.
REFERENCE_MAN_ML = {
    (Tissue.LIVER,): 1714,
    (Tissue.SPLEEN,): 144,
    (Tissue.KIDNEY, Tissue.RENAL_PELVIS): 295,
    (Tissue.THYROID,): 19,
    (Tissue.GREY_MATTER, Tissue.WHITE_MATTER, Tissue.CEREBELLUM, Tissue.BRAIN_FLUID): 1394,
}


@pytest.mark.parametrize("tissues", REFERENCE_MAN_ML)
def test_the_body_as_it_is_drawn_has_the_reference_man_s_organs(
    man: Body, tissues: tuple[Tissue, ...]
) -> None:
    assert 0.65 < man.ml(*tissues) / REFERENCE_MAN_ML[tissues] < 1.35


def test_every_tissue_is_there_and_each_sex_has_its_own(woman: Body, man: Body) -> None:
    for body, missing in ((woman, MEN_S), (man, WOMEN_S)):
        present = {Tissue(int(value)) for value in np.unique(body.canvas.tissue)}
        assert set(Tissue) - present == missing


def test_the_heart_s_walls_enclose_blood(woman: Body) -> None:
    assert woman.at(44, -31, 413) == Tissue.BLOOD
    wall = woman.canvas.tissue == Tissue.MYOCARDIUM
    z, y, x = (axis[wall] for axis in (woman.canvas.z, woman.canvas.y, woman.canvas.x))
    # Muscle on all sides of the chamber, but for the base, which is open to the valves.
    for axis, middle in ((x, 44), (y, -31), (z, 413)):
        assert (axis > middle + 10).any() and (axis < middle - 10).any()


def test_vessels_windpipe_and_spine_run_where_they_should(man: Body) -> None:
    assert man.at(12, 20, 330) == Tissue.BLOOD  # the aorta behind the diaphragm
    assert man.at(-20, 10, 250) == Tissue.BLOOD  # the lower vena cava
    assert man.at(0, 0, 560) == Tissue.AIRWAY
    spine = {man.at(0, 34 + 20 * share, 175) for share in (-0.3, 0.0, 0.3)}
    assert spine <= {Tissue.BONE, Tissue.RED_MARROW, Tissue.DISC}


def test_bones_hold_marrow_and_the_skull_the_brain(man: Body) -> None:
    assert 500 < man.ml(Tissue.RED_MARROW) < 2500
    assert man.ml(Tissue.YELLOW_MARROW) > 50
    brain = man.ml(Tissue.GREY_MATTER, Tissue.WHITE_MATTER, Tissue.CEREBELLUM, Tissue.BRAIN_FLUID)
    assert 1100 < brain < 1800  # ICRP 89: 1.3 to 1.45 kg, and 0.1 L of fluid
    for side in (-1, 1):
        path = [man.at(side * x, -24, 790) for x in range(84, 40, -2)]
        skull, inside = path.index(Tissue.BONE), path.index(Tissue.GREY_MATTER)
        assert skull < inside


def test_arms_lie_where_they_are_told(woman: Body, man: Body) -> None:
    def width(body: Body, z: float) -> float:
        slab = (np.abs(body.canvas.z - z) < 8) & (body.canvas.tissue != Tissue.AIR)
        return float(body.canvas.x[slab].max() - body.canvas.x[slab].min())

    assert width(man, 190) > 480 > 420 > width(woman, 190)
    assert width(woman, 790) > 300 > 200 > width(man, 790)


def test_more_fat_under_the_skin(woman: Body, man: Body) -> None:
    assert man.patient.fat_mm > woman.patient.fat_mm
    fat = [body.ml(Tissue.FAT) / body.ml(Tissue.MUSCLE) for body in (woman, man)]
    assert fat[1] > 1.3 * fat[0]


@pytest.mark.parametrize("tissue", [Tissue.LUNG, Tissue.KIDNEY, Tissue.THYROID, Tissue.EYE, Tissue.TONSIL])
def test_what_comes_in_pairs_lies_on_both_sides(woman: Body, tissue: Tissue) -> None:
    x = woman.canvas.x[woman.canvas.tissue == tissue]
    assert 0.3 < np.mean(x > 0) < 0.7


def test_a_head_has_more_grey_matter_than_white_and_glands_under_its_skin(man: Body) -> None:
    assert 1.1 < man.ml(Tissue.GREY_MATTER) / man.ml(Tissue.WHITE_MATTER) < 1.6
    assert 90 < man.ml(Tissue.CEREBELLUM) < 150
    gland = man.canvas.tissue == Tissue.SALIVARY_GLAND
    beside = np.zeros_like(gland)
    beside[:, :, 1:] |= gland[:, :, :-1]
    beside[:, :, :-1] |= gland[:, :, 1:]
    assert not (beside & (man.canvas.tissue == Tissue.AIR)).any()
