"""`petlesion segment`: studies in; masks, measures and a report out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from petlesion.cli.batch import Failures
from petlesion.cli.console import print_json
from petlesion.cli.prediction_options import (
    DEVICE_OPTION,
    FOLDS_OPTION,
    MIRROR_OPTION,
    PRECISION_OPTION,
    STEP_OPTION,
    TILES_OPTION,
    folds_of,
)
from petlesion.cli.segment_job import Models, SegmentationJob
from petlesion.errors import UsageError

if TYPE_CHECKING:
    from petlesion.intake import StudySource


def segment(
    studies: list[Path] = typer.Argument(
        ..., help="DICOM folders or zips, PET and CT as NIfTI, MHA or NRRD, or folders of either."
    ),
    output: Path = typer.Option(..., "--output", "-o", help="Folder that gets one folder per study."),
    model: Path | None = typer.Option(
        None,
        "--model",
        "-m",
        help="A bundle, a run, or any nnU-Net v2 model folder."
        "  [default: the model in the box, where there is one]",
    ),
    folds: str | None = FOLDS_OPTION,
    min_size: int | None = typer.Option(None, "--min-size", min=0, help="Remove components below VOXELS."),
    min_volume: float | None = typer.Option(
        None, "--min-volume", min=0.0, help="Remove components below ML. [default: the model's own, or 0.124]"
    ),
    min_confidence: float | None = typer.Option(
        None, "--min-confidence", min=0.0, max=1.0, help="Remove components below this confidence."
    ),
    probability: bool = typer.Option(False, "--probability", help="Write probability.nii.gz too."),
    uncertainty: bool = typer.Option(
        False, "--uncertainty", help="Write uncertainty.nii.gz (entropy in bits) and show it in the report."
    ),
    png: bool = typer.Option(False, "--png", help="Write projections.png too."),
    gif: bool = typer.Option(False, "--gif", help="Write projections.gif, which turns, too."),
    dicom_seg: bool = typer.Option(
        False, "--dicom-seg", help="Write a DICOM SEG and a measurement report too; DICOM studies only."
    ),
    per_lesion: bool = typer.Option(False, "--per-lesion", help="A segment per lesion in the SEG."),
    fractional: bool = typer.Option(False, "--fractional", help="Probabilities in the SEG."),
    device: str = DEVICE_OPTION,
    precision: str = PRECISION_OPTION,
    tiles: str = TILES_OPTION,
    step: float = STEP_OPTION,
    mirror: bool | None = MIRROR_OPTION,
    keep_identity: bool = typer.Option(
        False, "--keep-identity", help="Name DICOM studies by PatientID and date instead of a hash."
    ),
    pet_series: str | None = typer.Option(
        None, "--pet-series", help="SeriesInstanceUID of the PET, where a study has several."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the results as JSON."),
) -> None:
    """Find and measure the lesions of PET/CT studies. For research use only."""
    from petlesion.inference.predict import PredictionSettings
    from petlesion.intake import IntakeOptions, find_studies
    from petlesion.io.atomic import check_place
    from petlesion.outputs import OutputSettings
    from petlesion.pipeline import SegmentationSettings

    if min_size is not None and min_volume is not None:
        raise UsageError("--min-size and --min-volume are two measures of one thing; give one of them")
    settings = SegmentationSettings(
        min_voxels=min_size,
        min_volume_ml=min_volume,
        prediction=PredictionSettings(tiles, step, mirror),
        min_confidence=min_confidence,
    )
    dicom = _segments(dicom_seg, per_lesion, fractional)
    outputs = OutputSettings(probability, uncertainty, png, gif, dicom)
    sources = find_studies(studies, IntakeOptions(keep_identity, pet_series), output)
    check_place(output)
    models = Models(model, folds_of(folds), device, precision, settings, outputs)
    if model is not None:
        models.facts(has_ct=True)
    job = SegmentationJob(models, output, shows_steps=len(sources) == 1)
    failures = job.run(sources)
    if len(sources) > 1 and job.records:
        _write_page(output, job.records, _shareable(failures, sources))
    if as_json:
        print_json(job.records)
    failures.end()


def _segments(dicom_seg: bool, per_lesion: bool, fractional: bool) -> str | None:
    if (per_lesion or fractional) and not dicom_seg:
        raise UsageError("--per-lesion and --fractional say what a DICOM SEG holds; give --dicom-seg too")
    if per_lesion and fractional:
        raise UsageError(
            "a DICOM SEG holds either lesions or probabilities; give --per-lesion or --fractional"
        )
    if not dicom_seg:
        return None
    return "per-lesion" if per_lesion else "fractional" if fractional else "one"


def _shareable(failures: Failures, sources: Sequence[StudySource]) -> list[tuple[str, str]]:
    """What failed and why, for a page that is handed on: of DICOM the kind of error alone, without a path."""
    from_images = {source.name for source in sources if source.files}
    return [
        (name, reason if name in from_images else str(type(error).__doc__))
        for (name, reason), (_, error) in zip(failures.reasons, failures.errors, strict=True)
    ]


def _write_page(output: Path, records: Sequence[dict[str, Any]], failures: Sequence[tuple[str, str]]) -> None:
    """Write cohort.html, the page of a batch."""
    from petlesion.outputs import flag_of
    from petlesion.report.cohort import CohortFacts, CohortRow, write_cohort_report

    rows = [
        CohortRow(
            case_id=record["study"],
            volume_ml=record["lesions"]["metabolic_tumour_volume_ml"],
            lesions=record["lesions"]["count"],
            report=output / record["study"] / "report.html",
            note=" ".join([*record["warnings"], *filter(None, [flag_of(record["doubts"])])]) or None,
        )
        for record in records
    ]
    facts = CohortFacts(created=max(record["created"] for record in records), title="Segmented studies")
    write_cohort_report(output / "cohort.html", rows, failures, facts)
