"""Hand-made probabilities of which it is known how they ought to be averaged."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from petlesion.errors import GeometryError, InputError, UsageError
from petlesion.evaluation.ensembles import (
    Combination,
    HeldOutStudy,
    Selection,
    all_combinations,
    overlaps_with,
    select,
)
from petlesion.evaluation.tables import ensembles_table, render
from petlesion.overlap import evaluate_masks
from petlesion.volume import Volume

AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])
SHAPE = (12, 10, 14)
PLACES = {
    "lesion": (slice(2, 5), slice(2, 5), slice(2, 5)),
    "there": (slice(8, 11), slice(2, 5), slice(0, 3)),
    "elsewhere": (slice(8, 11), slice(2, 5), slice(4, 7)),
    "far": (slice(8, 11), slice(2, 5), slice(8, 11)),
    "speck": (slice(8, 9), slice(8, 9), slice(0, 3)),
}

Places = Mapping[str, float]


def probability(places: Places) -> Volume:
    array = np.full(SHAPE, 0.01, dtype=np.float32)
    for name, value in places.items():
        array[PLACES[name]] = value
    return Volume(array, AFFINE)


def reference() -> Volume:
    array = np.zeros(SHAPE, dtype=bool)
    array[PLACES["lesion"]] = True
    return Volume(array, AFFINE)


def chosen_from(
    names: Sequence[str], members: Callable[[int], Sequence[Places]], patients: int = 6
) -> Selection:
    """What is chosen on two studies of each patient; `members` gives the probabilities by patient."""
    candidates = all_combinations(names)
    studies = []
    for number in range(2 * patients):
        volumes = [probability(places) for places in members(number // 2)]
        overlaps = overlaps_with(volumes, reference(), candidates)
        studies.append(HeldOutStudy(f"case{number}", f"p{number // 2}", overlaps))
    return select(candidates, studies)


def dice_of(selection: Selection) -> dict[str, float | None]:
    return {line.name: selection.summary(line).dice.value for line in selection.lines}


def test_every_choice_of_members_and_every_weighting_stands_once() -> None:
    candidates = all_combinations(["pet", "ct", "both"])
    assert [candidate.name for candidate in candidates[:7]] == [
        *("pet", "ct", "both", "pet + ct", "pet + both", "ct + both", "pet + ct + both")
    ]
    assert len(candidates) == len({candidate.weights for candidate in candidates}) == 28
    assert all(sum(candidate.weights) == pytest.approx(1) for candidate in candidates)
    assert candidates[7].name == "0.17 ct + 0.83 both" and candidates[7].members == (1, 2)
    for names in (["one"], list("abcdefg")):
        with pytest.raises(UsageError, match="2 to 6 members"):
            all_combinations(names)


def test_overlaps_are_those_of_whole_masks(rng: np.random.Generator) -> None:
    truth = Volume(rng.random(SHAPE) > 0.7, AFFINE)
    volumes = [Volume(rng.random(SHAPE, dtype=np.float32) * 0.8, AFFINE) for _ in range(3)]
    candidates = all_combinations(["a", "b", "c"])
    turned = [volumes[0].reoriented("RAS"), *volumes[1:]]
    for candidate, overlap in zip(candidates, overlaps_with(turned, truth, candidates), strict=True):
        mean = sum(w * v.array.astype(np.float64) for w, v in zip(candidate.weights, volumes, strict=True))
        expected = evaluate_masks(truth.with_array(mean > 0.5), truth, "case")
        assert overlap.metrics("case") == expected


def test_nothing_found_and_nothing_there_is_no_trouble() -> None:
    nothing = [probability({}), probability({})]
    empty = reference().with_array(np.zeros(SHAPE, dtype=bool))
    for overlap in overlaps_with(nothing, empty, all_combinations(["a", "b"])):
        assert overlap.metrics("case").dice is None
    with pytest.raises(GeometryError, match="grid"):
        overlaps_with([Volume(nothing[0].array, np.eye(4))], empty, [Combination("a", (1.0,))])


def test_two_members_that_err_at_different_places_are_picked_together() -> None:
    selection = chosen_from(
        ["a", "b", "c"],
        lambda patient: [
            {"lesion": 0.7, "there": 0.8},
            {"lesion": 0.7, "elsewhere": 0.8},
            {"lesion": 0.05, "far": 0.9},
        ],
    )
    assert selection.picked.chosen.name == "a + b"
    assert selection.picked.min_volume_ml == 0.0
    dice = dice_of(selection)
    assert dice["a"] == dice["b"] == pytest.approx(2 / 3)
    assert dice["c"] == dice["a + b + c"] == 0
    assert dice["a + b"] == dice["picked of all"] == 1
    assert selection.best_member.name in ("a", "b")
    written = render(ensembles_table(selection), "csv").splitlines()
    assert written[0].startswith("average_of,min_ml,dice,dice_ci95_low,dice_ci95_high,fn_ml")
    assert written[-1].startswith("picked of all: a + b,0,1")
    found = {difference.metric: difference for difference in selection.differences(selection.picked)}
    assert found["dice"].mean == pytest.approx(1 / 3) and found["dice"].studies == 12
    assert found["dice"].ci95 == pytest.approx((1 / 3, 1 / 3))
    assert found["false_positive_volume_ml"].mean == pytest.approx(-27 * 0.064)


def test_weights_are_found_where_equal_ones_fail() -> None:
    selection = chosen_from(
        ["sure", "wary"],
        lambda patient: [{"lesion": 0.9, "there": 0.6}, {"lesion": 0.05, "there": 0.2}],
    )
    assert selection.picked.chosen.weights == pytest.approx((2 / 3, 1 / 3))
    assert selection.picked.chosen.name == selection.weighted.chosen.name == "0.67 sure + 0.33 wary"
    assert dice_of(selection)["sure + wary"] == 0
    assert dice_of(selection)["best weights"] == 1


def test_the_smallest_size_that_helps_is_chosen() -> None:
    selection = chosen_from(["a", "b"], lambda patient: [{"lesion": 0.9, "speck": 0.9}] * 2)
    for line in selection.lines:
        assert line.min_volume_ml == 0.248  # the speck has 3 × 0.064 mL
        assert all(row.dice == 1 for row in line.rows)
    assert selection.picked.chosen.name == "a"  # of what is equally good, the fewest members


def test_a_patient_is_scored_by_what_the_others_choose() -> None:
    def members(patient: int) -> Sequence[Places]:
        found, missed = {"lesion": 0.9}, {"lesion": 0.0}
        return [missed, found] if patient == 3 else [found, missed]

    selection = chosen_from(["a", "b"], members)
    assert selection.picked.chosen.name == "a"
    for row in selection.picked.rows:
        assert row.dice == (0 if row.case_id in ("case6", "case7") else 1)


def test_studies_without_lesions_count_for_false_volume(rng: np.random.Generator) -> None:
    candidates = all_combinations(["clean", "noisy"])
    studies = []
    for number in range(6):
        volumes = [probability({"lesion": 0.9}), probability({"lesion": 0.9, "there": 0.9})]
        truth = reference()
        if number % 2:
            volumes, truth = [probability({}), volumes[1]], truth.with_array(np.zeros(SHAPE, dtype=bool))
        else:
            volumes = [volumes[0], volumes[0]]
        overlaps = overlaps_with(volumes, truth, candidates)
        studies.append(HeldOutStudy(f"case{number}", f"p{number}", overlaps))
    rng.shuffle(studies)
    selection = select(candidates, studies)
    assert selection.picked.chosen.name == "clean"


def test_one_patient_cannot_be_put_into_folds() -> None:
    with pytest.raises(InputError, match="two patients or more"):
        chosen_from(["a", "b"], lambda patient: [{"lesion": 0.9}] * 2, patients=1)


def test_a_choice_is_reported_on_some_of_the_studies() -> None:
    """The third patient's lesion is missed, which shows where that patient is reported on alone."""
    both = [{"lesion": 0.9}, {"lesion": 0.8}]
    missed = [{"there": 0.9}, {"there": 0.8}]
    selection = chosen_from(["one", "two"], lambda patient: missed if patient == 2 else both)
    found = selection.reported_on({"case0", "case1"})
    assert [line.name for line in found.lines] == [line.name for line in selection.lines]
    assert [line.chosen for line in found.lines] == [line.chosen for line in selection.lines]
    assert dice_of(found)["one + two"] == 1
    assert found.summary(found.picked).studies == 2
    assert dice_of(selection.reported_on({"case4", "case5"}))["one + two"] == 0
    assert dice_of(selection)["one + two"] == pytest.approx(5 / 6)


def test_a_choice_is_applied_to_a_test_set_as_it_was_made() -> None:
    """In cross-validation a speck is always false and removed; the test set's is all that there is."""
    selection = chosen_from(["clean", "specked"], lambda _: [{"lesion": 0.9}, {"lesion": 0.9, "speck": 0.9}])
    assert selection.picked.chosen.name == "clean"
    assert selection.lines[1].min_volume_ml > 3 * 0.064  # the speck's three voxels
    volumes = [probability({"lesion": 0.9}), probability({"speck": 0.9})]
    overlaps = overlaps_with(volumes, reference(), [line.chosen for line in selection.lines])
    tested = selection.applied_to([HeldOutStudy("test0", "q0", overlaps)])
    assert dice_of(tested)["specked"] == 0 and tested.lines[1].rows[0].predicted_components == 0
    assert dice_of(tested)["clean"] == dice_of(tested)["picked of all"] == 1
    assert {difference.scoring for difference in tested.differences(tested.lines[1])} == {"test"}
