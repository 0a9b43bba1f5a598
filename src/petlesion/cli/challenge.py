"""`petlesion challenge`: one study in and one mask out, through the autoPET challenge's folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from petlesion.cli.console import say
from petlesion.cli.prediction_options import PRECISION_OPTION, TILES_OPTION
from petlesion.errors import GeometryError, InputError

if TYPE_CHECKING:
    from petlesion.volume import Study

_CT = Path("images", "ct")
_PET = Path("images", "pet")
_LESIONS = Path("images", "automated-petct-lesion-segmentation")
_OUTPUT_HELP = f"Folder that gets {_LESIONS.as_posix()}/*.mha."


def challenge(
    source: Path = typer.Option(..., "--input", help="Folder with images/ct/*.mha and images/pet/*.mha."),
    output: Path = typer.Option(..., "--output", help=_OUTPUT_HELP),
    model: Path | None = typer.Option(
        None,
        "--model",
        "-m",
        help="A bundle, a run, or any nnU-Net v2 model folder.  [default: the model in the box]",
    ),
    precision: str = PRECISION_OPTION,
    tiles: str = TILES_OPTION,
) -> None:
    """Segment one study as the autoPET challenge asks for it: a PET in SUV, and a CT on its grid.

    Writes a mask of 0 and 1 (uint8) under the PET's name, at the PET's own place. For research use only.
    """
    from petlesion.inference.predict import PredictionSettings, load_model
    from petlesion.io.atomic import atomic_file, check_place
    from petlesion.io.itk import write_like
    from petlesion.model.boxed import boxed_bundle
    from petlesion.outputs import flag_of
    from petlesion.pipeline import SegmentationSettings, segment

    pet_file, ct_file = _only_image(source / _PET), _only_image(source / _CT)
    lesions_file = output / _LESIONS / pet_file.name
    check_place(lesions_file.parent)
    settings = SegmentationSettings(prediction=PredictionSettings(tiles))
    study = _read_study(pet_file, ct_file)
    loaded = load_model(model or boxed_bundle(has_ct=True), precision=precision)
    segmentation = segment(study, loaded, settings)
    with atomic_file(lesions_file) as temporary:
        write_like(temporary, segmentation.mask, pet_file)
    for sentence in (*study.warnings, flag_of(segmentation.doubts)):
        if sentence is not None:
            say(sentence)
    # A challenge keeps what is said: not the file's name, which may be a person's, nor what was found.
    say(f"1 mask written to {lesions_file.parent}")


def _only_image(folder: Path) -> Path:
    files = sorted(path for path in folder.glob("*.mha") if not path.name.startswith("."))
    if len(files) != 1:
        found = "no .mha file" if not files else f"{len(files)} .mha files"
        raise InputError(f"{folder} holds {found}; put the one of the study there")
    return files[0]


def _read_study(pet_file: Path, ct_file: Path) -> Study:
    from petlesion.intake import StudySource, read_source, to_study
    from petlesion.io.nifti import read_grid

    if not read_grid(ct_file).matches(read_grid(pet_file)):
        raise GeometryError(f"{ct_file} does not lie on the grid of {pet_file}; resample the CT to the PET")
    return to_study(
        read_source(StudySource(pet_file.stem, pet_file, files={"SUV": pet_file, "CTres": ct_file}))
    )
