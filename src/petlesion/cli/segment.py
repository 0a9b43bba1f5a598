"""`petlesion segment`: studies in; masks, measures and a report out."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from petlesion.cli.batch import run_batch
from petlesion.cli.console import print_json, progress, say
from petlesion.errors import UsageError

if TYPE_CHECKING:
    from petlesion.inference.predict import Model, OnTile
    from petlesion.intake import StudySource
    from petlesion.pipeline import SegmentationSettings

_RECORD = "run.json"


def segment(
    studies: list[Path] = typer.Argument(
        ..., help="DICOM folders or zips, PET and CT as NIfTI, MHA or NRRD, or folders of either."
    ),
    output: Path = typer.Option(..., "--output", "-o", help="Folder that gets one folder per study."),
    model: Path = typer.Option(..., "--model", "-m", help="A bundle, a run, or any nnU-Net v2 model folder."),
    folds: str | None = typer.Option(None, "--folds", help="Folds to average, such as 0,1. [default: all]"),
    min_size: int | None = typer.Option(None, "--min-size", min=0, help="Remove components below VOXELS."),
    min_volume: float | None = typer.Option(
        None, "--min-volume", min=0.0, help="Remove components below ML. [default: 0.124]"
    ),
    probability: bool = typer.Option(False, "--probability", help="Write probability.nii.gz too."),
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
    from petlesion.inference.predict import PredictionSettings, load_model
    from petlesion.intake import IntakeOptions, find_studies
    from petlesion.pipeline import DEFAULT_MIN_VOLUME_ML, SegmentationSettings

    if min_size is not None and min_volume is not None:
        raise UsageError("--min-size and --min-volume are two measures of one thing; give one of them")
    settings = SegmentationSettings(
        min_voxels=min_size,
        min_volume_ml=DEFAULT_MIN_VOLUME_ML if min_volume is None else min_volume,
        prediction=PredictionSettings(tiles, step, mirror),
    )
    sources = find_studies(studies, IntakeOptions(keep_identity, pet_series))
    network = load_model(model, folds.split(",") if folds else None, device, precision)
    job = _Job(network, settings, output, probability, shows_tiles=len(sources) == 1)
    try:
        run_batch("segmenting", [(source.name, source) for source in sources], job.run)
    finally:
        if as_json:
            print_json(job.records)


@dataclass(frozen=True)
class _Job:
    """What is done with each study; `records` gathers what was written."""

    model: Model
    settings: SegmentationSettings
    output: Path
    probability: bool
    shows_tiles: bool
    records: list[dict[str, Any]] = field(default_factory=list)

    def run(self, source: StudySource) -> None:
        """Segment a study and write its folder, unless an earlier run has done just that."""
        from petlesion.intake import read_source, to_study
        from petlesion.io.atomic import atomic_folder
        from petlesion.pipeline import describe_run, segment, write_segmentation

        folder = self.output / source.name
        wanted = describe_run(self.model, self.settings, with_probability=self.probability)
        record = _finished(folder, wanted)
        if record is None:
            images = read_source(source)
            study = to_study(images)
            with ExitStack() as displays:
                on_tile = _tile_display(displays) if self.shows_tiles else _ignore_tile
                segmentation = segment(study, self.model, self.settings, on_tile)
            with atomic_folder(folder) as temporary:
                record = write_segmentation(temporary, segmentation, images.conversion, wanted)
            for warning in record["warnings"]:
                say(f"{source.name}: {warning}")
            say(f"{source.name}: {_in_words(record['lesions'])}")
        self.records.append({"study": source.name, "folder": str(folder), **record})


def _finished(folder: Path, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """The record of an earlier run with the same model and settings whose files are all there."""
    try:
        record: dict[str, Any] = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        same = record["run"] == wanted
        whole = all((folder / name).is_file() for name in record["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record if same and whole else None


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
