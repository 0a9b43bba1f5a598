"""Which patches are drawn, and that the same are drawn whatever draws them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from petlesion.cohort.layout import Cohort
from petlesion.errors import CohortError
from petlesion.experiments import find_experiment, with_settings
from petlesion.training.sampling import (
    Batches,
    group_cases,
    iterate_batches,
    patch_loader,
    seed_everything,
)
from petlesion.training.trainer import (
    TrainingOptions,
    build_batches,
    prepare_run,
    shares_of_lesion_cases,
)
from tests.training.conftest import tiny

LABELS = LabelManager({"background": 0, "lesion": 1}, None)
LESION_VOXEL = (30, 41, 22)


class Cases:
    """Two images of 64³ voxels with a lesion of a single voxel; only one of them has it."""

    identifiers = ("healthy", "diseased")

    def shape_and_lesions(self, case: str) -> tuple[tuple[int, int, int], dict[int, Any]]:
        lesions = [(0, *LESION_VOXEL)] if case == "diseased" else []
        return (64, 64, 64), {1: np.array(lesions)}


def centred_on_lesion(name: str, batches: int) -> np.ndarray[Any, Any]:
    """For each patch of each batch drawn from a diseased case, whether its centre is the lesion."""
    seed_everything(11)
    experiment = find_experiment(name)
    loader = patch_loader(
        Cases(), experiment, ((16, 16, 16), (16, 16, 16)), LABELS, None, [Cases.identifiers]
    )
    shape, lesions = Cases().shape_and_lesions("diseased")
    drawn = np.zeros((batches, experiment.batch_size), dtype=bool)
    for batch in range(batches):
        for position in range(experiment.batch_size):
            forced = loader.get_do_oversample(position)
            starts, _ = loader.get_bbox(np.array(shape), forced, lesions)
            drawn[batch, position] = tuple(start + 8 for start in starts) == LESION_VOXEL
    return drawn


def test_half_is_the_last_patch_of_every_batch() -> None:
    drawn = centred_on_lesion("b", 1000)
    assert drawn[:, 1].all()
    assert drawn[:, 0].mean() < 0.01


@pytest.mark.parametrize(("name", "share"), [("f", 0.33), ("g", 0.10)])
def test_probabilistic_draws_each_patch_with_its_chance(name: str, share: float) -> None:
    drawn = centred_on_lesion(name, 1000)
    four_deviations = 4 * np.sqrt(share * (1 - share) / drawn.size)
    assert abs(drawn.mean() - share) < four_deviations
    assert abs(drawn[:, 0].mean() - drawn[:, 1].mean()) < 2 * four_deviations
    both = (drawn[:, 0] & drawn[:, 1]).mean()
    assert abs(both - share**2) < 4 * np.sqrt(share**2 / 1000)


def test_a_case_without_lesion_is_drawn_anywhere() -> None:
    loader = patch_loader(
        Cases(), find_experiment("b"), ((16, 16, 16), (16, 16, 16)), LABELS, None, [Cases.identifiers]
    )
    shape, lesions = Cases().shape_and_lesions("healthy")
    starts = {tuple(loader.get_bbox(np.array(shape), True, lesions)[0]) for _ in range(20)}
    assert len(starts) > 10


def centred_on_uptake(forced: bool, lesions: list[tuple[int, ...]]) -> float:
    """The share of patches that are centred on the one voxel with uptake."""
    seed_everything(4)
    patches = ((16, 16, 16), (16, 16, 16))
    loader = patch_loader(Cases(), find_experiment("b"), patches, LABELS, None, [Cases.identifiers])
    locations = {1: np.array(lesions), "uptake": np.array([(0, 33, 20, 40)])}
    starts = [loader.get_bbox(np.array((64, 64, 64)), forced, locations)[0] for _ in range(2000)]
    return float(np.mean([tuple(start) == (25, 12, 32) for start in starts]))


def test_most_patches_without_a_lesion_are_centred_on_uptake() -> None:
    four_deviations = 4 * np.sqrt(0.8 * 0.2 / 2000)
    assert abs(centred_on_uptake(False, [(0, *LESION_VOXEL)]) - 0.8) < four_deviations
    assert abs(centred_on_uptake(True, []) - 0.8) < four_deviations
    assert centred_on_uptake(True, [(0, *LESION_VOXEL)]) == 0


def test_background_by_uptake_changes_training_batches_alone(
    cohort: Cohort, preprocessed: Path, tmp_path: Path
) -> None:
    plain = make_batches(cohort, preprocessed, tmp_path / "plain")
    by_uptake = make_batches(cohort, preprocessed, tmp_path / "uptake", "background=uptake")
    validation = plain.training.batches_per_epoch
    assert equal(plain[validation], by_uptake[validation])
    assert not all(equal(plain[number], by_uptake[number]) for number in range(validation))


def test_oversampled_patches_come_from_cases_with_lesions_on_request(cohort: Cohort) -> None:
    ids = [case.case_id for case in cohort.training_cases]
    healthy = [replace(case, reference_volume_ml=0.0) for case in cohort.training_cases[:2]]
    mixed = cohort.with_cases([*healthy, *cohort.training_cases[2:]])
    assert shares_of_lesion_cases(mixed, ids) == {ids[2]: 0.5, ids[3]: 0.5}
    assert shares_of_lesion_cases(mixed, ids[:3]) == {ids[2]: 1.0}
    with pytest.raises(CohortError, match="no case of this fold has a lesion"):
        shares_of_lesion_cases(mixed, ids[:2])


def test_the_last_patch_of_each_batch_then_comes_from_a_case_with_a_lesion() -> None:
    seed_everything(6)
    experiment = with_settings(find_experiment("b"), ["batch_size=4", "oversampling=0.25"])
    patches, shares = ((16, 16, 16), (16, 16, 16)), {"diseased": 1.0}
    loader = patch_loader(Cases(), experiment, patches, LABELS, None, [Cases.identifiers], shares)
    drawn = np.array([loader.get_indices() for _ in range(500)])
    assert (drawn[:, 3] == "diseased").all()
    assert abs((drawn[:, :3] == "diseased").mean() - 0.5) < 4 * np.sqrt(0.25 / 1500)


def test_sources_take_turns_in_every_batch() -> None:
    sources = {"s1": "simulated", "r1": "real", "s2": "simulated", "s3": "simulated"}
    groups = group_cases(tuple(sources), sources, "sources")
    assert groups == [["r1"], ["s1", "s2", "s3"]]
    assert group_cases(tuple(sources), sources, "cases") == [list(sources)]
    seed_everything(3)
    loader = patch_loader(Cases(), find_experiment("b"), ((16, 16, 16), (16, 16, 16)), LABELS, None, groups)
    drawn = np.array([loader.get_indices() for _ in range(2000)])
    real = drawn == "r1"
    assert (real.sum(axis=1) == 1).all()
    assert abs(real[:, 0].mean() - 0.5) < 4 * np.sqrt(0.25 / 2000)
    counts = [(drawn == case).sum() for case in ("s1", "s2", "s3")]
    assert all(abs(count - 2000 / 3) < 4 * np.sqrt(2000 * 2 / 9) for count in counts)


def test_sources_take_turns_where_oversampled_patches_come_from_cases_with_lesions() -> None:
    groups = [["r1"], ["s1", "s2", "s3"]]
    shares = {"r1": 0.25, "s1": 0.25, "s3": 0.5}
    seed_everything(8)
    patches = ((16, 16, 16), (16, 16, 16))
    loader = patch_loader(Cases(), find_experiment("b"), patches, LABELS, None, groups, shares)
    drawn = np.array([loader.get_indices() for _ in range(2000)])
    assert ((drawn == "r1").sum(axis=1) == 1).all()
    assert abs((drawn[:, 1] == "r1").mean() - 0.5) < 4 * np.sqrt(0.25 / 2000)
    oversampled = drawn[drawn[:, 1] != "r1", 1]
    assert set(oversampled) == {"s1", "s3"}
    assert abs((oversampled == "s3").mean() - 2 / 3) < 4 * np.sqrt(2 / 9 / len(oversampled))


def test_a_source_without_lesions_leaves_its_oversampled_patches_to_the_others() -> None:
    seed_everything(9)
    patches, groups = ((16, 16, 16), (16, 16, 16)), [["healthy"], ["diseased"]]
    loader = patch_loader(Cases(), find_experiment("b"), patches, LABELS, None, groups, {"diseased": 1.0})
    drawn = np.array([loader.get_indices() for _ in range(200)])
    assert (drawn[:, 1] == "diseased").all()
    assert 0.3 < (drawn[:, 0] == "healthy").mean() < 0.7


def make_batches(cohort: Cohort, preprocessed: Path, results: Path, *changes: str) -> Batches:
    options = TrainingOptions(preprocessed=preprocessed, processes=1)
    run, folder = prepare_run(cohort, tiny(*changes), results, options, None)
    return build_batches(run, cohort, folder, 0)


def equal(one: Any, other: Any) -> bool:
    targets = all(torch.equal(a, b) for a, b in zip(one["target"], other["target"], strict=True))
    return targets and torch.equal(one["data"], other["data"])


def test_a_batch_depends_on_its_number_alone(cohort: Cohort, preprocessed: Path, tmp_path: Path) -> None:
    batches = make_batches(cohort, preprocessed, tmp_path)
    in_order = [batches[number] for number in range(4)]
    assert equal(batches[2], in_order[2])
    assert equal(batches[0], in_order[0])
    assert not equal(in_order[0], in_order[1])


def test_processes_draw_what_one_would(cohort: Cohort, preprocessed: Path, tmp_path: Path) -> None:
    batches = make_batches(cohort, preprocessed, tmp_path)
    drawn = list(iterate_batches(batches, range(2, 6), workers=2, pin_memory=False))
    assert len(drawn) == 4
    for number, batch in zip(range(2, 6), drawn, strict=True):
        assert equal(batch, batches[number])


def test_training_and_validation_use_their_own_cases(
    cohort: Cohort, preprocessed: Path, tmp_path: Path
) -> None:
    batches = make_batches(cohort, preprocessed, tmp_path)
    fold = cohort.folds[0]
    for number in range(2 * batches.per_epoch):
        trains = number % batches.per_epoch < batches.training.batches_per_epoch
        assert set(batches[number]["keys"]) <= set(fold.train if trains else fold.validation)


@pytest.mark.parametrize(("name", "channel"), [("ct", 0), ("pet", 1)])
def test_one_input_sees_that_channel_alone(
    name: str, channel: int, cohort: Cohort, preprocessed: Path, tmp_path: Path
) -> None:
    both = make_batches(cohort, preprocessed, tmp_path / "both").validation.loader
    one = make_batches(cohort, preprocessed, tmp_path / "one", f"input={name}").validation.loader
    for loader in (both, one):
        loader.transforms = None
    drawn = []
    for loader in (both, one):
        seed_everything(5)
        drawn.append(loader.generate_train_batch()["data"])
    assert drawn[1].shape[1] == 1
    assert torch.equal(drawn[0][:, channel], drawn[1][:, 0])


def test_a_patch_larger_than_the_image_is_padded(cohort: Cohort, preprocessed: Path, tmp_path: Path) -> None:
    batches = make_batches(cohort, preprocessed, tmp_path, "patch_size=64", "batch_size=1")
    batch = batches[0]
    assert batch["data"].shape == (1, 2, 64, 64, 64)
    assert set(torch.unique(batch["target"][0]).tolist()) <= {0, 1}


def test_other_seeds_draw_other_batches(cohort: Cohort, preprocessed: Path, tmp_path: Path) -> None:
    one = make_batches(cohort, preprocessed, tmp_path / "one")[0]
    other = make_batches(cohort, preprocessed, tmp_path / "other", "seed=1")[0]
    assert not equal(one, other)


def test_preprocessing_is_shared_and_made_once(cohort: Cohort, preprocessed: Path, tmp_path: Path) -> None:
    make_batches(cohort, preprocessed, tmp_path / "one")
    arrays = preprocessed / cohort.name / "nnUNetPlans_3d_fullres"
    before = {path.name: path.stat().st_mtime_ns for path in arrays.iterdir()}
    make_batches(cohort, preprocessed, tmp_path / "other", "input=pet", "patch_size=32")
    assert {path.name: path.stat().st_mtime_ns for path in arrays.iterdir()} == before
    assert sorted(before) == sorted(
        f"case{number}{ending}" for number in range(4) for ending in (".b2nd", "_seg.b2nd", ".pkl")
    )


def test_settings_of_the_run_reach_the_loader(cohort: Cohort, preprocessed: Path, tmp_path: Path) -> None:
    loader = make_batches(
        cohort, preprocessed, tmp_path, "oversampling=0.1", "oversampling_kind=probabilistic", "batch_size=3"
    ).training.loader
    assert loader.batch_size == 3
    assert loader.oversample_foreground_percent == 0.1
    assert loader.get_do_oversample == loader._probabilistic_oversampling
    experiment = with_settings(find_experiment("quick"), ["batch_size=4"])
    last = patch_loader(Cases(), experiment, ((8, 8, 8), (8, 8, 8)), LABELS, None, [Cases.identifiers])
    assert [last.get_do_oversample(position) for position in range(4)] == [False, False, True, True]
