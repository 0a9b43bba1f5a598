"""`petlesion segment`: studies in; masks, measures and a report out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from petlesion.cli.batch import Failures, try_overlapped
from petlesion.cli.console import print_json, progress, say
from petlesion.errors import UsageError

if TYPE_CHECKING:
    from petlesion.inference.predict import OnTile, PreparedStudy
    from petlesion.intake import SourceImages, StudySource
    from petlesion.outputs import OutputSettings, RunFacts
    from petlesion.pipeline import Segmentation, SegmentationSettings
    from petlesion.records import SourceMark
    from petlesion.volume import Study


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
    folds: str | None = typer.Option(None, "--folds", help="Folds to average, such as 0,1. [default: all]"),
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
    device: str = typer.Option("auto", "--device", help="auto, cpu, cuda or mps."),
    precision: str = typer.Option("auto", "--precision", help="auto, float32 or bfloat16."),
    tiles: str = typer.Option("body", "--tiles", help="Where the network looks: body or full."),
    step: float = typer.Option(0.5, "--step", help="Distance of neighbouring tiles, in patches."),
    mirror: bool | None = typer.Option(
        None, "--mirror/--no-mirror", help="Average over mirrored passes. [default: as trained]"
    ),
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
    models = _Models(model, folds.split(",") if folds else None, device, precision, settings, outputs)
    if model is not None:
        models.facts(has_ct=True)
    job = _Job(models, output, shows_tiles=len(sources) == 1)
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


@dataclass(frozen=True)
class _Models:
    """The model that was given for all studies, or those in the box, each loaded when first needed."""

    path: Path | None
    folds: list[str] | None
    device: str
    precision: str
    settings: SegmentationSettings
    outputs: OutputSettings
    loaded: dict[bool, RunFacts] = field(default_factory=dict)

    def facts(self, *, has_ct: bool) -> RunFacts:
        """What decides the files of a study with or without CT."""
        in_box = self.path is None
        kind = has_ct and in_box
        if kind not in self.loaded:
            self.loaded[kind] = self._load(self.path or _from_box(has_ct=has_ct))
        return self.loaded[kind]

    def finished(self, record: dict[str, Any], folder: Path, mark: SourceMark) -> bool:
        """Whether a record tells that all was done as it would be done now."""
        from petlesion.records import is_finished

        choices = (True,) if self.path is not None else (True, False)
        return any(
            is_finished(record, folder, mark, run=self.facts(has_ct=has_ct).as_json()) for has_ct in choices
        )

    def _load(self, path: Path) -> RunFacts:
        from petlesion.inference.predict import load_model
        from petlesion.outputs import RunFacts

        model = load_model(path, self.folds, self.device, self.precision)
        return RunFacts(model, self.settings.for_model(model), self.outputs)


def _from_box(*, has_ct: bool) -> Path:
    from petlesion.model.boxed import boxed_bundle

    bundle = boxed_bundle(has_ct=has_ct)
    kind = "PET/CT" if has_ct else "PET without CT"
    say(f"No --model: studies of {kind} go to the model in the box. For research use only.")
    return bundle


@dataclass(frozen=True)
class _Job:
    """What is done with each study; `records` gathers what was written."""

    models: _Models
    output: Path
    shows_tiles: bool
    records: list[dict[str, Any]] = field(default_factory=list)

    def run(self, sources: Sequence[StudySource]) -> Failures:
        """Write each study's folder while the next one is read, except for what an earlier run has done."""
        from petlesion.io.atomic import remove_unfinished

        named = [(source.name, source) for source in sources]
        try:
            return try_overlapped("segmenting", named, self._prepare, self._compute)
        except KeyboardInterrupt:
            for source in sources:
                remove_unfinished(self.output / source.name)
            raise

    def _prepare(self, source: StudySource) -> _Ready:
        from petlesion.inference.predict import prepare_study
        from petlesion.intake import read_source, to_study
        from petlesion.outputs import RECORD
        from petlesion.records import earlier_record, mark_of

        if source.problem is not None:
            raise source.problem
        folder, mark = self.output / source.name, mark_of(source)
        record = earlier_record(folder, RECORD, source)
        if record is not None and self.models.finished(record, folder, mark):
            return _Ready(folder, mark, record)
        images = read_source(source)
        study = to_study(images)
        facts = self.models.facts(has_ct=study.ct is not None)
        prepared = prepare_study(study, facts.model, facts.settings.prediction)
        return _Ready(folder, mark, inputs=_Inputs(images, study, prepared, facts))

    def _compute(self, source: StudySource, ready: _Ready) -> Callable[[], None]:
        from petlesion.inference.predict import predict_prepared
        from petlesion.pipeline import segmentation_of

        if ready.inputs is None:
            return partial(self._keep, source, ready)
        inputs = ready.inputs
        with ExitStack() as displays:
            on_tile = _tile_display(displays) if self.shows_tiles else _ignore_tile
            prediction = predict_prepared(
                inputs.prepared, on_tile, with_uncertainty=inputs.facts.with_uncertainty
            )
        settings, calibration = inputs.facts.settings, inputs.facts.calibration
        segmentation = segmentation_of(inputs.study, prediction, settings, calibration)
        result = _Result(inputs.images, segmentation, inputs.facts)
        return partial(self._write, source, replace(ready, inputs=None), result)

    def _write(self, source: StudySource, ready: _Ready, result: _Result) -> None:
        from petlesion.io.atomic import atomic_folder
        from petlesion.outputs import flag_of, write_outputs

        with atomic_folder(ready.folder) as temporary:
            record = write_outputs(temporary, result.segmentation, result.images, result.facts, ready.mark)
        flag = flag_of(record["doubts"])
        for warning in [*record["warnings"], *([flag] if flag else [])]:
            say(f"{source.name}: {warning}")
        self._note(source, ready, record, _in_words(record["lesions"]))

    def _keep(self, source: StudySource, ready: _Ready) -> None:
        assert ready.record is not None
        self._note(source, ready, ready.record, f"done before, {_in_words(ready.record['lesions'])}")

    def _note(self, source: StudySource, ready: _Ready, record: dict[str, Any], words: str) -> None:
        say(f"{source.name}: {words}")
        self.records.append({"study": source.name, "folder": str(ready.folder), **record})


@dataclass(frozen=True)
class _Inputs:
    """A study as read and as prepared for the networks, and what decides its files."""

    images: SourceImages
    study: Study
    prepared: PreparedStudy
    facts: RunFacts


@dataclass(frozen=True)
class _Result:
    """What is written of a study; what its networks took is free again by then."""

    images: SourceImages
    segmentation: Segmentation
    facts: RunFacts


@dataclass(frozen=True)
class _Ready:
    """A study's folder and mark, with the record of an earlier run, or with what the network needs."""

    folder: Path
    mark: SourceMark
    record: dict[str, Any] | None = None
    inputs: _Inputs | None = None


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


def _tile_display(displays: ExitStack) -> OnTile:
    """A bar over the tiles, whose number is known when the first one is done."""
    advance = None

    def on_tile(done: int, total: int) -> None:
        nonlocal advance
        if advance is None:
            advance = displays.enter_context(progress("segmenting", total))
        advance()

    return on_tile


def _ignore_tile(done: int, total: int) -> None:
    pass


def _in_words(totals: dict[str, Any]) -> str:
    if totals["count"] == 0:
        return "no lesion found"
    noun = "lesion" if totals["count"] == 1 else "lesions"
    volume, glycolysis = totals["metabolic_tumour_volume_ml"], totals["total_lesion_glycolysis"]
    return f"{totals['count']} {noun}, {volume:.1f} mL, total lesion glycolysis {glycolysis:.0f}"
