"""Studies that are made wrong on purpose are told from simulated ones that are right."""

from dataclasses import replace

import numpy as np
import pytest

from petlesion.calibration.typical import (
    STATISTICS,
    Ranges,
    disagreement,
    study_statistics,
    typical_ranges,
    what_is_unusual,
)
from petlesion.inference.uncertainty import PassSums
from petlesion.simulation import SimulationSettings, simulate
from petlesion.volume import Study, Volume

SETTINGS = SimulationSettings((6.0, 6.0, 6.0))
SHIFT = 8  # voxels of 6 mm: nearly 5 cm


@pytest.fixture(scope="module")
def training_studies() -> list[Study]:
    return [simulate(seed, SETTINGS) for seed in range(700, 712)]


@pytest.fixture(scope="module")
def ranges(training_studies: list[Study]) -> dict[str, Ranges]:
    return {"simulated": typical_ranges([study_statistics(study) for study in training_studies])}


@pytest.fixture(scope="module")
def other() -> Study:
    return simulate(7, SETTINGS)


def shifted(image: Volume | None, axis: int) -> Volume:
    assert image is not None
    return image.with_array(np.roll(image.array, SHIFT, axis))


def outer_arm(study: Study) -> Study:
    """The left side alone, 12 cm wide: an arm, or what hangs at a body without arms."""
    columns = np.flatnonzero((study.pet.array > 0.3).any(axis=(0, 1)))
    part = (slice(None), slice(None), slice(columns[-1] - 19, columns[-1] + 4))
    images = (study.pet, study.ct, study.reference)
    return Study(study.name, *(Volume(image.array[part], image.affine) for image in images))


def test_a_study_like_the_training_studies_is_not_flagged(other: Study, ranges: dict[str, Ranges]) -> None:
    assert set(ranges["simulated"]) == set(STATISTICS) - {"disagreement"}
    assert what_is_unusual(study_statistics(other), ranges) == ()
    assert what_is_unusual(study_statistics(other.reoriented("RAS")), ranges) == ()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda s: replace(s, pet=s.pet.with_array(s.pet.array * 10)), "median SUV"),
        (lambda s: replace(s, pet=s.pet.with_array(s.pet.array / 10)), "volume of the body"),
        (lambda s: replace(s, ct=shifted(s.ct, 0)), "shift"),
        (lambda s: replace(s, ct=shifted(s.ct, 1)), "shift"),
        (lambda s: replace(s, ct=shifted(s.ct, 2)), "shift"),
        (lambda s: replace(s, pet=s.ct, ct=s.pet), "median SUV"),
        (outer_arm, "volume of the body"),
        (lambda s: replace(s, ct=s.ct.with_array(s.ct.array + 500)), "median HU"),
    ],
    ids=["SUV × 10", "SUV / 10", "CT up", "CT back", "CT left", "swapped", "arms only", "HU + 500"],
)
def test_a_study_made_wrong_is_flagged_in_words(
    other: Study, ranges: dict[str, Ranges], wrong: object, words: str
) -> None:
    clauses = what_is_unusual(study_statistics(wrong(other)), ranges)  # type: ignore[operator]
    assert any(words in clause for clause in clauses), clauses


def test_another_grid_is_flagged(ranges: dict[str, Ranges], other: Study) -> None:
    fine = np.diag([2.0, 2.0, 2.0, 1.0])
    images = (Volume(image.array, fine) for image in (other.pet, other.ct))
    clauses = what_is_unusual(study_statistics(Study("fine", *images)), ranges)
    assert any("voxel's volume" in clause for clause in clauses)


def test_a_study_without_ct_or_body_has_fewer_statistics(other: Study) -> None:
    assert "hu_median" not in study_statistics(replace(other, ct=None))
    empty = replace(other, pet=other.pet.with_array(np.zeros(other.pet.shape, dtype=np.float32)))
    assert study_statistics(empty)["body_volume_l"] == 0


def test_ranges_reach_half_their_width_and_the_margin_beyond_the_studies() -> None:
    values = [{"hu_median": value, "offset_mm": 0.0} for value in np.linspace(0, 400, 401)]
    ranges = typical_ranges(values)
    assert ranges["hu_median"] == pytest.approx((10 - 190, 390 + 190))
    assert ranges["offset_mm"] == (0, 15)
    assert what_is_unusual({"hu_median": -181.0, "offset_mm": 16.0}, {"made up": ranges}) == (
        "the body's median HU is -181, where -180 to 580 is usual",
        "the shift (mm) that would bring PET and CT together is 16, where at most 15 is usual",
    )


def test_a_study_is_held_against_the_source_that_it_is_most_like() -> None:
    whole_body = {"body_length_cm": (90.0, 190.0), "body_width_cm": (30.0, 60.0), "hu_median": (0.0, 60.0)}
    limb = {"body_length_cm": (10.0, 50.0), "body_width_cm": (8.0, 50.0), "hu_median": (-80.0, 60.0)}
    ranges = {"simulated": whole_body, "real": limb}
    assert what_is_unusual({"body_length_cm": 40.0, "body_width_cm": 12.0, "hu_median": -50.0}, ranges) == ()
    assert what_is_unusual({"body_length_cm": 100.0, "body_width_cm": 12.0, "hu_median": 20.0}, ranges) == (
        "the width of the body in the picture (cm) is 12, where 30 to 60 is usual",
    )


def test_the_body_is_measured_along_its_length_and_width(other: Study) -> None:
    statistics = study_statistics(other)
    body = other.pet.array > 0.2
    for axis, name in ((0, "body_length_cm"), (2, "body_width_cm")):
        places = np.flatnonzero(body.any(axis=tuple({0, 1, 2} - {axis})))
        assert statistics[name] == pytest.approx((np.ptp(places) + 1) * 0.6, abs=3)
    assert statistics == pytest.approx(study_statistics(other.reoriented("RAS")))


def test_members_that_disagree_are_flagged() -> None:
    study = simulate(7, SimulationSettings((12.0, 12.0, 12.0)))
    shares = []
    for second in (0.1, 0.99):
        sums = PassSums(study.pet.grid)
        for value in (0.1, second):
            sums.add(np.full(study.pet.shape, value, dtype=np.float32))
        shares.append(disagreement(sums.uncertainty()))
    assert shares[0] == pytest.approx(0, abs=1e-6) and shares[1] > 0.5
    assert what_is_unusual({"disagreement": shares[0]}, {}) == ()
    (clause,) = what_is_unusual({"disagreement": shares[1]}, {})
    assert "members that disagree" in clause
    alone = PassSums(study.pet.grid)
    alone.add(np.full(study.pet.shape, 0.4, dtype=np.float32))
    assert disagreement(alone.uncertainty()) is None
