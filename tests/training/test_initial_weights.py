"""Starting from another run's network: its weights, its plan, and what it has seen."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from petlesion.cohort.layout import Cohort, Fold, add_study, create_cohort, write_folds
from petlesion.errors import CohortError, ExperimentError
from petlesion.experiments import Experiment
from petlesion.model.training_cases import case_digests, seen_cases
from petlesion.training.initial_weights import InitialWeights
from petlesion.training.jsonfile import Json
from petlesion.training.planning import build_network
from petlesion.training.run import Run
from petlesion.training.sampling import SelectedChannels
from petlesion.training.trainer import TrainingOptions, prepare_run, train
from tests.conftest import make_phantom
from tests.training.conftest import tiny

BARELY = ("epochs=1", "iterations=1", "learning_rate=1e-9")


pytestmark = pytest.mark.usefixtures("draw_in_this_process")


def prepared(
    cohort: Cohort, experiment: Experiment, results: Path, options: TrainingOptions
) -> tuple[Run, Path]:
    """A run as `train` prepares it for fold 0."""
    return prepare_run(cohort, experiment, results, options, InitialWeights.of(experiment, 0))


def test_training_starts_from_initial_weights(
    cohort: Cohort, options: TrainingOptions, finished: Path, tmp_path: Path
) -> None:
    start = finished / "checkpoint_final.pth"
    barely = tiny(f"initial_weights={start}", *BARELY)
    fold = train(cohort, barely, 0, tmp_path, options)
    before, after = (
        torch.load(path, weights_only=True)["network_weights"]
        for path in (start, fold / "checkpoint_final.pth")
    )
    for name, weight in before.items():
        torch.testing.assert_close(after[name], weight, rtol=0, atol=1e-6)


def test_cases_of_initial_weights_count_as_seen(
    cohort: Cohort, options: TrainingOptions, finished: Path, tmp_path: Path
) -> None:
    barely = tiny(f"initial_weights={finished / 'checkpoint_final.pth'}", "epochs=1", "iterations=1")
    fold = train(cohort, barely, 0, tmp_path, options)
    assert seen_cases(fold) == case_digests(cohort.folds[0].train)
    assert json.loads((fold / "split.json").read_text())["earlier_sha256"] == sorted(seen_cases(fold) or ())
    with pytest.raises(CohortError, match="2 of the cases that this fold holds out"):
        train(cohort, barely, 1, tmp_path, options)


def test_a_finished_fold_needs_its_initial_weights_no_more(
    cohort: Cohort, options: TrainingOptions, finished: Path, tmp_path: Path
) -> None:
    start = tmp_path / "start.pth"
    shutil.copyfile(finished / "checkpoint_final.pth", start)
    experiment = tiny(f"initial_weights={start}", *BARELY)
    fold = train(cohort, experiment, 0, tmp_path, options)
    start.unlink()
    written = (fold / "checkpoint_final.pth").stat().st_mtime_ns
    assert train(cohort, experiment, 0, tmp_path, options) == fold
    assert (fold / "checkpoint_final.pth").stat().st_mtime_ns == written
    with pytest.raises(ExperimentError, match="begun with other settings"):
        train(cohort, replace(experiment, epochs=7), 0, tmp_path, options)


def test_initial_weights_of_another_network_are_refused_before_anything_is_made(
    cohort: Cohort, options: TrainingOptions, finished: Path, tmp_path: Path
) -> None:
    start = finished / "checkpoint_final.pth"
    fresh = replace(options, preprocessed=tmp_path / "preprocessed")
    with pytest.raises(ExperimentError, match="another network"):
        train(cohort, tiny(f"initial_weights={start}", "max_features=16"), 0, tmp_path / "results", fresh)
    assert not list(tmp_path.rglob("*.b2nd")) and not (tmp_path / "results").exists()


@pytest.mark.parametrize(("channel", "place"), [("ct", 0), ("pet", 1)])
def test_a_network_of_one_channel_starts_from_its_filters_of_both(
    channel: str, place: int, cohort: Cohort, options: TrainingOptions, finished: Path, tmp_path: Path
) -> None:
    start = finished / "checkpoint_final.pth"
    barely = tiny(f"initial_weights={start}", f"input={channel}", *BARELY)
    fold = train(cohort, barely, 0, tmp_path, options)
    of_both, of_one = (
        torch.load(path, weights_only=True)["network_weights"]
        for path in (start, fold / "checkpoint_final.pth")
    )
    filters = [name for name, weight in of_both.items() if weight.ndim == 5 and weight.shape[1] == 2]
    assert "encoder.stages.0.0.convs.0.conv.weight" in filters
    for name, weight in of_both.items():
        expected = weight[:, place : place + 1] if name in filters else weight
        torch.testing.assert_close(of_one[name], expected, rtol=0, atol=1e-6)


def test_initial_weights_without_one_of_the_channels_are_refused(
    cohort: Cohort, options: TrainingOptions, tmp_path: Path
) -> None:
    of_pet = train(cohort, tiny("input=pet", "epochs=1", "iterations=1"), 0, tmp_path / "pet", options)
    start = of_pet / "checkpoint_final.pth"
    for channels in ("ct", "ct-pet"):
        with pytest.raises(ExperimentError, match="was trained without CT"):
            train(
                cohort,
                tiny(f"initial_weights={start}", f"input={channels}"),
                0,
                tmp_path / channels,
                options,
            )


@pytest.fixture(scope="module")
def turned_cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Two phantoms whose voxels are longest along y, so that nnU-Net puts that axis first."""
    cohort = create_cohort(tmp_path_factory.mktemp("turned") / "cohort", "Dataset002_Turned")
    affine = np.diag([3.0, 6.0, 3.0, 1.0])
    for number in range(2):
        study = make_phantom((32, 40, 36), seed=10 + number)
        volumes = {name: replace(getattr(study, name), affine=affine) for name in ("pet", "ct", "reference")}
        name = f"turned{number}"
        cohort = add_study(cohort, replace(study, **volumes), case_id=name, patient_id=name, source="phantom")
    write_folds(cohort, [Fold(("turned0",), ("turned1",))])
    return Cohort.open(cohort.folder)


def test_a_run_takes_over_the_plan_of_the_weights_that_it_starts_from(
    cohort: Cohort, turned_cohort: Cohort, options: TrainingOptions, finished: Path, tmp_path: Path
) -> None:
    own, own_arrays = prepared(turned_cohort, tiny(), tmp_path / "own", options)
    assert own.plan["transpose_forward"] == [1, 0, 2]
    assert own.plan["configurations"]["3d_fullres"]["spacing"] == [6.0, 3.0, 3.0]

    start = f"initial_weights={finished / 'checkpoint_final.pth'}"
    taken, arrays = prepared(turned_cohort, tiny(start), tmp_path / "taken", options)
    theirs = json.loads((finished.parent / "plans.json").read_text())
    for key in ("transpose_forward", "transpose_backward", "foreground_intensity_properties_per_channel"):
        assert taken.plan[key] == theirs[key]
    configuration, of_weights = (plan["configurations"]["3d_fullres"] for plan in (taken.plan, theirs))
    for key in ("spacing", "patch_size", "architecture", "normalization_schemes"):
        assert configuration[key] == of_weights[key]
    assert taken.plan["dataset_name"] == "Dataset002_Turned"

    # Both forms stand side by side, each on its own grid: 40 voxels of 6 mm along y are 60 of 4 mm.
    assert arrays != own_arrays
    assert _shape(own_arrays) == (40, 32, 36)
    assert _shape(arrays) == (24, 60, 27)


def _shape(folder: Path) -> tuple[int, ...]:
    data, *_ = SelectedChannels(folder, ["turned0"], (0, 1)).load_case("turned0")
    return tuple(data.shape[1:])


def test_a_run_of_the_same_cohort_and_plan_shares_its_arrays(
    cohort: Cohort, options: TrainingOptions, finished: Path, tmp_path: Path
) -> None:
    _, own = prepared(cohort, tiny(), tmp_path / "own", options)
    start = f"initial_weights={finished / 'checkpoint_final.pth'}"
    assert prepared(cohort, tiny(start), tmp_path / "taken", options)[1] == own


def test_a_channel_that_the_weights_never_saw_is_normalised_as_planned(
    turned_cohort: Cohort, cohort: Cohort, options: TrainingOptions, tmp_path: Path
) -> None:
    of_pet = train(cohort, tiny("input=pet", *BARELY), 0, tmp_path / "first", options)
    experiment = tiny("input=pet", f"initial_weights={of_pet / 'checkpoint_final.pth'}")
    run, arrays = prepared(turned_cohort, experiment, tmp_path / "second", options)
    assert run.plan["configurations"]["3d_fullres"]["normalization_schemes"] == ["ZScoreNormalization"]
    assert _shape(arrays) == (24, 60, 27)


def test_pet_normalised_otherwise_is_refused(
    turned_cohort: Cohort, options: TrainingOptions, finished: Path, tmp_path: Path
) -> None:
    start = f"initial_weights={finished / 'checkpoint_final.pth'}"
    with pytest.raises(ExperimentError, match="trained with pet_normalization=study; set it"):
        prepared(turned_cohort, tiny(start, "pet_normalization=cohort"), tmp_path, options)


def test_filters_are_converted_to_another_scale_of_pet(finished: Path, rng: np.random.Generator) -> None:
    """On the same SUV both give the same but for a constant, which instance normalisation subtracts."""
    path = finished / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=True)
    arguments = checkpoint["init_args"]
    theirs, ours = (scaled_alike(arguments["plans"], *scale) for scale in ((4.0, 3.0), (0.7, 1.0)))
    initial = InitialWeights(path, {**checkpoint, "init_args": {**arguments, "plans": theirs}}, None)
    network = build_network(ours, arguments["dataset_json"], deep_supervision=True)
    assert initial.take_plan_over(ours, arguments["dataset_json"]) == ours
    initial.load_into(network, ours, arguments["dataset_json"])
    converted = {name: values.detach() for name, values in network.state_dict().items()}
    ct, suv = torch.from_numpy(rng.gamma(2, 1, (2, 1, 8, 8, 8)).astype(np.float32))
    answers = []
    for weights, (mean, std) in ((checkpoint["network_weights"], (4.0, 3.0)), (converted, (0.7, 1.0))):
        images = torch.stack([ct, (suv - mean) / std], dim=1)
        filters = weights["encoder.stages.0.0.convs.0.conv.weight"]
        answers.append(torch.nn.functional.conv3d(images, filters))
    difference = answers[1] - answers[0]
    centred = difference - difference.mean(dim=(2, 3, 4), keepdim=True)
    assert centred.abs().max() < 1e-4 < answers[0].std()


def scaled_alike(plan: Json, mean: float, std: float) -> Json:
    """A plan whose PET is scaled alike in all studies."""
    scaled = copy.deepcopy(plan)
    scaled["configurations"]["3d_fullres"]["normalization_schemes"][1] = "CTNormalization"
    scaled["foreground_intensity_properties_per_channel"]["1"] |= {"mean": mean, "std": std}
    return scaled


def test_each_fold_starts_from_its_own_weights_of_a_run(
    cohort: Cohort, options: TrainingOptions, finished: Path, tmp_path: Path
) -> None:
    barely = tiny(f"initial_weights={finished.parent}", *BARELY)
    fold = train(cohort, barely, 0, tmp_path, options)
    start, end = (
        torch.load(folder / "checkpoint_final.pth", weights_only=True)["network_weights"]
        for folder in (finished, fold)
    )
    assert all(torch.allclose(end[name], weight, rtol=0, atol=1e-6) for name, weight in start.items())
    with pytest.raises(CohortError, match="fold_1"):
        train(cohort, barely, 1, tmp_path, options)
