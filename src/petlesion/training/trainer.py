"""One trainer for all experiments: nnU-Net's network, augmentation and schedule in a loop that resumes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from petlesion.cohort.layout import Cohort, Fold
from petlesion.errors import CohortError, ExperimentError, UsageError
from petlesion.experiments import Experiment
from petlesion.model.training_cases import write_split
from petlesion.training.augmentation import MIRROR_AXES, build_augmentation
from petlesion.training.checkpoint import (
    BEST_NAME,
    FINAL_NAME,
    LATEST_NAME,
    RECORDS,
    duplicate,
    load_checkpoint,
    random_states,
    restore_random_states,
    save_checkpoint,
)
from petlesion.training.initial_weights import InitialWeights
from petlesion.training.jsonfile import read_json
from petlesion.training.learner import Learner
from petlesion.training.losses import build_loss
from petlesion.training.nnunet import CONFIGURATION
from petlesion.training.planning import (
    INPUT_CHANNELS,
    build_network,
    plan_arrays,
    plan_experiment,
    select_input,
)
from petlesion.training.precision import Computation, choose_computation, choose_device, prepare_device
from petlesion.training.preprocessing import PreprocessedCohort
from petlesion.training.processes import Progress, available_cores
from petlesion.training.run import (
    PROGRESS_NAME,
    ProgressFile,
    Run,
    check_same_experiment,
    check_split,
    fold_folder,
    run_folder,
)
from petlesion.training.sampling import (
    Batch,
    Batches,
    Places,
    SelectedChannels,
    Stream,
    group_cases,
    iterate_batches,
    patch_loader,
    seed_everything,
)
from petlesion.training.uncertain import find_unsure
from petlesion.training.uptake import draw_uptake

_EMA_DECAY = 0.9
# The trainer whose network it is: stock nnU-Net looks it up by name to build the network anew.
_STOCK_TRAINER = "nnUNetTrainer"
_INITIALISATION = 2**31


def _no_progress(what: str, steps: int) -> AbstractContextManager[Callable[[], None]]:
    return nullcontext(lambda: None)


@dataclass(frozen=True)
class EpochReport:
    """What one epoch brought; `pseudo_dice` is over the patches drawn from held-out studies.

    `waited` is the share of the epoch's time in which the network waited for data; `seconds_left` the time
    that the epochs to come will take at the pace of this one.
    """

    epoch: int
    epochs: int
    train_loss: float
    val_loss: float
    pseudo_dice: float | None
    ema_pseudo_dice: float | None
    learning_rate: float
    seconds: float
    waited: float
    seconds_left: float


@dataclass(frozen=True)
class TrainingOptions:
    """How and where to compute; nothing here changes what is learnt, except for rounding."""

    device: str = "auto"
    preprocessed: Path | None = None
    processes: int | None = None
    on_epoch: Callable[[EpochReport], None] = lambda report: None
    say: Callable[[str], None] = lambda sentence: None
    progress: Progress = _no_progress


def train(
    cohort: Cohort,
    experiment: Experiment,
    fold: int,
    results: Path,
    options: TrainingOptions = TrainingOptions(),
) -> Path:
    """Train one fold of an experiment and return its folder; a killed training goes on from its last epoch.

    What is planned and preprocessed already is used again; a fold that is finished is left as it is. Raises
    UsageError for a fold or device that is not there, ExperimentError if the run was begun with other
    settings, CohortError if the cohort or its split has changed since or another process trains this fold.
    """
    folds = cohort.folds
    if fold not in range(len(folds)):
        raise UsageError(f"{cohort.folder}: there is no fold {fold}; choose one of 0 to {len(folds) - 1}")
    device = choose_device(options.device)
    folder = fold_folder(run_folder(results, cohort.name, experiment), fold)
    check_same_experiment(folder.parent, experiment)
    check_split(folder, folds[fold])
    if (folder / FINAL_NAME).exists():
        return folder
    if experiment.sampling == "uncertain":
        # Planning and preprocessing may take hours: what the earlier run lacks is told before.
        find_unsure(folder.parent, cohort, experiment, folds[fold]).check()
    initial = InitialWeights.of(experiment, fold)
    if initial is not None:
        initial.check_unseen((*folds[fold].validation, *(case.case_id for case in cohort.test_cases)))
        if initial.trained_on is None:
            options.say(
                f"{initial.path} does not tell which studies it was trained on: "
                "it cannot be checked that none of them is held out"
            )
    run, data_folder = prepare_run(cohort, experiment, results, options, initial)
    with run.lock(fold):
        if not (folder / LATEST_NAME).exists():
            write_split(folder, folds[fold], initial.trained_on if initial else frozenset())
        computation = choose_computation(device, experiment, run.plan, options.say)
        prepare_device(device)
        options.say(f"fold {fold}: {computation.describe()}")
        batches = build_batches(run, cohort, data_folder, fold, options)
        training = _Training(run, fold, computation, options.say)
        training.resume(initial)
        training.finish(batches, options)
    return folder


def prepare_run(
    cohort: Cohort,
    experiment: Experiment,
    results: Path,
    options: TrainingOptions,
    initial: InitialWeights | None,
) -> tuple[Run, Path]:
    """Plan and preprocess a cohort for an experiment; return its run and the folder of its arrays.

    `initial` are the weights that the experiment names, of any fold: all are of one plan.
    """
    processes = options.processes or available_cores()
    prepared = PreprocessedCohort.at(cohort, options.preprocessed or results / "preprocessed")
    with prepared.lock():
        plan = plan_arrays(prepared.plan(processes), experiment)
    dataset_json = read_json(cohort.folder / "dataset.json")
    if initial is not None:
        plan = initial.take_plan_over(plan, dataset_json)
    plan = plan_experiment(plan, experiment)
    run = Run(
        run_folder(results, cohort.name, experiment),
        experiment,
        *select_input(plan, dataset_json, experiment),
    )
    if initial is not None:
        # Preprocessing may take hours: weights that do not fit are told before.
        network = build_network(run.plan, run.dataset_json, deep_supervision=True)
        initial.load_into(network, run.plan, run.dataset_json)
    run.write()
    with prepared.lock():
        if missing := len(prepared.missing_cases(plan)):
            with options.progress("preprocessing", missing) as advance:
                prepared.preprocess(plan, processes, advance)
    return run, prepared.data_folder(plan)


def build_batches(
    run: Run,
    cohort: Cohort,
    data_folder: Path,
    number: int,
    options: TrainingOptions = TrainingOptions(),
) -> Batches:
    """All batches of the training of a cohort's fold, by number."""
    fold = cohort.folds[number]
    sources = {case.case_id: case.source for case in cohort.training_cases}
    experiment = run.experiment
    manager = PlansManager(run.plan)
    configuration = manager.get_configuration(CONFIGURATION)
    labels = manager.get_label_manager(run.dataset_json)
    augmentation = build_augmentation(configuration, mirroring=experiment.mirroring)
    channels = INPUT_CHANNELS[experiment.input]
    patch = tuple(configuration.patch_size)

    def loader(
        case_ids: tuple[str, ...], cut: tuple[int, ...], transforms: Any, places: Places
    ) -> nnUNetDataLoader:
        cases = SelectedChannels(data_folder, case_ids, channels, places)
        groups = group_cases(case_ids, sources, experiment.sampling)
        return patch_loader(cases, experiment, (cut, patch), labels, transforms, groups, places.shares)

    places = _training_places(run, cohort, data_folder, fold, options)
    training = loader(fold.train, augmentation.cut_size, augmentation.training, places)
    validation = loader(fold.validation, patch, augmentation.validation, Places())
    return Batches(
        Stream(training, experiment.iterations),
        Stream(validation, experiment.validation_iterations),
        (experiment.seed, number),
    )


def _training_places(
    run: Run, cohort: Cohort, data_folder: Path, fold: Fold, options: TrainingOptions
) -> Places:
    """Where the experiment draws a fold's patches to train on; draws the voxels that are not drawn yet."""
    experiment = run.experiment
    processes = options.processes or available_cores()
    places = Places()
    if experiment.sampling == "uncertain":
        found = find_unsure(run.folder, cohort, experiment, fold)
        found.draw(run.plan, data_folder, processes, options.progress)
        places = Places(found.centres, found.shares())
    elif experiment.oversampled_cases == "with_lesions":
        places = Places(shares=shares_of_lesion_cases(cohort, fold.train))
    if experiment.background == "uptake":
        uptake = draw_uptake(data_folder, fold.train, processes, options.progress)
        places = replace(places, uptake=uptake)
    return places


def shares_of_lesion_cases(cohort: Cohort, case_ids: Sequence[str]) -> dict[str, float]:
    """An equal share for each case with a lesion. Raises CohortError if none of the cases has one."""
    ids = set(case_ids)
    drawn = [case.case_id for case in cohort.training_cases if case.case_id in ids and case.has_lesion]
    if not drawn:
        raise CohortError(f"{cohort.folder}: no case of this fold has a lesion, so none can be oversampled")
    return dict.fromkeys(drawn, 1 / len(drawn))


class _Training:
    """The state of one fold's training: weights, optimizer, schedule and what the epochs brought."""

    def __init__(self, run: Run, fold: int, computation: Computation, say: Callable[[str], None]) -> None:
        experiment = run.experiment
        configuration = PlansManager(run.plan).get_configuration(CONFIGURATION)
        self.run = run
        self.fold = fold
        self.folder = fold_folder(run.folder, fold)
        seed_everything(experiment.seed, fold, _INITIALISATION)
        network = build_network(run.plan, run.dataset_json, deep_supervision=True)
        loss = build_loss(
            experiment.loss,
            batch_dice=configuration.batch_dice,
            outputs=len(configuration.pool_op_kernel_sizes) - 1,
        )
        self.learner = Learner(network, loss, experiment, computation, say)
        self.progress = ProgressFile(self.folder / PROGRESS_NAME)
        self.records: list[dict[str, Any]] = []
        self.best: float | None = None

    @property
    def device(self) -> torch.device:
        return self.learner.computation.device

    def resume(self, initial: InitialWeights | None) -> None:
        """Go back to the last checkpoint, or to the initial weights, if there are any."""
        path = self.folder / LATEST_NAME
        if path.exists():
            checkpoint = load_checkpoint(path, self.device)
            self.learner.restore(checkpoint)
            self.best = checkpoint["_best_ema"]
            restore_random_states(checkpoint["random_states"], self.device)
            self.records = checkpoint[RECORDS]
        elif initial is not None:
            initial.load_into(self.learner.network, self.run.plan, self.run.dataset_json)
        self.progress.rewrite(self.records)

    def finish(self, batches: Batches, options: TrainingOptions) -> None:
        """Train the epochs that are left and write the final checkpoint."""
        experiment = self.run.experiment
        numbers = range(len(self.records) * batches.per_epoch, experiment.epochs * batches.per_epoch)
        cuda = self.device.type == "cuda"
        workers = _worker_count(cuda)
        source = iterate_batches(batches, numbers, workers=workers, pin_memory=cuda)
        for epoch in range(len(self.records), experiment.epochs):
            report = self._epoch(epoch, source)
            self.records.append(asdict(report))
            self.progress.append(self.records[-1])
            self._save(report)
            options.on_epoch(report)
        duplicate(self.folder / LATEST_NAME, self.folder / FINAL_NAME)

    def _epoch(self, epoch: int, source: Iterator[Batch]) -> EpochReport:
        experiment = self.run.experiment
        clock = _Clock()
        self.learner.begin_epoch(epoch)
        train_losses = [self.learner.train_step(clock.wait_for(source)) for _ in range(experiment.iterations)]
        self.learner.begin_validation()
        counts = np.zeros(3)
        val_losses = []
        for _ in range(experiment.validation_iterations):
            loss, overlap = self.learner.validation_step(clock.wait_for(source))
            val_losses.append(loss)
            counts += overlap
        self._check_finite(epoch, train_losses + val_losses)
        seconds = clock.seconds
        pseudo_dice = float(2 * counts[0] / (2 * counts[0] + counts[1] + counts[2])) if counts.any() else None
        return EpochReport(
            epoch=epoch,
            epochs=experiment.epochs,
            train_loss=float(np.mean(train_losses)),
            val_loss=float(np.mean(val_losses)),
            pseudo_dice=pseudo_dice,
            ema_pseudo_dice=self._average(pseudo_dice),
            learning_rate=self.learner.learning_rate,
            seconds=seconds,
            waited=clock.waited / seconds,
            seconds_left=seconds * (experiment.epochs - epoch - 1),
        )

    def _check_finite(self, epoch: int, losses: list[float]) -> None:
        if not np.isfinite(losses).all():
            raise ExperimentError(
                f"{self.folder}: the loss is no longer a number in epoch {epoch + 1}; "
                "train into another results folder with a lower learning_rate"
            )

    def _average(self, pseudo_dice: float | None) -> float | None:
        """nnU-Net's running average of the pseudo Dice, by which the best checkpoint is chosen."""
        former = self.records[-1]["ema_pseudo_dice"] if self.records else None
        if pseudo_dice is None or former is None:
            return former if pseudo_dice is None else pseudo_dice
        return float(_EMA_DECAY * former + (1 - _EMA_DECAY) * pseudo_dice)

    def _save(self, report: EpochReport) -> None:
        average = report.ema_pseudo_dice
        is_best = average is not None and (self.best is None or average > self.best)
        if is_best:
            self.best = average
        save_checkpoint(self.folder / LATEST_NAME, self._checkpoint())
        if is_best or not (self.folder / BEST_NAME).exists():
            duplicate(self.folder / LATEST_NAME, self.folder / BEST_NAME)

    def _checkpoint(self) -> dict[str, Any]:
        """nnU-Net's entries, the records of all epochs and the random states."""
        return {
            **self.learner.state(),
            "logging": _as_nnunet_logs(self.records),
            RECORDS: self.records,
            "_best_ema": self.best,
            "current_epoch": len(self.records),
            "init_args": {
                "plans": self.run.plan,
                "configuration": CONFIGURATION,
                "fold": self.fold,
                "dataset_json": self.run.dataset_json,
            },
            "trainer_name": _STOCK_TRAINER,
            "inference_allowed_mirroring_axes": MIRROR_AXES if self.run.experiment.mirroring else None,
            "computation": self.learner.computation.describe(),
            "random_states": random_states(self.device),
        }


class _Clock:
    """Measures an epoch, and how much of it was spent waiting for batches."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.waited = 0.0

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def wait_for(self, source: Iterator[Batch]) -> Batch:
        started = time.perf_counter()
        batch = next(source)
        self.waited += time.perf_counter() - started
        return batch


def _worker_count(cuda: bool) -> int:
    """Processes that draw batches: on CUDA nnU-Net's dozen if there are cores for them, else one."""
    cores = available_cores()
    if not cuda:
        return 1 if cores > 1 else 0
    return max(1, min(12, cores - 1))


def _as_nnunet_logs(records: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """The records in the form of nnU-Net's logger, which its checkpoints hold."""
    nan = float("nan")
    dice = [nan if record["pseudo_dice"] is None else record["pseudo_dice"] for record in records]
    ema = [nan if record["ema_pseudo_dice"] is None else record["ema_pseudo_dice"] for record in records]
    seconds = np.array([record["seconds"] for record in records])
    ends = np.cumsum(seconds)
    return {
        "mean_fg_dice": dice,
        "ema_fg_dice": ema,
        "dice_per_class_or_region": [[value] for value in dice],
        "train_losses": [record["train_loss"] for record in records],
        "val_losses": [record["val_loss"] for record in records],
        "lrs": [record["learning_rate"] for record in records],
        "epoch_start_timestamps": (ends - seconds).tolist(),
        "epoch_end_timestamps": ends.tolist(),
    }
