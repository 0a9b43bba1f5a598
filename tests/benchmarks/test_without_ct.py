from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from petlesion.evaluation.tables import render
from petlesion.volume import Study, Volume

VOXEL_ML = 0.064


@pytest.fixture
def study(phantom: Study) -> Study:
    """The phantom's PET, of whose three balls the first slices' one alone is the tumour."""
    assert phantom.reference is not None
    tumour = phantom.reference.array.copy()
    tumour[15:] = False
    return replace(phantom, ct=None, reference=phantom.reference.with_array(tumour))


def everything_hot(study: Study) -> Volume:
    return study.pet.with_array((study.pet.array > 4).astype(np.uint8))


def test_what_meets_the_tumour_is_scored_and_the_rest_is_elsewhere(study: Study) -> None:
    from without_ct import judge

    assert study.reference is not None
    ball = np.count_nonzero(study.reference.array)
    found = judge(study, everything_hot(study))
    assert found.tumour_dice == 1.0
    assert found.dice == pytest.approx(2 * ball / (ball + 3 * ball))
    assert found.elsewhere.count == 2
    assert found.elsewhere.metabolic_tumour_volume_ml == pytest.approx(2 * ball * VOXEL_ML)


def test_a_tumour_that_was_missed(study: Study) -> None:
    from without_ct import judge

    mask = everything_hot(study)
    mask.array[:15] = 0
    found = judge(study, mask)
    assert (found.tumour_dice, found.dice, found.elsewhere.count) == (0.0, 0.0, 2)


def test_places_are_told_from_the_top(study: Study) -> None:
    from without_ct import elsewhere_table, judge, summary_table, top_mm

    # Slices 20 and 30 of 40, 4 mm apart, lie 19 and 9 slices below the last one.
    for pet in (study.pet, study.pet.reoriented("RAI")):
        assert top_mm(pet) == pytest.approx(-500 + 39 * 4)
    found = {"hot": judge(study, everything_hot(study))}
    table = elsewhere_table(found, top_mm(study.pet))
    assert sorted(row[3] for row in table.rows) == ["3.6", "7.6"]
    assert {row[2] for row in table.rows} == {"10.0"}
    (row,) = summary_table(found).rows
    assert row[:2] == ("hot", 1.0) and row[4] == 2
    assert "| hot | 1.000 |" in render(summary_table(found), "markdown")


def test_absent_data_end_in_a_sentence(tmp_path: Path) -> None:
    from without_ct import read_whole_body

    with pytest.raises(SystemExit, match=r"STS_001_FDG_PET\.zip is missing; give the folder"):
        read_whole_body(tmp_path)


def test_the_real_study_has_its_tumour_and_no_ct(real_data: Path) -> None:
    from without_ct import judge, read_whole_body

    study = read_whole_body(real_data)
    assert study.ct is None and study.reference is not None
    inside = study.pet.array[study.reference.array]
    assert 7.9 <= inside.max() <= 8.0
    assert judge(study, study.reference).tumour_dice == 1.0
