"""The options of the commands that let a network look at studies."""

from __future__ import annotations

import typer

FOLDS_OPTION = typer.Option(
    None, "--folds", help="Folds to use, such as 0,1.  [default: all that are trained]"
)
DEVICE_OPTION = typer.Option("auto", "--device", help="auto, cpu, cuda or mps.")
PRECISION_OPTION = typer.Option("auto", "--precision", help="auto, float32 or bfloat16.")
TILES_OPTION = typer.Option("body", "--tiles", help="Where the network looks: body or full.")
STEP_OPTION = typer.Option(0.5, "--step", help="Distance of neighbouring tiles, in patches.")
MIRROR_OPTION = typer.Option(
    None, "--mirror/--no-mirror", help="Average over mirrored passes.  [default: as trained]"
)


def folds_of(text: str | None) -> list[str] | None:
    """The folds of a list such as 0,1; None where none is given."""
    return [fold.strip() for fold in text.split(",")] if text else None
