"""petlesion model calibrate: probabilities that keep their word, fitted on held-out studies."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from petlesion.cli.batch import try_overlapped
from petlesion.cli.console import print_json, say
from petlesion.cli.predict import Task, check_unseen, held_out_tasks
from petlesion.cli.prediction_options import (
    DEVICE_OPTION,
    FOLDS_OPTION,
    MIRROR_OPTION,
    PRECISION_OPTION,
    STEP_OPTION,
    TILES_OPTION,
    folds_of,
)
from petlesion.cli.tables import FORMAT_OPTION, JSON_OPTION, show_table
from petlesion.errors import FormatError, UsageError
from petlesion.io.jsonfile import load_json

if TYPE_CHECKING:
    from petlesion.calibration.evidence import Evidence
    from petlesion.cohort.layout import Cohort
    from petlesion.inference.predict import Model, PredictionSettings, PreparedStudy
    from petlesion.volume import Study

_RECORD = "evidence.json"


def calibrate(
    model: Path = typer.Argument(..., help="A bundle, or a run; its calibration is replaced."),
    cohort: Path = typer.Argument(..., help="Folder of the cohort that it was trained on."),
    output: Path = typer.Option(..., "-o", "--output", help="Folder that keeps what each study tells."),
    folds: str | None = FOLDS_OPTION,
    device: str = DEVICE_OPTION,
    precision: str = PRECISION_OPTION,
    tiles: str = TILES_OPTION,
    step: float = STEP_OPTION,
    mirror: bool | None = MIRROR_OPTION,
    style: str = FORMAT_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Calibrate a model on its held-out studies, each predicted by the folds that did not see it.

    The scores that are shown come from inner folds by patient. What is there already is not predicted again.
    """
    from petlesion.calibration.cross_fit import cross_fitted
    from petlesion.calibration.stored import fit_calibration
    from petlesion.cohort.layout import Cohort
    from petlesion.evaluation.confidence_tables import confidence_table, scores_as_json
    from petlesion.inference.predict import PredictionSettings, load_model
    from petlesion.model.calibrated import write_calibration

    settings = PredictionSettings(tiles, step, mirror)
    opened = Cohort.open(cohort)
    loaded = load_model(model, folds_of(folds), device, precision)
    tasks = list(held_out_tasks(opened, loaded))
    check_unseen(opened, loaded, tasks)
    evidence = gather(EvidenceFolder(output, opened, loaded, settings), tasks)
    patients = {case.case_id: case.patient_id for case in opened.cases}
    judged = cross_fitted(evidence, patients)
    sources = {**_sources(opened, loaded, settings, tasks), "scores": scores_as_json(judged, patients)}
    calibration = fit_calibration(evidence, sources)
    write_calibration(model, calibration.as_json(), loaded.fingerprint)
    if as_json:
        print_json(calibration.as_json())
    else:
        show_table(confidence_table(judged, patients), style)
        say(f"{model}: calibrated on {len(evidence)} held-out studies")


@dataclass(frozen=True)
class EvidenceFolder:
    """Where the evidence of a cohort's studies goes, and what it is gathered with.

    Without uncertainty, passes are not told apart: as a calibration judges that saw a single one.
    """

    folder: Path
    cohort: Cohort
    model: Model
    settings: PredictionSettings
    with_uncertainty: bool = True

    def path(self, case_id: str) -> Path:
        """File of a study's evidence."""
        return self.folder / f"{case_id}.npz"

    def source(self, case_id: str) -> str:
        """Where the cohort has a study from."""
        case = self.cohort.find(case_id)
        assert case is not None
        return case.source

    def begin(self) -> None:
        """Keep what the evidence is gathered with; refuse a folder with that of another model or settings."""
        from petlesion.io.atomic import check_place, write_text

        record = {
            "cohort": self.cohort.name,
            "weights_sha256": self.model.fingerprint,
            "precision": self.model.precision,
            "with_uncertainty": self.with_uncertainty,
            "folds": [sorted(member.networks) for member in self.model.members],
            **asdict(self.settings),
        }
        path = self.folder / _RECORD
        if not path.is_file():
            check_place(self.folder)
            write_text(path, json.dumps(record, indent=2) + "\n")
        elif _read_record(path) != record:
            raise UsageError(
                f"{self.folder} holds evidence of another model, cohort or settings; choose another folder"
            )

    def read(self, case_id: str) -> Evidence | None:
        """A study's evidence, if it is there and sound."""
        from petlesion.calibration.evidence import read_evidence

        try:
            return read_evidence(self.path(case_id))
        except FormatError:
            return None


def gather(target: EvidenceFolder, tasks: Sequence[Task]) -> list[Evidence]:
    """The evidence of each task's study, predicted with uncertainty where it is not there yet.

    Ends the command with its exit status if a study fails.
    """
    target.begin()
    found: dict[str, Evidence] = {}
    for task in tasks:
        evidence = target.read(task.case_id)
        if evidence is not None:
            found[task.case_id] = evidence
    if found:
        say(f"{len(found)} of {len(tasks)} studies were predicted before")
    missing = [(task.case_id, task) for task in tasks if task.case_id not in found]
    if missing:
        try_overlapped(
            "predicting", missing, partial(_prepare, target), partial(_compute, target, found)
        ).end()
    return [found[task.case_id] for task in tasks]


def _prepare(target: EvidenceFolder, task: Task) -> tuple[Study, PreparedStudy]:
    from petlesion.inference.predict import prepare_study

    study = target.cohort.read_study(task.case_id)
    return study, prepare_study(study, task.model, target.settings)


def _compute(
    target: EvidenceFolder, found: dict[str, Evidence], task: Task, inputs: tuple[Study, PreparedStudy]
) -> Callable[[], None]:
    from petlesion.calibration.evidence import gather_evidence, write_evidence
    from petlesion.inference.predict import predict_prepared

    study, prepared = inputs
    prediction = predict_prepared(prepared, with_uncertainty=target.with_uncertainty)
    found[task.case_id] = gather_evidence(study, prediction, target.source(task.case_id))
    return partial(write_evidence, target.path(task.case_id), found[task.case_id])


def _sources(
    cohort: Cohort, model: Model, settings: PredictionSettings, tasks: Sequence[Task]
) -> dict[str, Any]:
    """What a calibration was fitted on; studies by digests of their ids, so that no name travels along."""
    from petlesion.model.training_cases import case_digests

    return {
        "cohort": cohort.name,
        "how": "held-out studies of cross-validation, each predicted by its own fold's networks",
        "studies": len(tasks),
        "studies_sha256": sorted(case_digests(task.case_id for task in tasks)),
        "weights_sha256": model.fingerprint,
        "precision": model.precision,
        "prediction": asdict(settings),
    }


def _read_record(path: Path) -> Any:
    try:
        return load_json(path)
    except ValueError:
        return None
