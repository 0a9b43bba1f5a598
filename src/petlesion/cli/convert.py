"""`petlesion convert`: DICOM to CT, CTres, SUV and SEG as NIfTI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from petlesion.cli.batch import run_batch
from petlesion.cli.console import print_json, say

if TYPE_CHECKING:
    from petlesion.intake import SourceImages, StudySource
    from petlesion.records import SourceMark

_RECORD = "conversion.json"


def convert(
    studies: list[Path] = typer.Argument(..., help="DICOM folders or zips, or folders of either."),
    out: Path = typer.Option(..., "--out", "-o", help="Folder that gets one folder per study."),
    keep_identity: bool = typer.Option(
        False, "--keep-identity", help="Name studies by PatientID and date instead of a hash."
    ),
    pet_series: str | None = typer.Option(
        None, "--pet-series", help="SeriesInstanceUID of the PET, where a study has several."
    ),
    roi: str | None = typer.Option(
        None,
        "--roi",
        help="Name of the structure or segment that is the reference.",
    ),
    as_json: bool = typer.Option(False, "--json", help="Print what was done as JSON."),
) -> None:
    """Write each study's SUV, CT, CT on the PET's grid and reference lesions as NIfTI."""
    from petlesion.intake import IntakeOptions, find_studies
    from petlesion.io.atomic import check_place

    options = IntakeOptions(keep_identity, pet_series, roi)
    sources = find_studies(studies, options, out)
    check_place(out)
    done: list[dict[str, Any]] = []

    def work(source: StudySource) -> None:
        done.append(_convert_study(source, out))

    try:
        run_batch("convert", [(source.name, source) for source in sources], work)
    finally:
        if as_json:
            print_json(done)


def _convert_study(source: StudySource, out: Path) -> dict[str, Any]:
    from petlesion.intake import read_source
    from petlesion.records import earlier_record, is_finished, mark_of

    if source.problem is not None:
        raise source.problem
    folder, mark = out / source.name, mark_of(source)
    record = earlier_record(folder, _RECORD, source)
    if record is None or not is_finished(record, folder, mark):
        images = read_source(source)
        record = _write(folder, images, mark)
        for warning in images.warnings:
            say(f"{source.name}: {warning}")
    return {"study": source.name, "folder": str(folder), **record}


def _write(folder: Path, images: SourceImages, mark: SourceMark) -> dict[str, Any]:
    import json
    from dataclasses import asdict

    from petlesion._version import __version__
    from petlesion.intake import ct_on_grid_of
    from petlesion.io.atomic import atomic_folder, write_text
    from petlesion.io.nifti import write_volume

    volumes = {"SUV": images.pet}
    if images.ct is not None:
        volumes |= {"CT": images.ct, "CTres": ct_on_grid_of(images.pet, images.ct)}
    if images.reference is not None:
        volumes["SEG"] = images.reference
    record: dict[str, Any] = {
        "petlesion": __version__,
        "source": asdict(mark),
        "files": [f"{name}.nii.gz" for name in volumes],
        "warnings": list(images.warnings),
    }
    if images.conversion is not None:
        record["factors"] = list(images.conversion.factors)
        record["derived_from"] = dict(images.conversion.facts)
    with atomic_folder(folder) as temporary:
        for name, volume in volumes.items():
            write_volume(temporary / f"{name}.nii.gz", volume)
        write_text(temporary / _RECORD, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return record
