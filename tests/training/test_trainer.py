"""Whole trainings in miniature: what stands on disk, what stock nnU-Net reads, and going on after a kill."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from petlesion.cohort.layout import Cohort, write_folds
from petlesion.errors import CohortError, ExperimentError, UsageError
from petlesion.experiments import Experiment
from petlesion.training import trainer
from petlesion.training.trainer import EpochReport, TrainingOptions, train
from tests.training.conftest import make_cohort, tiny

ALL_FILES = [
    "checkpoint_best.pth",
    "checkpoint_final.pth",
    "checkpoint_latest.pth",
    "progress.jsonl",
    "split.json",
]


pytestmark = pytest.mark.usefixtures("draw_in_this_process")


@pytest.fixture(scope="module")
def finished(first_fold: Callable[[Experiment], Path]) -> Path:
    """The folder of a fold that was trained without a break."""
    return first_fold(tiny())


def progress(fold_folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (fold_folder / "progress.jsonl").read_text().splitlines()]


def losses(fold_folder: Path) -> list[tuple[float, float, float | None]]:
    return [(r["train_loss"], r["val_loss"], r["pseudo_dice"]) for r in progress(fold_folder)]


def test_a_run_is_laid_out_as_the_formats_say(finished: Path, cohort: Cohort) -> None:
    run = finished.parent
    assert (finished.name, run.name, run.parent.name) == (
        "fold_0",
        "quick__nnUNetPlans__3d_fullres",
        "Dataset001_Tiny",
    )
    assert sorted(path.name for path in finished.iterdir() if path.name != ".lock") == ALL_FILES
    assert sorted(path.name for path in run.iterdir()) == [
        "dataset.json",
        "experiment.json",
        "fold_0",
        "plans.json",
    ]
    stored = json.loads((run / "experiment.json").read_text())
    assert Experiment.from_dict(stored["experiment"]) == tiny()
    assert {"petlesion", "torch", "nnunetv2", "python"} <= set(stored["versions"])
    assert stored["seeds"]["run"] == 0
    assert stored["network"]["features_per_stage"] == [4, 8, 8][: len(stored["network"]["strides"])]


def test_progress_has_a_line_for_each_epoch(finished: Path) -> None:
    records = progress(finished)
    assert [record["epoch"] for record in records] == [0, 1, 2]
    assert set(records[0]) == set(EpochReport.__dataclass_fields__)
    assert [record["learning_rate"] for record in records] == pytest.approx(
        [0.01 * (1 - epoch / 3) ** 0.9 for epoch in range(3)]
    )
    for record in records:
        assert np.isfinite([record["train_loss"], record["val_loss"]]).all()
        assert record["seconds"] > 0
        assert 0 <= record["waited"] <= 1
    assert records[-1]["seconds_left"] == 0


def test_learning_lowers_the_loss(cohort: Cohort, options: TrainingOptions, tmp_path: Path) -> None:
    folder = train(cohort, tiny("epochs=6", "iterations=12"), 0, tmp_path, options)
    records = progress(folder)
    assert records[-1]["train_loss"] < records[0]["train_loss"] - 0.1


@pytest.mark.parametrize(
    ("changes", "axes"), [((), None), (("mirroring=true", "epochs=1", "iterations=1"), (0, 1, 2))]
)
def test_stock_nnunet_loads_and_predicts(
    changes: tuple[str, ...],
    axes: tuple[int, ...] | None,
    cohort: Cohort,
    options: TrainingOptions,
    finished: Path,
    tmp_path: Path,
) -> None:
    folder = train(cohort, tiny(*changes), 0, tmp_path, options) if changes else finished
    predictor = stock_predictor(folder)
    assert predictor.allowed_mirroring_axes == axes
    study = cohort.read_study("case0")
    assert study.ct is not None
    image = np.stack([study.ct.array, study.pet.array]).astype(np.float32)
    mask = predictor.predict_single_npy_array(image, {"spacing": list(study.pet.spacing_mm)})
    assert mask.shape == study.pet.shape
    assert set(np.unique(mask)) <= {0, 1}


def stock_predictor(fold_folder: Path) -> nnUNetPredictor:
    predictor = nnUNetPredictor(device=torch.device("cpu"), use_mirroring=False, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(fold_folder.parent), (0,), "checkpoint_final.pth")
    return predictor


@pytest.mark.parametrize(
    "changes", [("input=pet",), ("input=ct",), ("input=pet", "pet_normalization=cohort")]
)
def test_stock_nnunet_reads_runs_of_one_channel(
    changes: tuple[str, ...], cohort: Cohort, options: TrainingOptions, tmp_path: Path
) -> None:
    folder = train(cohort, tiny(*changes, "epochs=1", "iterations=1"), 0, tmp_path, options)
    predictor = stock_predictor(folder)
    study = cohort.read_study("case0")
    assert study.ct is not None
    image = (study.pet if "input=pet" in changes else study.ct).array[None].astype(np.float32)
    mask = predictor.predict_single_npy_array(image, {"spacing": list(study.pet.spacing_mm)})
    assert mask.shape == study.pet.shape


def test_pet_normalised_by_the_cohort_is_clipped_and_scaled_like_ct(
    cohort: Cohort, options: TrainingOptions, tmp_path: Path
) -> None:
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    changes = ("pet_normalization=cohort", "epochs=1", "iterations=1")
    folder = train(cohort, tiny(*changes), 0, tmp_path, options)
    plan = json.loads((folder.parent / "plans.json").read_text())
    numbers = plan["foreground_intensity_properties_per_channel"]["1"]
    identifier = plan["configurations"]["3d_fullres"]["data_identifier"]
    assert options.preprocessed is not None
    cases = nnUNetDatasetBlosc2(str(options.preprocessed / cohort.name / identifier), ["case0"])
    pet = cohort.read_study("case0").pet.array
    clipped = np.clip(pet, numbers["percentile_00_5"], numbers["percentile_99_5"])
    expected = (clipped - numbers["mean"]) / max(numbers["std"], 1e-8)
    ours = cases.load_case("case0")[0][1]
    # float32 arithmetic around a standard deviation that is next to nothing: every lesion has SUV 10.
    assert np.allclose(ours, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("loss", ["dice_ce", "generalised_dice_ce"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_loss_and_precision_trains(
    loss: str, precision: str, cohort: Cohort, options: TrainingOptions, tmp_path: Path
) -> None:
    changes = (f"loss={loss}", f"precision={precision}", "epochs=1", "iterations=2")
    assert np.isfinite(progress(train(cohort, tiny(*changes), 1, tmp_path, options))[0]["train_loss"])


class BrokenOffError(Exception):
    pass


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(
    cohort: Cohort, options: TrainingOptions, finished: Path, tmp_path: Path
) -> None:
    def interrupt(report: EpochReport) -> None:
        if report.epoch == 1:
            raise BrokenOffError

    broken_off = TrainingOptions(**{**vars(options), "on_epoch": interrupt})
    with pytest.raises(BrokenOffError):
        train(cohort, tiny(), 0, tmp_path, broken_off)
    resumed = train(cohort, tiny(), 0, tmp_path, options)
    assert losses(resumed) == losses(finished)
    ours, theirs = (torch.load(folder / "checkpoint_final.pth") for folder in (resumed, finished))
    for name, weights in theirs["network_weights"].items():
        assert torch.equal(ours["network_weights"][name], weights)
    assert ours["current_epoch"] == 3


@pytest.mark.parametrize("left", ["", '{"epoch": 0, "epo'])
def test_progress_is_written_anew_from_the_checkpoint(
    left: str, cohort: Cohort, options: TrainingOptions, finished: Path, tmp_path: Path
) -> None:
    folder = tmp_path / finished.parent.parent.name / finished.parent.name
    shutil.copytree(finished.parent, folder)
    (folder / "fold_0" / "checkpoint_final.pth").unlink()
    (folder / "fold_0" / "progress.jsonl").write_text(left)
    assert progress(train(cohort, tiny(), 0, tmp_path, options)) == progress(finished)


def test_a_training_killed_at_any_moment_goes_on_and_leaves_no_process(
    cohort: Cohort, options: TrainingOptions, finished: Path, tmp_path: Path
) -> None:
    arguments = [
        "train",
        str(cohort.folder),
        "-e",
        "quick",
        "-f",
        "0",
        "-o",
        str(tmp_path),
        "--device",
        "cpu",
    ]
    settings = ["epochs=3", "iterations=4", "patch_size=16", "base_features=4", "max_features=8"]
    arguments += [word for setting in settings for word in ("--set", setting)]
    arguments += ["--preprocessed", str(options.preprocessed), "--processes", "1"]
    # Another number of threads adds up in another order.
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-m", "petlesion", *arguments]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    fold_folder = tmp_path / finished.parent.parent.name / finished.parent.name / "fold_0"
    wait_until(lambda: (fold_folder / "checkpoint_latest.pth").exists() or process.poll() is not None, 60)
    children = descendants(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stderr is not None
    process.stderr.close()
    resumed = train(cohort, tiny(), 0, tmp_path, options)
    assert sorted(path.name for path in resumed.iterdir() if not path.name.startswith(".")) == ALL_FILES
    assert losses(resumed) == losses(finished)
    wait_until(lambda: not any(Path(f"/proc/{child}").exists() for child in children), 30)


def wait_until(holds: Any, seconds: float) -> None:
    limit = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < limit, "waited too long"
        time.sleep(0.02)


def descendants(pid: int) -> list[int]:
    """All processes below one, as Linux lists them."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *descendants(child)]
    return found


def test_a_fold_is_not_trained_by_two_processes_at_once(
    cohort: Cohort, options: TrainingOptions, tmp_path: Path
) -> None:
    def train_again(report: EpochReport) -> None:
        with pytest.raises(CohortError, match="another process is training this fold"):
            train(cohort, tiny(), 0, tmp_path, options)

    folder = train(cohort, tiny(), 0, tmp_path, replace(options, on_epoch=train_again))
    assert len(progress(folder)) == tiny().epochs


def test_a_finished_fold_is_left_as_it_is(cohort: Cohort, options: TrainingOptions, finished: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in finished.iterdir()}
    assert train(cohort, tiny(), 0, finished.parents[2], options) == finished
    assert {path.name: path.stat().st_mtime_ns for path in finished.iterdir()} == before


def test_another_experiment_of_the_same_name_is_refused(
    cohort: Cohort, options: TrainingOptions, finished: Path
) -> None:
    with pytest.raises(ExperimentError, match=r"other settings \(epochs 3, now 4; seed 0, now 2\)"):
        train(cohort, tiny("epochs=4", "seed=2"), 0, finished.parents[2], options)


def resplit(folder: Path) -> Cohort:
    """The tiny cohort with its two folds changed about: what was trained on is now held out."""
    cohort = make_cohort(folder)
    write_folds(cohort, list(reversed(cohort.folds)))
    return Cohort.open(folder)


@pytest.mark.parametrize("is_finished", [True, False])
def test_a_fold_is_not_trained_on_with_another_split(
    is_finished: bool, options: TrainingOptions, cohort: Cohort, finished: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "results" / finished.parent.parent.name / finished.parent.name
    shutil.copytree(finished.parent, folder)
    if not is_finished:
        (folder / "fold_0" / "checkpoint_final.pth").unlink()
    changed = resplit(tmp_path / "cohort")
    with pytest.raises(CohortError, match=r"fold_0: this fold was begun with another split .*; restore"):
        train(changed, tiny(), 0, tmp_path / "results", options)


def test_the_split_is_kept_from_the_first_epoch_on(finished: Path, cohort: Cohort) -> None:
    fold = cohort.folds[0]
    stored = json.loads((finished / "split.json").read_text())
    assert stored == {"train": list(fold.train), "validation": list(fold.validation)}


def test_a_fold_begun_without_a_split_goes_on_without(
    cohort: Cohort, options: TrainingOptions, finished: Path, tmp_path: Path
) -> None:
    folder = tmp_path / finished.parent.parent.name / finished.parent.name
    shutil.copytree(finished.parent, folder)
    for name in ("split.json", "checkpoint_final.pth"):
        (folder / "fold_0" / name).unlink()
    resumed = train(cohort, tiny(), 0, tmp_path, options)
    assert (resumed / "checkpoint_final.pth").exists()
    assert not (resumed / "split.json").exists()


def test_a_fold_that_is_not_there(cohort: Cohort, options: TrainingOptions, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no fold 2; choose one of 0 to 1"):
        train(cohort, tiny(), 2, tmp_path, options)


def test_a_device_that_is_not_there(cohort: Cohort, options: TrainingOptions, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no device 'tpu'"):
        train(cohort, tiny(), 0, tmp_path, TrainingOptions(**{**vars(options), "device": "tpu"}))


def test_a_cohort_that_has_changed_is_not_mixed_with_what_was_preprocessed(
    options: TrainingOptions, cohort: Cohort, tmp_path: Path
) -> None:
    other = make_cohort(tmp_path / "other")
    label = other.label_path("case0")
    label.write_bytes(other.label_path("case1").read_bytes() + b"\0")
    with pytest.raises(CohortError, match="not those that were preprocessed"):
        train(other, tiny(), 0, tmp_path / "results", options)


def test_nothing_is_printed_and_no_variable_stays(
    cohort: Cohort, options: TrainingOptions, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = dict(os.environ)
    train(cohort, tiny("epochs=1", "iterations=1"), 0, tmp_path, options)
    assert capfd.readouterr() == ("", "")
    assert dict(os.environ) == before


def test_a_loss_that_is_no_longer_a_number_ends_the_training(
    cohort: Cohort, options: TrainingOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer.Learner, "train_step", lambda self, batch: float("nan"))
    with pytest.raises(ExperimentError, match="no longer a number in epoch 1"):
        train(cohort, tiny("epochs=1", "iterations=1"), 0, tmp_path, options)
