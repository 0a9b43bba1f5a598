"""Where an earlier run was unsure: what a voxel weighs, and that patches are drawn in proportion to it."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from scipy.stats import chisquare

from petlesion.cohort.layout import Cohort, write_folds
from petlesion.errors import CohortError, ModelError
from petlesion.experiments import Experiment
from petlesion.inference.backends.torch import open_model_folder, weights_sha256
from petlesion.io.nifti import read_mask, write_probability, write_volume
from petlesion.model.held_out import predictions_folder, probability_path
from petlesion.training import trainer
from petlesion.training.preprocessing import PreprocessedCohort
from petlesion.training.sampling import Batches, iterate_batches, seed_everything
from petlesion.training.trainer import EpochReport, TrainingOptions, build_batches, prepare_run, train
from petlesion.training.uncertain import draw_voxels, find_unsure, resampled, weigh
from petlesion.volume import Mask, Volume
from tests.training.conftest import make_cohort, tiny

AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])
# Where the earlier run of the tests is unsure: voxels (z, y, x) and probabilities, none of them in a lesion.
UNSURE = {"case2": {(12, 20, 12): 0.5}, "case3": {(16, 14, 20): 0.5, (22, 30, 17): 0.1}}


pytestmark = pytest.mark.usefixtures("draw_in_this_process")


@pytest.fixture(scope="module")
def earlier_run(
    cohort: Cohort,
    options: TrainingOptions,
    draw_in_this_process: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A run of both folds, with held-out probabilities by hand: right but for the voxels of UNSURE."""
    results = tmp_path_factory.mktemp("earlier")
    for fold in (0, 1):
        run = train(cohort, tiny("epochs=1", "iterations=1"), fold, results, options).parent
    for case in cohort.training_cases:
        reference = read_mask(cohort.label_path(case.case_id))
        probability = reference.array.astype(np.float32)
        for voxel, value in UNSURE.get(case.case_id, {}).items():
            assert probability[voxel] == 0
            probability[voxel] = value
        write_probability(probability_path(run, case.case_id), reference.with_array(probability))
    record = {"weights_sha256": weights_sha256(run, ["0", "1"]), "held_out": True, "folds": [["0", "1"]]}
    (predictions_folder(run) / "predict.json").write_text(json.dumps(record))
    return run


def copy_of(run: Path, folder: Path) -> Path:
    return Path(shutil.copytree(run, folder / "earlier"))


def uncertain_batches(
    cohort: Cohort, earlier_run: Path, results: Path, options: TrainingOptions, *changes: str
) -> Batches:
    experiment = tiny("sampling=uncertain", f"earlier_run={earlier_run}", *changes)
    run, folder = prepare_run(cohort, experiment, results, options, None)
    return build_batches(run, cohort, folder, 0, options)


def test_a_voxel_weighs_its_entropy_and_its_error() -> None:
    probability = np.array([0, 1, 0.5, 0.5, 0.25, 0.25, 1, 0], dtype=np.float32).reshape(2, 2, 2)
    reference = np.array([0, 1, 0, 1, 0, 1, 0, 1], dtype=bool).reshape(2, 2, 2)
    quarter = 0.25 * 2 + 0.75 * np.log2(4 / 3)
    expected = [0, 0, 1.5, 1.5, quarter + 0.25, quarter + 0.75, 1, 1]
    weights = weigh(Volume(probability, AFFINE), Volume(reference, AFFINE))
    np.testing.assert_allclose(weights.ravel(), expected, atol=1e-6)


def test_voxels_are_drawn_in_proportion_to_their_weights(rng: np.random.Generator) -> None:
    weights = np.zeros((5, 6, 7), dtype=np.float32)
    weights[1:4, 2:5, 3:5] = rng.random((3, 3, 2))
    counts = np.zeros(weights.shape)
    np.add.at(counts, tuple(draw_voxels(weights, 20_000, rng).T), 1)
    assert not counts[weights == 0].any()
    heavy = weights > 0
    expected = weights[heavy].astype(float)
    assert chisquare(counts[heavy], expected / expected.sum() * 20_000).pvalue > 1e-3
    assert draw_voxels(np.zeros((2, 3, 4), dtype=np.float32), 10, rng).shape == (0, 3)


def test_a_voxel_is_spread_over_those_it_is_split_into(rng: np.random.Generator) -> None:
    voxels = np.tile(np.array([[3, 0, 7]], dtype=np.int32), (6000, 1))
    spread = resampled(voxels, (4, 9, 8), (8, 3, 8), rng)
    assert np.unique(spread, axis=0).tolist() == [[6, 0, 7], [7, 0, 7]]
    assert abs((spread[:, 0] == 6).mean() - 0.5) < 4 * np.sqrt(0.25 / 6000)


def make_cropped_ball(cohort: Cohort, case_id: str) -> Mask:
    """Make a case's images zero at two faces, so that nnU-Net crops it, and its reference a ball."""
    study = cohort.read_study(case_id)
    assert study.ct is not None
    z, y, x = np.indices(study.pet.shape)
    ball: Mask = (z - 21) ** 2 + (y - 14) ** 2 + (x - 19) ** 2 <= 30
    ct_path, pet_path, label_path = cohort.paths(case_id)
    for path, volume in ((ct_path, study.ct), (pet_path, study.pet)):
        array = volume.array.copy()
        array[:6] = array[..., -4:] = 0
        write_volume(path, volume.with_array(array))
    write_volume(label_path, study.pet.with_array(ball.astype(np.uint8)))
    return ball


@pytest.mark.parametrize("spacing", [(4.0, 4.0, 4.0), (6.0, 3.0, 4.0), (3.0, 4.0, 5.0)])
def test_a_spike_lands_where_nnunet_takes_it(
    spacing: tuple[float, float, float],
    cohort: Cohort,
    earlier_run: Path,
    options: TrainingOptions,
    tmp_path: Path,
) -> None:
    """The ball that was missed is where nnU-Net's own preprocessing crops, transposes and resamples it to."""
    assert options.preprocessed is not None
    plan = PreprocessedCohort.at(cohort, options.preprocessed).plan(1)
    plan["transpose_forward"], plan["transpose_backward"] = [1, 2, 0], [2, 0, 1]
    plan["configurations"]["3d_fullres"]["spacing"] = list(spacing)
    other = make_cohort(tmp_path / "cohort")
    ball = make_cropped_ball(other, "case3")
    run = copy_of(earlier_run, tmp_path)
    nothing = read_mask(other.label_path("case3")).with_array(np.zeros(ball.shape, dtype=np.float32))
    write_probability(probability_path(run, "case3"), nothing)
    prepared = PreprocessedCohort.at(other, tmp_path / "preprocessed")
    prepared.preprocess(plan, 1)
    places = find_unsure(tmp_path / "run", other, uncertain_of(run), other.folds[0])
    places.draw(plan, prepared.data_folder(plan), 1, trainer._no_progress)

    _, reference, _, properties = nnUNetDatasetBlosc2(str(prepared.data_folder(plan)), ["case3"]).load_case(
        "case3"
    )
    assert tuple(properties["shape_before_cropping"]) == (40, 36, 32)
    assert properties["shape_after_cropping_and_before_resampling"] == (40, 32, 26)
    lesion = np.asarray(reference[0]) > 0
    channel, *voxels = places.centres.read("case3").T
    assert not channel.any()
    assert lesion[tuple(voxels)].mean() > (0.99 if spacing == (4.0, 4.0, 4.0) else 0.85)
    np.testing.assert_allclose(np.mean(voxels, axis=1), np.argwhere(lesion).mean(axis=0), atol=0.2)
    assert places.centres.weight_ml("case3") == pytest.approx(ball.sum() * 0.064)


def test_patches_are_drawn_in_proportion_to_what_was_unsure(
    cohort: Cohort, earlier_run: Path, options: TrainingOptions, tmp_path: Path
) -> None:
    """Of 2,000 batches of two, the last patch is centred on an unsure voxel, the first lies anywhere."""
    loader = uncertain_batches(cohort, earlier_run, tmp_path, options).training.loader
    stored = {case_id: loader._data.load_case(case_id) for case_id in UNSURE}
    found: Counter[tuple[str, tuple[int, ...]]] = Counter()
    anywhere: Counter[str] = Counter()
    seed_everything(7)
    for _ in range(2000):
        other, case_id = loader.get_indices()
        anywhere[other] += 1
        assert not loader.get_do_oversample(0)
        assert loader.get_do_oversample(1)
        data, _, _, properties = stored[case_id]
        starts, _ = loader.get_bbox(data.shape[1:], True, properties["class_locations"])
        centre = (start + size // 2 for start, size in zip(starts, loader.patch_size, strict=True))
        found[case_id, tuple(int(index) for index in centre)] += 1
    weights = {(case_id, voxel): weight_of(p) for case_id in UNSURE for voxel, p in UNSURE[case_id].items()}
    assert set(found) == set(weights)
    expected = np.array(list(weights.values())) / sum(weights.values()) * 2000
    assert chisquare([found[place] for place in weights], expected).pvalue > 1e-3
    assert abs(anywhere["case2"] - 1000) < 4 * np.sqrt(500)


def weight_of(probability: float) -> float:
    """What a voxel outside lesions weighs."""
    p = np.array([probability, 1 - probability])
    return float(-(p * np.log2(p)).sum() + probability)


def test_probabilistic_oversampling_keeps_its_share(
    cohort: Cohort, earlier_run: Path, options: TrainingOptions, tmp_path: Path
) -> None:
    changes = ("oversampling=0.3", "oversampling_kind=probabilistic")
    loader = uncertain_batches(cohort, earlier_run, tmp_path, options, *changes).training.loader
    seed_everything(5)
    decided = []
    for _ in range(2000):
        loader.get_indices()
        decided += [loader.get_do_oversample(patch) for patch in (0, 1)]
    assert abs(np.mean(decided) - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 4000)


def test_a_batch_depends_on_its_number_alone(
    cohort: Cohort, earlier_run: Path, options: TrainingOptions, tmp_path: Path
) -> None:
    batches = uncertain_batches(cohort, earlier_run, tmp_path / "one", options)
    again = uncertain_batches(cohort, earlier_run, tmp_path / "two", options)
    elsewhere = list(iterate_batches(batches, range(1, 3), workers=1, pin_memory=False))
    for number, drawn in zip((1, 2), elsewhere, strict=True):
        for other in (batches[number], again[number]):
            assert other["keys"] == drawn["keys"]
            assert torch.equal(other["data"], drawn["data"])
    assert not torch.equal(elsewhere[0]["data"], elsewhere[1]["data"])
    assert batches.validation.loader._data.places.oversampled is None


def test_other_seeds_draw_other_voxels(
    cohort: Cohort, earlier_run: Path, options: TrainingOptions, tmp_path: Path
) -> None:
    one, other = (
        uncertain_batches(cohort, earlier_run, tmp_path / seed, options, f"seed={seed}") for seed in "12"
    )
    drawn = [batches.training.loader._data.places.oversampled.read("case3") for batches in (one, other)]
    assert (drawn[0] != drawn[1]).any()


def test_a_training_goes_on_without_the_earlier_run(
    cohort: Cohort, earlier_run: Path, options: TrainingOptions, tmp_path: Path
) -> None:
    run = copy_of(earlier_run, tmp_path)
    experiment = tiny("sampling=uncertain", f"earlier_run={run}", "epochs=2", "iterations=2")

    def stop(report: EpochReport) -> None:
        raise KeyboardInterrupt

    whole = train(cohort, experiment, 0, tmp_path / "whole", options)
    with pytest.raises(KeyboardInterrupt):
        train(cohort, experiment, 0, tmp_path / "halved", replace(options, on_epoch=stop))
    shutil.rmtree(run)
    halved = train(cohort, experiment, 0, tmp_path / "halved", options)
    losses = [
        [json.loads(line)["train_loss"] for line in (folder / "progress.jsonl").read_text().splitlines()]
        for folder in (whole, halved)
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 2


def check(cohort: Cohort, run: Path) -> None:
    find_unsure(run / "new", cohort, uncertain_of(run), cohort.folds[0]).check()


def uncertain_of(run: Path) -> Experiment:
    return tiny("sampling=uncertain", f"earlier_run={run}")


def change_record(run: Path, **changes: object) -> None:
    path = predictions_folder(run) / "predict.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_what_is_missing_is_told_with_the_command(cohort: Cohort, earlier_run: Path, tmp_path: Path) -> None:
    run = copy_of(earlier_run, tmp_path)
    check(cohort, run)
    command = f"run petlesion predict {run} {cohort.folder} --held-out --probabilities -o {run}/cross"
    probability_path(run, "case3").unlink()
    with pytest.raises(CohortError, match=f"case3.nii.gz is missing; {command}"):
        check(cohort, run)
    change_record(run, folds=[["0"]], weights_sha256=weights_sha256(run, ["0"]))
    with pytest.raises(CohortError, match=f"nothing of fold 1.*train that fold too, and {command}"):
        check(cohort, run)
    shutil.rmtree(predictions_folder(run))
    with pytest.raises(CohortError, match=f"no held-out predictions; {command}"):
        check(cohort, run)


@pytest.mark.parametrize("changes", [{"held_out": False}, {"weights_sha256": "0" * 64}])
def test_predictions_of_seen_cases_or_other_weights_are_refused(
    changes: dict[str, object], cohort: Cohort, earlier_run: Path, tmp_path: Path
) -> None:
    run = copy_of(earlier_run, tmp_path)
    change_record(run, **changes)
    with pytest.raises(CohortError, match="not what the run, as it is now, makes of held-out studies"):
        check(cohort, run)


def test_a_run_of_another_split_is_refused(cohort: Cohort, earlier_run: Path, tmp_path: Path) -> None:
    """With its folds changed about, the earlier run has seen what it would be asked for."""
    other = make_cohort(tmp_path / "cohort")
    write_folds(other, other.folds[::-1])
    with pytest.raises(CohortError, match="fold 1 was not trained on the split"):
        find_unsure(tmp_path, other, uncertain_of(earlier_run), other.folds[0]).check()


def test_probabilities_of_another_grid_are_refused(cohort: Cohort, earlier_run: Path, tmp_path: Path) -> None:
    run = copy_of(earlier_run, tmp_path)
    path = probability_path(run, "case2")
    write_probability(path, Volume(np.zeros((32, 40, 35), dtype=np.float32), AFFINE))
    with pytest.raises(CohortError, match="not on the grid of the case as it is now"):
        check(cohort, run)


def test_a_run_without_checkpoints_is_refused(cohort: Cohort, earlier_run: Path, tmp_path: Path) -> None:
    run = copy_of(earlier_run, tmp_path)
    shutil.rmtree(run / "fold_1")
    with pytest.raises(ModelError, match="no checkpoint of fold 1"):
        check(cohort, run)


def test_a_missing_earlier_run_is_told_before_anything_is_planned(cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="no held-out predictions"):
        train(cohort, uncertain_of(tmp_path / "absent"), 0, tmp_path / "results")
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_run_that_is_never_unsure_is_of_no_use(
    cohort: Cohort, earlier_run: Path, options: TrainingOptions, tmp_path: Path
) -> None:
    run = copy_of(earlier_run, tmp_path)
    for case_id in UNSURE:
        reference = read_mask(cohort.label_path(case_id))
        write_probability(
            probability_path(run, case_id), reference.with_array(reference.array.astype(np.float32))
        )
    with pytest.raises(CohortError, match="nowhere unsure or wrong"):
        uncertain_batches(cohort, run, tmp_path / "results", options)


def test_an_earlier_run_that_has_changed_is_refused(
    cohort: Cohort, earlier_run: Path, options: TrainingOptions, tmp_path: Path
) -> None:
    run = copy_of(earlier_run, tmp_path)
    batches = uncertain_batches(cohort, run, tmp_path / "results", options)
    batches.training.loader._data.places.oversampled.path("case2").unlink()
    (run / "fold_1" / "checkpoint_final.pth").write_bytes(b"other weights")
    change_record(run, weights_sha256=weights_sha256(run, ["0", "1"]))
    with pytest.raises(CohortError, match="has changed since"):
        uncertain_batches(cohort, run, tmp_path / "results", options)


def test_the_digest_of_weights_is_that_of_the_opened_model(earlier_run: Path) -> None:
    for folds in (["0"], ["1"], ["0", "1"]):
        assert weights_sha256(earlier_run, folds) == open_model_folder(earlier_run, folds).weights_sha256
