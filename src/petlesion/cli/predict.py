"""petlesion predict: a cohort's test set, or what cross-validation held out."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from petlesion.cli.batch import try_overlapped
from petlesion.cli.console import say
from petlesion.cli.prediction_options import (
    DEVICE_OPTION,
    FOLDS_OPTION,
    MIRROR_OPTION,
    PRECISION_OPTION,
    STEP_OPTION,
    TILES_OPTION,
    folds_of,
)
from petlesion.errors import CohortError, FormatError, GeometryError, UsageError
from petlesion.io.jsonfile import load_json
from petlesion.model.held_out import PROBABILITIES, RECORD

if TYPE_CHECKING:
    from petlesion.cohort.layout import Cohort
    from petlesion.inference.predict import Model, PredictionSettings, PreparedStudy
    from petlesion.volume import Volume


def predict(
    model: Path = typer.Argument(..., help="A run, a bundle, or any nnU-Net v2 model folder."),
    cohort: Path = typer.Argument(..., help="Folder of the cohort."),
    output: Path = typer.Option(..., "-o", "--output", help="Folder that gets one mask per study."),
    held_out: bool = typer.Option(
        False, "--held-out", help="Predict each training study by the fold that did not see it."
    ),
    folds: str | None = FOLDS_OPTION,
    device: str = DEVICE_OPTION,
    precision: str = PRECISION_OPTION,
    tiles: str = TILES_OPTION,
    step: float = STEP_OPTION,
    mirror: bool | None = MIRROR_OPTION,
    fold_average: str = typer.Option(
        "logits",
        "--fold-average",
        help="What is averaged over folds: logits, as stock nnU-Net, or probabilities.",
    ),
    probabilities: bool = typer.Option(False, "--probabilities", help="Write OUTPUT/probabilities too."),
) -> None:
    """Predict a cohort's test set, folds averaged, or what cross-validation held out (--held-out).

    Writes OUTPUT/CASE.nii.gz (0/1). What is there already is skipped.
    """
    from petlesion.cohort.layout import Cohort
    from petlesion.inference.predict import PredictionSettings, load_model

    settings = PredictionSettings(tiles, step, mirror, fold_average)
    opened = Cohort.open(cohort)
    loaded = load_model(model, folds_of(folds), device, precision)
    assignments = list(held_out_tasks(opened, loaded) if held_out else _test_set(opened, loaded))
    check_unseen(opened, loaded, assignments)
    _record_settings(output, loaded, settings, held_out)
    target = _Target(opened, output, probabilities)
    missing = [task for task in assignments if not target.is_done(task.case_id)]
    if len(missing) < len(assignments):
        say(f"{len(assignments) - len(missing)} of {len(assignments)} studies were predicted before")
    try:
        _predict_all(missing, target, settings)
    except KeyboardInterrupt:
        target.remove_unfinished([task.case_id for task in missing])
        raise


@dataclass(frozen=True)
class Task:
    """A study and the model (all folds, or the one that did not see it) that predicts it."""

    case_id: str
    model: Model


@dataclass(frozen=True)
class _Target:
    """Where predictions of a cohort's studies go."""

    cohort: Cohort
    output: Path
    probabilities: bool

    @property
    def folders(self) -> list[Path]:
        """Of masks and, if wanted, of probabilities."""
        return [self.output, *([self.output / PROBABILITIES] if self.probabilities else [])]

    def files(self, case_id: str) -> list[Path]:
        """Mask and, if wanted, probability."""
        return [folder / f"{case_id}.nii.gz" for folder in self.folders]

    def is_done(self, case_id: str) -> bool:
        """Whether all files are there, readable and on the PET's grid."""
        from petlesion.io.nifti import read_grid

        try:
            written = [read_grid(path) for path in self.files(case_id)]
        except (FormatError, GeometryError):
            return False
        pet = read_grid(self.cohort.image_path(case_id, 1))
        return all(grid.matches(pet) for grid in written)

    def write(self, case_id: str, probability: Volume) -> None:
        """Write mask and, if wanted, probability; each whole or not at all."""
        import numpy as np

        from petlesion.inference.predict import LESION_PROBABILITY
        from petlesion.io.nifti import write_probability, write_volume

        mask_file, *probability_files = self.files(case_id)
        write_volume(
            mask_file, probability.with_array((probability.array > LESION_PROBABILITY).astype(np.uint8))
        )
        for path in probability_files:
            write_probability(path, probability)

    def remove_unfinished(self, case_ids: Sequence[str]) -> None:
        """Remove what an interrupted writer left under temporary names."""
        from petlesion.io.atomic import remove_unfinished

        for folder in self.folders:
            remove_unfinished(folder, [f"{case_id}.nii.gz" for case_id in case_ids])


def _predict_all(tasks: Sequence[Task], target: _Target, settings: PredictionSettings) -> None:
    """Predict each task while the next one is read and the last one is written."""
    from petlesion.inference.predict import predict_prepared, prepare_study

    def prepare(task: Task) -> PreparedStudy:
        return prepare_study(target.cohort.read_study(task.case_id), task.model, settings)

    def compute(task: Task, prepared: PreparedStudy) -> Callable[[], None]:
        probability = predict_prepared(prepared).probability
        return partial(target.write, task.case_id, probability)

    named = [(task.case_id, task) for task in tasks]
    try_overlapped("predicting", named, prepare, compute).end()


def _test_set(cohort: Cohort, model: Model) -> Iterator[Task]:
    if not cohort.test_cases:
        raise CohortError(
            f"{cohort.folder} has no test set; split it, or predict its held-out studies with --held-out"
        )
    for case in cohort.test_cases:
        yield Task(case.case_id, model)


def held_out_tasks(cohort: Cohort, model: Model) -> Iterator[Task]:
    """Each study of a fold's validation set, with that fold's network alone."""
    predicted = False
    for number, fold in enumerate(cohort.folds):
        members = tuple(
            replace(member, networks={str(number): member.networks[str(number)]})
            for member in model.members
            if str(number) in member.networks
        )
        if len(members) == len(model.members):
            predicted = True
            for case_id in fold.validation:
                yield Task(case_id, replace(model, members=members))
        else:
            say(f"fold {number} is not trained: its {len(fold.validation)} studies are left out")
    if not predicted:
        raise CohortError(f"the model has none of the folds of {cohort.folder}; train one first")


def check_unseen(cohort: Cohort, model: Model, tasks: Sequence[Task]) -> None:
    """Refuse a study that its model was trained on, or another of whose patient it was trained on."""
    if not model.knows_its_training_cases:
        say(
            f"{model.name} does not tell which studies it was trained on: "
            "it cannot be checked that none of them is predicted"
        )
    patient_of = {case.case_id: case.patient_id for case in cohort.cases}
    studies_of: dict[str, list[str]] = defaultdict(list)
    for case_id, patient in patient_of.items():
        studies_of[patient].append(case_id)
    seen = [task.case_id for task in tasks if task.model.has_seen(studies_of[patient_of[task.case_id]])]
    if seen:
        raise CohortError(
            f"{cohort.folder}: {model.name} was trained on {len(seen)} of the {len(tasks)} studies to be "
            f"predicted, or on others of their patients (the first is {seen[0]}); "
            "restore the split that it was trained with, or train anew"
        )


def _record_settings(output: Path, model: Model, settings: PredictionSettings, held_out: bool) -> None:
    """Keep what the folder's masks were made with; refuse to mix them with others."""
    from petlesion.io.atomic import write_text

    record: dict[str, Any] = {
        "model": model.name,
        "weights_sha256": model.fingerprint,
        "precision": model.precision,
        "held_out": held_out,
        "folds": [sorted(member.networks) for member in model.members],
        **asdict(settings),
    }
    path = output / RECORD
    if not path.is_file():
        _check_no_masks(output)
        write_text(path, json.dumps(record, indent=2) + "\n")
        return
    try:
        earlier = load_json(path)
    except ValueError:
        earlier = None
    if earlier != record:
        raise UsageError(
            f"{output} holds predictions of another model or other settings; choose another folder"
        )


def _check_no_masks(output: Path) -> None:
    foreign = sorted(output.glob("*.nii.gz"))
    if foreign:
        raise UsageError(
            f"{foreign[0]} was not predicted here, as there is no {RECORD} beside it; choose another folder"
        )
